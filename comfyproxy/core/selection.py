"""Policies: in which order the backends of a pool are tried.

A policy yields an order, not a winner: first choice first, each backend at most once. Whoever asks skips
what it may not use and goes on, so trying the next server needs no code of its own.
"""

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from comfyproxy.core.backend import Backend


class Policy(Protocol):
    """An order of candidates."""

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on; called at the start and after each reload."""

    def order(self) -> Iterator[Backend]:
        """The candidates for one request."""


class RoundRobin:
    """Each backend in turn, in proportion to its weight.

    Equal weights cost O(1) a pick: a cursor moves on by every backend that is tried, so a server that
    refuses does not give its neighbour a double share. Unequal weights cost O(log n): each backend has the
    virtual time of its next turn, one turn taking 1/weight (earliest deadline first), which interleaves the
    turns of heavy and light servers instead of serving them in runs. A backend that was passed over begins
    again at the present virtual time: it makes up for nothing when it comes back.
    """

    __slots__ = ("_backends", "_cursor", "_now", "_served", "_turns")

    def __init__(self, backends: Sequence[Backend] = ()) -> None:
        self._cursor = 0
        self.use(backends)

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on."""
        self._backends = backends
        self._cursor = self._cursor % len(backends) if backends else 0
        self._now = 0.0
        self._served: list[int] = []
        self._turns: list[tuple[float, int]] = []
        if len({backend.address.weight for backend in backends}) > 1:
            self._turns = [(0.5 / backend.address.weight, place) for place, backend in enumerate(backends)]
            heapify(self._turns)

    def order(self) -> Iterator[Backend]:
        """Every backend once, beginning with the one whose turn it is."""
        return self._by_turns() if self._turns or self._served else self._rotating()

    def _rotating(self) -> Iterator[Backend]:
        backends = self._backends
        for _ in backends:
            place = self._cursor
            self._cursor = place + 1 if place + 1 < len(backends) else 0
            yield backends[place]

    def _by_turns(self) -> Iterator[Backend]:
        backends = self._backends
        for place in self._served:
            heappush(self._turns, (self._now + 1 / backends[place].address.weight, place))
        self._served = []
        while self._turns:
            self._now, place = heappop(self._turns)
            self._served.append(place)
            yield backends[place]
