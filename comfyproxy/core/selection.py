"""Policies: in which order the backends of a pool are tried.

A policy yields an order, not a winner: first choice first, each backend at most once. Whoever asks skips
what it may not use and goes on, so trying the next server needs no code of its own.
"""

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import Protocol

from comfyproxy.core.backend import Backend


class Policy(Protocol):
    """An order of candidates."""

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on; called at the start and after each reload."""

    def order(self) -> Iterator[Backend]:
        """The candidates for one request; what was not taken from it is void when the next is asked for."""


class RoundRobin:
    """Each backend in turn, in proportion to its weight.

    Equal weights cost O(1) a pick: a cursor moves on by every backend that is tried, so a server that
    refuses does not give its neighbour a double share. Unequal weights cost O(log n): each backend has the
    virtual time of its next turn, one turn taking 1/weight (earliest deadline first), which interleaves the
    turns of heavy and light servers instead of serving them in runs. The first turns are spread over that
    time, so that light servers do not come one behind the other. A backend that was passed over begins again
    at the present virtual time: it makes up for nothing when it comes back. A reload goes on where the turn
    was.
    """

    __slots__ = ("_backends", "_cursor", "_now", "_served", "_turns")

    def __init__(self, backends: Sequence[Backend] = ()) -> None:
        self._backends: Sequence[Backend] = ()
        self._cursor = 0
        self._now = 0.0
        self._served: list[int] = []
        self._turns: list[tuple[float, int]] = []
        self.use(backends)

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on; those that were there before keep their place in turn."""
        times = self._times()
        self._backends = backends
        self._cursor = 0
        self._served = []
        self._turns = []
        if len({backend.address.weight for backend in backends}) > 1:
            self._turns = [
                (self._first_turn(backend, times.get(backend), place / len(backends)), place)
                for place, backend in enumerate(backends)
            ]
            heapify(self._turns)
        elif times and backends:
            self._cursor = min(range(len(backends)), key=lambda place: times.get(backends[place], inf))

    def _times(self) -> dict[Backend, float]:
        """The virtual time of each backend's next turn."""
        backends, now = self._backends, self._now
        if self._turns or self._served:
            times = {backends[place]: time for time, place in self._turns}
            return times | {
                backends[place]: now + 1 / backends[place].address.weight for place in self._served
            }
        size = len(backends)
        return {
            backend: now + (place - self._cursor) % size / size / backend.address.weight
            for place, backend in enumerate(backends)
        }

    def _first_turn(self, backend: Backend, time: float | None, share: float) -> float:
        """When ``backend``, whose turn was to be at ``time``, has it: at most one whole turn from now."""
        turn = 1 / backend.address.weight
        return self._now + share * turn if time is None else min(time, self._now + turn)

    def order(self) -> Iterator[Backend]:
        """Every backend once, beginning with the one whose turn it is."""
        return self._by_turns() if self._turns or self._served else self._rotating()

    def _rotating(self) -> Iterator[Backend]:
        backends = self._backends
        place = self._cursor
        for _ in backends:
            backend = backends[place]
            place = self._cursor = place + 1 if place + 1 < len(backends) else 0
            yield backend

    def _by_turns(self) -> Iterator[Backend]:
        for place in self._served:
            heappush(self._turns, (self._now + 1 / self._backends[place].address.weight, place))
        self._served = []
        while self._turns:
            self._now, place = heappop(self._turns)
            self._served.append(place)
            yield self._backends[place]
