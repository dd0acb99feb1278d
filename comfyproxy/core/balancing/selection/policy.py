"""What a policy is: an order of the backends for one request, and the ears for what may change it.

A policy gives an order, not a winner: first choice first, each backend at most once. Whoever asks skips
what was tried and goes on, so trying the next server needs no code of its own.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from comfyproxy.core.balancing.backend import Backend

UNITS = 100
"""Units of share in a weight of 1: weights are counted in whole units, so that sums of them stay exact."""


class Policy(Protocol):
    """The least that a policy must have; `Selection` is the base of those here, which are quicker."""

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on; called at the start and after each reload."""

    def order(self, key: bytes | None = None) -> Iterator[Backend]:
        """The candidates for one request; what was not taken from it is void when the next is asked for."""


class Selection:
    """A policy that picks without going through an order, and that keeps to available backends by itself.

    ``watches`` says that `taken` and `given_back` want to be called. A backend that is found unavailable is
    left out until `update` or `given_back` tells that it is back: so a pick never walks over all that are
    down or full again and again.
    """

    __slots__ = ("watches",)

    watches: bool

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on."""
        raise NotImplementedError

    def pick(self, key: bytes | None = None, tried: Collection[Backend] = ()) -> Backend | None:
        """The next available backend that is not in ``tried``, for the request of ``key``; ``None`` if there
        is none."""
        raise NotImplementedError

    def order(self, key: bytes | None = None) -> Iterator[Backend]:
        """The available backends, each once."""
        passed: set[Backend] = set()
        while (backend := self.pick(key, passed)) is not None:
            passed.add(backend)
            yield backend

    def taken(self, backend: Backend) -> None:
        """``backend`` has one more unit of work."""

    def given_back(self, backend: Backend, seconds: float, now: float) -> None:
        """``backend`` has one less, after ``seconds`` (0: nothing is known)."""
        self.update(backend)

    def update(self, backend: Backend) -> None:
        """What ``backend`` may be used for, or its weight, may have changed."""


class Ordered(Selection):
    """Makes a `Selection` of what has no more than a `Policy` must have."""

    __slots__ = ("_policy",)

    def __init__(self, policy: Policy) -> None:
        self.watches = False
        self._policy = policy

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on."""
        self._policy.use(backends)

    def pick(self, key: bytes | None = None, tried: Collection[Backend] = ()) -> Backend | None:
        """The first of the policy's order that will do."""
        for backend in self._policy.order(key):
            if backend.is_available and backend not in tried:
                return backend
        return None


def units(backend: Backend) -> int:
    """The share of ``backend`` at the moment, in whole `UNITS`."""
    return max(1, round(backend.weight * UNITS))


def may_fill(backends: Sequence[Backend]) -> bool:
    """Whether one of them may be full at times."""
    return any(backend.address.max_conns for backend in backends)
