"""First: fill the servers one after the other."""

from collections.abc import Collection, Sequence
from heapq import heappop, heappush

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.policy import Selection, may_fill


class First(Selection):
    """The first backend of the pool that is available: the second gets what the first has no room for.

    With ``max_conns`` the last servers stay idle while there is little work and can be switched off, as with
    HAProxy's ``first``. A heap holds the places that are available, O(log n) a pick.
    """

    __slots__ = ("_backends", "_heap", "_places", "_waiting")

    def __init__(self, backends: Sequence[Backend] = ()) -> None:
        self.use(backends)

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on."""
        self.watches = may_fill(backends)
        self._backends = backends
        self._places = {backend: place for place, backend in enumerate(backends)}
        self._heap = list(range(len(backends)))
        self._waiting: set[int] = set()

    def pick(self, key: bytes | None = None, tried: Collection[Backend] = ()) -> Backend | None:
        """The first available one."""
        heap, held = self._heap, []
        found = None
        while heap:
            place = heap[0]
            backend = self._backends[place]
            if not backend.is_available:
                self._waiting.add(heappop(heap))
            elif backend in tried:
                held.append(heappop(heap))
            else:
                found = backend
                break
        for place in held:
            heappush(heap, place)
        return found

    def update(self, backend: Backend) -> None:
        """Put its place back if it is available again."""
        place = self._places.get(backend, -1)
        if place in self._waiting and backend.is_available:
            self._waiting.discard(place)
            heappush(self._heap, place)
