"""`python -m conformance.anchors`: what other proxies make of malformed messages, beside comfyproxy."""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import PEERS, Peer, Place, Setting, look_in, present
from benchmarks.processes import STARTED_WITHIN, free_ports
from conformance.anchors.backend import Backend, Script
from conformance.anchors.laxer import outlived, unexplained
from conformance.anchors.page import write_page
from conformance.anchors.results import OURS, Results
from conformance.anchors.rules import RULES, WAITS, Rule, get
from conformance.anchors.trials import SECOND_PATIENCE, try_one
from conformance.anchors.verdicts import verdict
from conformance.corpora import REQUESTS, RESPONSES, ROOT, Case, cases

PAGE = ROOT / "docs" / "reference" / "malformed-input.md"

SHARES = 4
"""Processes of each peer, which share the questions: most of the time is waiting for what does not come."""

NAMES = (OURS, "nginx", "nginx (PyPI)", "haproxy", "haproxy (PyPI)", "caddy", "traefik", "envoy")
"""Who is asked; comfyproxy without ComfyUI, whose own rules about origins the others do not have."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask everybody who is there; 1 if comfyproxy breaks a rule, or is laxer than others without a reason."""
    options = _parser().parse_args(arguments)
    if options.peers_from:
        look_in(Path(options.peers_from).resolve())
    if options.kept:
        results = Results.from_json(json.loads(Path(options.kept).read_text()))
    else:
        results = asyncio.run(measure(present(options.peer or NAMES), options.only))
    if options.json:
        Path(options.json).write_text(json.dumps(results.to_json(), indent=1) + "\n")
    if options.page:
        write_page(PAGE, results)
    return report(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m conformance.anchors", description=__doc__)
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="only this one; repeatable")
    parser.add_argument("--peers-from", metavar="DIR", help="also look for peers in this virtual environment")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only cases and rules with this in their name"
    )
    parser.add_argument("--json", metavar="FILE", help="keep what was found")
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--kept", metavar="FILE", help="ask nobody: take what --json kept")
    return parser


async def measure(peers: Sequence[Peer], only: str) -> Results:
    """Ask all peers at once, each by several processes."""
    results = Results([(peer.name, peer.describe()) for peer in peers])
    asked = [case for case in cases(*REQUESTS, *RESPONSES) if only in case.name]
    rules = [rule for rule in RULES if only in rule.name]
    # In this order they are kept and shown, whoever answers first.
    for case in asked:
        results.verdicts[f"{case.folder}/{case.name}"] = {}
    with tempfile.TemporaryDirectory() as directory:
        await asyncio.gather(
            *(
                _ask(
                    peer,
                    Path(directory, f"{peer.name} {share}"),
                    asked[share::SHARES],
                    rules[share::SHARES],
                    results,
                )
                for peer in peers
                for share in range(SHARES)
            )
        )
    return results


async def _ask(
    peer: Peer, directory: Path, asked: Sequence[Case], rules: Sequence[Rule], results: Results
) -> None:
    directory.mkdir()
    backend = Backend()
    await backend.start()
    (port,) = free_ports(1)
    setting = Setting([f"127.0.0.1:{backend.port}"])
    process = peer.start(setting, Place(port, directory))
    try:
        await asyncio.to_thread(process.wait_until_listening)
        await _wait_until_it_passes(backend, port)
        for case in asked:
            found = await _try_case(backend, port, case)
            results.verdicts[f"{case.folder}/{case.name}"][peer.name] = found
        for rule in rules:
            results.rules[rule.name][peer.name] = await try_rule(backend, port, rule)
    finally:
        process.stop()
        await backend.stop()


async def _wait_until_it_passes(backend: Backend, port: int) -> None:
    """Some listen before they know where to."""
    async with asyncio.timeout(STARTED_WITHIN):
        while (await try_one(backend, port, get(), "GET", Script())).arrived is None:
            await asyncio.sleep(0.1)


async def _try_case(backend: Backend, port: int, case: Case) -> str:
    if case.is_request:
        return verdict(case, await try_one(backend, port, case.raw, case.method, Script()))
    sent = b"%b / HTTP/1.1\r\nHost: a.example\r\n\r\n" % case.method.encode()
    return verdict(case, await try_one(backend, port, sent, case.method, Script(case.raw)))


async def try_rule(backend: Backend, port: int, rule: Rule) -> str:
    """What a proxy makes of ``rule``, in a word; one that says nothing is asked twice."""
    found = rule.judge(await try_one(backend, port, rule.sent, rule.method, rule.script))
    if found == WAITS:
        again = await try_one(backend, port, rule.sent, rule.method, rule.script, SECOND_PATIENCE)
        found = rule.judge(again)
    return found


def report(results: Results) -> int:
    """Say how comfyproxy stands; 1 if that is not as it should be."""
    for name, description in results.peers:
        refused, all_ = results.refusals(name)
        print(f"{name:24} refuses {refused} of {all_} malformed messages   {description}")
    laxer = results.laxer()
    complaints = [f"laxer than {', '.join(laxer[case])}: {case}" for case in unexplained(laxer)]
    if results.is_whole:
        complaints += [f"explained, but not laxer: {pattern}" for pattern in outlived(laxer)]
    complaints += [f"{name}: {found}, not {wanted}" for name, found, wanted in results.broken_rules()]
    print("\n".join(complaints) or "comfyproxy refuses whatever any of them refuses, or says why not")
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
