"""What choosing a backend costs: each policy by pool size, with equal and unequal weights.

    python benchmarks/selection.py [--json] [--seconds 0.05] [--policy ewma ...]

``choose`` is what a request pays: a pick, and a lease taken and released; the policies that hash are asked
with a key that they have seen. ``skip half`` is a choice in a pool whose other half is full, ``flap`` one
after a server went down and came up again, and ``reload`` replaces one server in a hundred. Each
figure is the best of several rounds, so that other work on the machine is not measured too.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count, cycle
from time import perf_counter

from comfyproxy.core.balancing.backend import AdminState, Lease, Outcome
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.selection.balance import PLAIN_POLICIES, Balance, parse_balance
from comfyproxy.core.configuration.addresses import Address

SIZES = (1, 100, 10_000, 100_000)
POLICIES = (*PLAIN_POLICIES, "hash:uri")


@dataclass(frozen=True)
class Row:
    """One line of the table; all costs in microseconds. ``new_key`` is for policies that hash."""

    policy: str
    servers: int
    weights: str
    choose: float
    skip_half: float
    flap: float
    reload: float
    new_key: float | None


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
    return round(best / repeats * 1e6, 3)


def timed(action: Callable[[], object], repeats: int) -> float:
    started = perf_counter()
    for _ in range(repeats):
        action()
    return perf_counter() - started


def choosing(balancer: Balancer, keys: list[bytes]) -> Callable[[], None]:
    """One choice, and what ends with it, by each of ``keys`` in turn."""
    if balancer.key_of is None:
        return lambda: balancer.choose().release(Outcome.ANSWERED, 0.01)
    key = cycle(keys).__next__
    choose = balancer.choose
    for one in keys:
        choose((), one).release()
    return lambda: choose((), key()).release(Outcome.ANSWERED, 0.01)


def half_full(balance: Balance, size: int, weights: str) -> Balancer:
    balancer = Balancer(Pool("gpus", addresses(size, weights, max_conns=1)), balance)
    for backend in balancer.pool.backends[: size // 2]:
        Lease(backend)
    # The first choices find the full ones and leave them out; from then on it is as it stays.
    for _ in range(2):
        balancer.choose().release()
    return balancer


def measure(policy: str, size: int, weights: str, seconds: float) -> Row:
    """All figures for one policy and one pool."""
    balance = parse_balance(policy)
    keys = [b"/%d" % number for number in range(min(64, 6_400_000 // size))]
    balancer = Balancer(Pool("gpus", addresses(size, weights)), balance)
    choose = choosing(balancer, keys)
    chosen = microseconds(choose, seconds)
    pool = balancer.pool
    flapping = cycle(pool.backends)

    def flap() -> None:
        backend = next(flapping)
        pool.set_admin(backend, AdminState.MAINT, 0.0)
        pool.set_admin(backend, AdminState.READY, 0.0)
        choose()

    new_keys = count()
    lists = [addresses(size, weights), addresses(size, weights, first=max(1, size // 100))]

    def reload() -> None:
        lists.reverse()
        balancer.apply(diff(pool.addresses, lists[0]))

    return Row(
        policy,
        size,
        weights,
        chosen,
        microseconds(choosing(half_full(balance, size, weights), keys), seconds),
        microseconds(flap, seconds),
        microseconds(reload, seconds),
        None
        if balancer.key_of is None
        else microseconds(lambda: balancer.choose((), b"new %d" % next(new_keys)).release(), seconds),
    )


def main() -> None:
    """Print the table, or the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--policy", nargs="*", default=POLICIES, help="some policies instead of all")
    parser.add_argument(
        "--seconds", type=float, default=0.1, help="spent on each figure, about (default 0.1)"
    )
    options = parser.parse_args()
    rows = [
        measure(policy, size, weights, options.seconds)
        for policy in options.policy
        for size in SIZES
        for weights in ("equal", "unequal")
    ]
    if options.json:
        json.dump(
            {"python": sys.version.split()[0], "rows": [asdict(row) for row in rows]}, sys.stdout, indent=2
        )
        print()
        return
    print(
        "policy       servers  weights   choose  skip half     flap      reload    new key   (microseconds)"
    )
    for row in rows:
        costs = f"{row.choose:>8.2f} {row.skip_half:>10.2f} {row.flap:>8.2f} {row.reload:>11.1f}"
        new_key = "" if row.new_key is None else f"{row.new_key:>11.1f}"
        print(f"{row.policy:<12} {row.servers:>7} {row.weights:>8} {costs}{new_key}")


if __name__ == "__main__":
    main()
