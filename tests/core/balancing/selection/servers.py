"""Backends for the tests of policies, and what happens to them."""

from collections.abc import Callable, Collection, Iterable, Sequence

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.policy import Policy, Selection
from comfyproxy.core.configuration.addresses import Address


def server(place: int, weight: int = 1, max_conns: int = 0) -> Backend:
    return Backend(Address("http", f"gpu{place}", 8188, weight=weight, max_conns=max_conns), place)


def servers(weights: Iterable[int], max_conns: int = 0) -> list[Backend]:
    return [server(place, weight, max_conns) for place, weight in enumerate(weights)]


def reweigh(one: Backend, weight: int) -> None:
    """What a reload does to a survivor."""
    one.address = Address("http", one.address.host, 8188, weight=weight, max_conns=one.address.max_conns)
    one.weight = float(weight)


def go_down(policy: Selection, *backends: Backend) -> None:
    for one in backends:
        one.usable = False
        policy.update(one)


def come_up(policy: Selection, *backends: Backend) -> None:
    for one in backends:
        one.usable = True
        policy.update(one)


def begin(policy: Selection, one: Backend) -> None:
    """What a lease does."""
    one.leases += 1
    policy.taken(one)


def end(policy: Selection, one: Backend, seconds: float = 0.0, now: float = 0.0) -> None:
    one.leases -= 1
    policy.given_back(one, seconds, now)


def picks(policy: Policy, count: int, usable: Callable[[Backend], bool] = lambda one: True) -> list[Backend]:
    """The first usable candidate of each of ``count`` orders."""
    return [next(filter(usable, policy.order())) for _ in range(count)]


def drawn(
    policy: Selection, count: int, tried: Collection[Backend] = (), key: bytes | None = None
) -> list[Backend]:
    """``count`` picks, each of which finds somebody."""
    found = [policy.pick(key, tried) for _ in range(count)]
    assert None not in found
    return [one for one in found if one is not None]


def places(backends: Sequence[Backend]) -> str:
    return "".join("abcdefgh"[one.index] for one in backends)
