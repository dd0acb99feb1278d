"""Round robin: each backend in turn, in proportion to its weight."""

from collections import deque
from collections.abc import Collection, Sequence
from math import inf

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.policy import UNITS, Selection, may_fill, units
from comfyproxy.core.balancing.selection.smooth import SmoothTurns


class RoundRobin(Selection):
    """Each backend in turn, in proportion to its weight.

    Backends of equal weights stand in a ring: the first is picked and goes to its end, O(1). One that is
    passed over (tried, down, full) loses its turn, and one that comes back joins the end of the ring, so it
    makes up for nothing. Unequal weights, also those of a slow start, have `SmoothTurns`: nginx's order,
    which interleaves the turns of heavy and light servers, O(log n). A reload, and a change from one to the
    other, goes on where the turn was.
    """

    __slots__ = ("_backends", "_is_even", "_ramping", "_ring", "_smooth", "_waiting")

    def __init__(self, backends: Sequence[Backend] = ()) -> None:
        self._backends: Sequence[Backend] = ()
        self._is_even = True
        self._ramping: set[Backend] = set()
        self._ring: deque[Backend] = deque()
        self._smooth: SmoothTurns | None = None
        self._waiting: set[Backend] = set()
        self.use(backends)

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on; those that were there before keep their place in turn."""
        self.watches = may_fill(backends)
        self._is_even = len({backend.address.weight for backend in backends}) <= 1
        self._ramping = {backend for backend in backends if backend.weight != backend.address.weight}
        self._arrange(backends)

    def pick(self, key: bytes | None = None, tried: Collection[Backend] = ()) -> Backend | None:
        """The available backend whose turn it is."""
        ring = self._ring
        if ring:
            backend = ring[0]
            # `Backend.is_available`, spelt out: this is what most requests do.
            if (
                backend.usable
                and not 0 < backend.address.max_conns <= backend.leases - backend.exempt
                and backend not in tried
            ):
                ring.rotate(-1)
                return backend
            return self._go_round(tried)
        return None if self._smooth is None else self._smooth.pick(tried)

    def _go_round(self, tried: Collection[Backend]) -> Backend | None:
        ring = self._ring
        for _ in range(len(ring)):
            backend = ring.popleft()
            if not backend.is_available:
                self._waiting.add(backend)
                continue
            ring.append(backend)
            if backend not in tried:
                return backend
        return None

    def taken(self, backend: Backend) -> None:
        """One that is full now takes no part in the turns of unequal weights."""
        if self._smooth is not None and backend.is_full:
            self._smooth.update(backend)

    def update(self, backend: Backend) -> None:
        """Take it in again if it waited for that, and give it its share."""
        if backend.removed:
            return
        if backend.weight != backend.address.weight:
            self._ramping.add(backend)
        else:
            self._ramping.discard(backend)
        if (self._smooth is None) is not (self._is_even and not self._ramping):
            self._arrange(self._backends)
        elif self._smooth is not None:
            self._smooth.update(backend)
        elif backend in self._waiting and backend.is_available:
            self._waiting.discard(backend)
            self._ring.append(backend)

    def _arrange(self, backends: Sequence[Backend]) -> None:
        """Begin anew where the turn is."""
        credits, former = self._credits()
        self._backends = backends
        self._ring.clear()
        self._waiting.clear()
        if self._is_even and not self._ramping:
            self._smooth = None
            first = max(range(len(backends)), key=lambda place: credits.get(backends[place], -inf), default=0)
            self._ring.extend(backends[first:])
            self._ring.extend(backends[:first])
        else:
            # A pool that shrinks would work off credits of its former size in bursts.
            total = sum(map(units, backends))
            if total != former:
                credits = {backend: credit * total // former for backend, credit in credits.items()}
            self._smooth = SmoothTurns(backends, credits)

    def _credits(self) -> tuple[dict[Backend, int], int]:
        """What puts the backends into the order of their turns, and the sum of their weights, both in units;
        one that is not among them is in the middle with 0."""
        if self._smooth is not None:
            return self._smooth.credits(), self._smooth.weight
        turns = [*self._ring, *self._waiting]
        total = len(turns) * UNITS
        return {backend: total // 2 - place * UNITS for place, backend in enumerate(turns)}, total
