"""`python -m benchmarks`: comfyproxy beside its peers."""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.backends import running_backends
from benchmarks.chart import write_chart
from benchmarks.page import write_page
from benchmarks.peers import COMFYPROXY, HAPROXY, NGINX, PEERS, Peer, look_in, present
from benchmarks.report import standing, table
from benchmarks.rounds import Rounds, Samples, raise_descriptor_limit
from benchmarks.works import QUICK, QUICK_WORKS, WORKS

MANY = 10_000
SECONDS = 0.7
EXTRA = {
    "idle clients": "memory of one idle keep-alive client",
    "idle WebSockets": "memory of one idle WebSocket pair",
    "many servers": f"small GET, {MANY} servers, one in a hundred comes and goes",
}
"""The works that are not a load of so many seconds, with their titles."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for and print it; 1 if comfyproxy failed at something."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    if sys.platform != "linux":
        raise SystemExit("The benchmarks read Linux's process clocks; there are none here.")
    if options.peers_from:
        look_in(Path(options.peers_from).resolve())
    if options.profile:
        from benchmarks.profiling import profile

        return profile(options.profile, options.seconds or 5.0)
    if options.kept:
        kept = json.loads(Path(options.kept).read_text())
        _publish(options, kept["about"], kept["results"])
        return 0
    peers = present(options.peer or (QUICK if options.quick else ()))
    about = list(_about(peers))
    print("\n".join(about))
    started = time.monotonic()
    results, failures = _measure(options, peers)
    print("\n".join(standing(results)))
    print(f"\n{time.monotonic() - started:.0f} s")
    if options.json:
        kept = {"about": about, "results": results, "failures": failures}
        Path(options.json).write_text(json.dumps(kept, indent=1) + "\n")
    _publish(options, about, results)
    return int(any(COMFYPROXY in failure for failure in failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [work.name for work in WORKS] + list(EXTRA)
    parser.add_argument("--work", action="append", choices=names, help="only this; repeatable")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="only this one; repeatable")
    parser.add_argument("--quick", action="store_true", help="few peers, one round: under a minute")
    parser.add_argument("--rounds", type=int, metavar="N", help="(default: 3; quick: 1)")
    parser.add_argument("--seconds", type=float, help=f"of one load (default: {SECONDS}; wrk: 1)")
    parser.add_argument("--peers-from", metavar="DIR", help="also look for peers in this virtual environment")
    parser.add_argument("--json", metavar="FILE", help="keep what was measured")
    parser.add_argument("--chart", metavar="FILE", help="draw it, as .svg or, with matplotlib, .png")
    parser.add_argument("--page", metavar="FILE", help="put the figures into this page, between its marks")
    parser.add_argument("--kept", metavar="FILE", help="measure nothing: draw and write what --json kept")
    parser.add_argument("--profile", choices=names[:-3], help="show where the time of this work goes instead")
    return parser


def _publish(options: argparse.Namespace, about: Sequence[str], results: dict[str, Samples]) -> None:
    if options.chart:
        write_chart(results, Path(options.chart))
    if options.page:
        write_page(Path(options.page), about, results)


def _about(peers: Sequence[Peer]) -> Iterator[str]:
    from comfyproxy import __version__

    twisted = metadata.version("Twisted")
    yield f"comfyproxy {__version__}, Python {platform.python_version()}, Twisted {twisted}"
    yield f"Linux {platform.release()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before"
    for peer in peers:
        described = peer.describe()
        yield f"{peer.name}{': ' + described if described else ''}"


def _measure(options: argparse.Namespace, peers: Sequence[Peer]) -> tuple[dict[str, Samples], dict[str, str]]:
    descriptors = raise_descriptor_limit()
    results: dict[str, Samples] = {}
    with tempfile.TemporaryDirectory(prefix="comfyproxy-bench-", dir=_memory()) as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx's worker is another user where we are root
        (directory / "backends").mkdir()
        with running_backends(directory / "backends", MANY) as backends:
            count = options.rounds or (1 if options.quick else 3)
            rounds = Rounds(directory, backends, count, options.seconds or SECONDS, _say)
            chosen = options.work or (QUICK_WORKS if options.quick else ())
            for work in WORKS:
                if not chosen or work.name in chosen:
                    samples = results[work.name] = rounds.run(work, peers)
                    _print(table(work.title, samples, work.unit, work.scale, work.reference))
            _measure_extra(options, rounds, peers, results, descriptors)
            return results, rounds.failures


def _measure_extra(
    options: argparse.Namespace,
    rounds: Rounds,
    peers: Sequence[Peer],
    results: dict[str, Samples],
    descriptors: int,
) -> None:
    for name in ("idle clients", "idle WebSockets"):
        if not (options.work or options.quick) or name in (options.work or ()):
            sockets = name == "idle WebSockets"
            samples = results[name] = rounds.idle_memory(peers, sockets)
            _print(table(EXTRA[name], samples, "client", "us", NGINX))
    if not (options.work or options.quick) or (options.work and "many servers" in options.work):
        if descriptors < MANY + 1000:
            _say(
                f"'many servers' is left out: it takes {MANY + 1000} open files, and there are {descriptors}"
            )
            return
        takers = [one for one in peers if one.name in (COMFYPROXY, NGINX, HAPROXY)]
        few, many = rounds.many_servers(takers, MANY)
        results["three servers"], results["many servers"] = few, many
        _print(table("small GET, 3 servers", few, "request", "us", NGINX))
        _print(table(EXTRA["many servers"], many, "request", "us", NGINX))


def _memory() -> str | None:
    """A directory in memory if there is one: a disk would be part of what is measured."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)
    elif "left out" in what:
        print(what, file=sys.stderr, flush=True)


def _print(lines: Iterator[str]) -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
