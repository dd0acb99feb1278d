"""Least connections: the backend with the least in flight for its weight."""

from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush, heapreplace

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.policy import Selection

_Entry = tuple[float, float, int]
"""Load, time of the next turn, place."""


class LeastConn(Selection):
    """The backend with the fewest leases for its weight; those with equally few take turns.

    As in nginx, leases divided by weight are compared, and among equals it is weighted round robin: a turn
    takes 1/weight of a virtual time, and the earliest is next. A heap holds one valid entry for each backend,
    and is put right lazily: a load that has grown is seen when its entry comes to the top, one that has
    fallen gets a new entry. That is O(log n) a pick, amortised.
    """

    __slots__ = ("_backends", "_entries", "_heap", "_now", "_places", "_waiting")

    def __init__(self, backends: Sequence[Backend] = ()) -> None:
        self.watches = True
        self._backends: Sequence[Backend] = ()
        self._places: dict[Backend, int] = {}
        self._entries: list[_Entry] = []
        self._heap: list[_Entry] = []
        self._now = 0.0
        self._waiting: set[int] = set()
        self.use(backends)

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on; those that were there before keep their place in turn."""
        turns = {backend: self._entries[place][1] for backend, place in self._places.items()}
        self._backends = backends
        self._places = {backend: place for place, backend in enumerate(backends)}
        self._entries = [
            (
                backend.leases / backend.weight,
                turns.get(backend, self._now + 0.5 / backend.weight),
                place,
            )
            for place, backend in enumerate(backends)
        ]
        self._heap = self._entries.copy()
        self._waiting = set()
        heapify(self._heap)

    def pick(self, key: bytes | None = None, tried: Collection[Backend] = ()) -> Backend | None:
        """The available backend with the least load."""
        heap, entries, backends = self._heap, self._entries, self._backends
        held: list[_Entry] = []
        found = None
        while heap:
            entry = heap[0]
            load, turn, place = entry
            backend = backends[place]
            if entries[place] is not entry:
                heappop(heap)
            elif not backend.is_available:
                heappop(heap)
                self._waiting.add(place)
            elif backend.leases / backend.weight > load:
                entries[place] = entry = (backend.leases / backend.weight, turn, place)
                heapreplace(heap, entry)
            elif backend in tried:
                held.append(heappop(heap))
            else:
                found = backend
                self._now = max(self._now, turn)
                entries[place] = entry = (load, self._now + 1 / backend.weight, place)
                heapreplace(heap, entry)
                break
        for entry in held:
            heappush(heap, entry)
        return found

    def update(self, backend: Backend) -> None:
        """Give it a new entry if it has less load than before, or comes back."""
        place = self._places.get(backend, -1)
        if place < 0 or not backend.is_available:
            return
        former, turn, _ = self._entries[place]
        load = backend.leases / backend.weight
        if load < former or place in self._waiting:
            self._waiting.discard(place)
            self._entries[place] = entry = (load, turn, place)
            heappush(self._heap, entry)
            if len(self._heap) > 2 * len(self._backends) + 64:
                self._forget_former()

    def _forget_former(self) -> None:
        """Drop the entries that are not valid any more: there are as many of them as of others."""
        entries, waiting = self._entries, self._waiting
        self._heap = [entry for place, entry in enumerate(entries) if place not in waiting]
        heapify(self._heap)
