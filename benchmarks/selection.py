"""What choosing a backend costs: one pick by pool size, with equal and unequal weights.

    python benchmarks/selection.py [--json] [--seconds 0.05]

``pick`` is a policy's first candidate; ``choose`` is what a request pays: that, and a lease taken and
released. ``skip half`` is a choice in a pool whose other half is full. ``reload`` replaces one server in a
hundred. Each figure is the best of several rounds, so that other work on the machine is not measured too.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter

from comfyproxy.core.addresses import Address
from comfyproxy.core.backend import Lease
from comfyproxy.core.balancer import Balancer
from comfyproxy.core.changes import diff
from comfyproxy.core.pool import Pool

SIZES = (1, 100, 10_000, 100_000)


@dataclass(frozen=True)
class Row:
    """One line of the table; all costs in microseconds."""

    servers: int
    weights: str
    pick: float
    choose: float
    skip_half: float
    reload: float


def addresses(size: int, weights: str, first: int = 0, max_conns: int = 0) -> list[Address]:
    """``size`` servers; unequal weights are 1 to 10 in turn."""
    heaviest = 10 if weights == "unequal" else 1
    return [
        Address("http", f"gpu{number}", 8188, weight=1 + number % heaviest, max_conns=max_conns)
        for number in range(first, first + size)
    ]


def microseconds(action: Callable[[], object], seconds: float) -> float:
    """The time of one ``action``: the best of the rounds that fit into ``seconds``, and of at least one."""
    repeats = 1
    while (took := timed(action, repeats)) < seconds / 20 and repeats < 1_000_000:
        repeats *= 4
    best, left = took, seconds - took
    while left > 0:
        took = timed(action, repeats)
        best, left = min(best, took), left - took
    return best / repeats * 1e6


def timed(action: Callable[[], object], repeats: int) -> float:
    started = perf_counter()
    for _ in range(repeats):
        action()
    return perf_counter() - started


def measure(size: int, weights: str, seconds: float) -> Row:
    """All figures for one pool."""
    balancer = Balancer(Pool("gpus", addresses(size, weights)))
    policy = balancer.policy

    def pick() -> None:
        next(policy.order())

    def choose() -> None:
        balancer.choose().release()

    half = Balancer(Pool("gpus", addresses(size, weights, max_conns=1)))
    for backend in half.pool.backends[: size // 2]:
        Lease(backend)

    def skip_half() -> None:
        half.choose().release()

    # The first choice finds the full ones, and the second puts them back; from then on it is as it stays.
    skip_half()
    skip_half()

    lists = [addresses(size, weights), addresses(size, weights, first=max(1, size // 100))]

    def reload() -> None:
        lists.reverse()
        balancer.apply(diff(balancer.pool.addresses, lists[0]))

    costs = [round(microseconds(action, seconds), 3) for action in (pick, choose, skip_half, reload)]
    return Row(size, weights, *costs)


def main() -> None:
    """Print the table, or the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument(
        "--seconds", type=float, default=0.1, help="spent on each figure, about (default 0.1)"
    )
    options = parser.parse_args()
    rows = [measure(size, weights, options.seconds) for size in SIZES for weights in ("equal", "unequal")]
    if options.json:
        json.dump(
            {"python": sys.version.split()[0], "rows": [asdict(row) for row in rows]}, sys.stdout, indent=2
        )
        print()
        return
    print(" servers  weights     pick   choose  skip half      reload   (microseconds)")
    for row in rows:
        costs = f"{row.pick:>8.2f} {row.choose:>8.2f} {row.skip_half:>10.2f} {row.reload:>11.1f}"
        print(f"{row.servers:>8} {row.weights:>8} {costs}")


if __name__ == "__main__":
    main()
