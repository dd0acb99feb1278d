"""`python -m conformance.wstest`: the Autobahn test suite through the proxy in both modes, and without it."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.peers import PEERS, Peer, Place, Setting, comfyproxy, look_in, program
from benchmarks.processes import Process, free_ports
from conformance.corpora import ROOT
from conformance.wstest.grades import Cases, table, worse
from conformance.wstest.suite import COMPRESSED, QUICK, SLOW, WHOLE, run, why_missing

DIRECT = "direct"
OURS = {
    "relay": Peer("relay", program("comfyproxy"), comfyproxy("--app", "http", "--websocket", "relay")),
    "messages": Peer(
        "messages", program("comfyproxy"), comfyproxy("--app", "http", "--websocket", "messages")
    ),
}
OTHERS = ("nginx", "nginx (PyPI)", "haproxy", "haproxy (PyPI)", "caddy", "traefik", "envoy")
DEFLATE = ", deflate"
"""Behind the name of what stands before the echo server that compresses."""

AT_ONCE = 2
"""Suites at a time: more would let one case wait for another's processor time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and print it; 1 if a case ended worse through comfyproxy than without it."""
    options = _parser().parse_args(arguments)
    if reason := why_missing():
        print(reason, file=sys.stderr)
        return 2
    if options.peers_from:
        look_in(Path(options.peers_from).resolve())
    peers = [*OURS.values(), *(PEERS[name] for name in options.peer or ())]
    found = measure(peers, options.case or (WHOLE if options.whole else ()), options.seconds)
    print("\n".join(table(found)))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    complaints = list(compare(found))
    print("\n".join(complaints) or "no case ends worse through comfyproxy than without a proxy")
    return int(any(complaint.startswith(tuple(OURS)) for complaint in complaints))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m conformance.wstest", description=__doc__)
    parser.add_argument("--whole", action="store_true", help="all 517 cases; the slow ones take many minutes")
    parser.add_argument("--case", action="append", metavar="CASE", help="only these, such as 6.*; repeatable")
    parser.add_argument(
        "--seconds", type=float, default=3600, help="until a suite is given up (default: %(default)g)"
    )
    parser.add_argument("--peer", action="append", choices=OTHERS, help="this proxy too; repeatable")
    parser.add_argument("--peers-from", metavar="DIR", help="also look for peers in this virtual environment")
    parser.add_argument("--json", metavar="FILE", help="keep what was found")
    return parser


def measure(peers: Sequence[Peer], cases: Sequence[str], seconds: float) -> dict[str, Cases]:
    """Run the suite through each peer and without, with compression and without; ``cases`` or a selection."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers: dict[str, tuple[int, Sequence[str]]] = {}
        for deflate in (False, True):
            chosen = cases or ((*COMPRESSED,) if deflate else (*QUICK, *SLOW))
            for name, port in _start(stack, peers, directory, deflate):
                servers[name] = port, chosen
        with ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = {
                name: pool.submit(run, name, port, chosen, _new(directory / "suites" / name), seconds)
                for name, (port, chosen) in servers.items()
            }
            return {name: job.result() for name, job in jobs.items()}


def _start(
    stack: ExitStack, peers: Sequence[Peer], directory: Path, deflate: bool
) -> Iterator[tuple[str, int]]:
    """Start an echo server and the peers before it; yields each name with its port."""
    suffix = DEFLATE if deflate else ""
    (port,) = free_ports(1)
    command = [
        sys.executable,
        "-m",
        "conformance.wstest.echo",
        str(port),
        *(["--deflate"] if deflate else []),
    ]
    place = _new(directory / f"echo{suffix}")
    stack.enter_context(_running(Process(command, port, place / "output", {"PYTHONPATH": str(ROOT)})))
    yield DIRECT + suffix, port
    for peer in peers:
        (front,) = free_ports(1)
        at = Place(front, _new(directory / f"{peer.name}{suffix}"))
        stack.enter_context(_running(peer.start(Setting([f"127.0.0.1:{port}"]), at)))
        yield peer.name + suffix, front


@contextmanager
def _running(process: Process) -> Iterator[Process]:
    try:
        process.wait_until_listening()
        yield process
    finally:
        process.stop()


def _new(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def compare(found: Mapping[str, Cases]) -> Iterator[str]:
    """What ended worse through a proxy, one line each."""
    for name, cases in found.items():
        suffix = DEFLATE if name.endswith(DEFLATE) else ""
        if name != DIRECT + suffix:
            yield from (f"{name}: {line}" for line in worse(cases, found[DIRECT + suffix]))


if __name__ == "__main__":
    sys.exit(main())
