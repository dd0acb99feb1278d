"""nginx's smooth weighted round robin, pick for pick, without a walk over all servers.

nginx gives every eligible server its weight as credit at each pick, takes the one with the most credit (the
first of several) and subtracts from it the weights of all that were eligible; one that is not eligible is
left out of the pick altogether (``ngx_http_upstream_get_peer``).

Here the credit of a server is a line: at pick ``t`` it is ``weight * t + offset``, and only what happens to
this server changes its offset. So among servers of one weight the highest offset leads, always: a heap finds
it. Among weights, the one whose leader has the most credit stands at the root of a tournament: each node
knows which of its two sides leads, and until which pick nobody below it can overtake (a kinetic tournament:
Basch, Guibas, Hershberger, "Data structures for mobile data", 1997). A pick costs O(log n) in the heap, and
O(log d) matches, amortised, for ``d`` different weights.
"""

from collections.abc import Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from math import inf

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.policy import units

Credits = Mapping[Backend, int]
"""The credit of each backend, in units of share; all of them together are about 0."""


class SmoothTurns:
    """The turns of backends of unequal weights; they begin with ``credits``, or with none."""

    __slots__ = (
        "_backends",
        "_ends",
        "_free",
        "_heaps",
        "_inside",
        "_leaders",
        "_now",
        "_offsets",
        "_places",
        "_size",
        "_slots",
        "_total",
        "_weights",
    )

    def __init__(self, backends: Sequence[Backend], credits: Credits | None = None) -> None:
        credits = credits or {}
        self._now = 0
        self._backends = backends
        self._places = {backend: place for place, backend in enumerate(backends)}
        self._weights = [units(backend) for backend in backends]
        # Inside, the offset of its line; outside, where credit stands still, the credit itself.
        self._offsets = [credits.get(backend, 0) for backend in backends]
        self._inside = [backend.is_available for backend in backends]
        self._total = 0
        self._slots: dict[int, int] = {}
        heaps: dict[int, list[tuple[int, int]]] = {}
        for place, weight in enumerate(self._weights):
            if self._inside[place]:
                self._total += weight
                heaps.setdefault(weight, []).append((-self._offsets[place], place))
        self._set_up(heaps)

    def _set_up(self, heaps: Mapping[int, list[tuple[int, int]]]) -> None:
        """Begin a tournament among the weights of ``heaps``."""
        self._size = size = 1 << max(1, (len(heaps) - 1).bit_length())
        self._slots = {weight: slot for slot, weight in enumerate(heaps)}
        self._heaps = [*heaps.values(), *([] for _ in range(size - len(heaps)))]
        self._free = list(range(len(heaps), size))
        self._leaders = [-1] * (2 * size)
        self._ends: list[float] = [inf] * (2 * size)
        for slot, heap in enumerate(self._heaps):
            heapify(heap)
            self._leaders[size + slot] = heap[0][1] if heap else -1
        for node in range(size - 1, 0, -1):
            self._play(node)

    @property
    def weight(self) -> int:
        """The weights of all backends together, available or not."""
        return sum(self._weights)

    def credits(self) -> dict[Backend, int]:
        """What each backend has now."""
        return {backend: self._credit(place) for backend, place in self._places.items()}

    def pick(self, tried: Collection[Backend] = ()) -> Backend | None:
        """The available backend whose turn it is, those in ``tried`` being left out as nginx does."""
        if not tried:
            return self._next()
        places, inside = self._places, self._inside
        held = [place for one in tried if (place := places.get(one, -1)) >= 0 and inside[place]]
        for place in held:
            self._leave(place)
        found = self._next()
        for place in held:
            self._join(place)
        return found

    def _next(self) -> Backend | None:
        while self._total:
            self._now += 1
            if self._ends[1] <= self._now:
                self._catch_up(1)
            place = self._leaders[1]
            backend = self._backends[place]
            if backend.is_available:
                self._offsets[place] = offset = self._offsets[place] - self._total
                slot = self._slots[self._weights[place]]
                heapreplace(self._heaps[slot], (-offset, place))
                self._look_at(slot)
                return backend
            self._now -= 1
            self._leave(place)
        return None

    def update(self, backend: Backend) -> None:
        """Let ``backend`` in or out, and give it its share, as it is now."""
        place = self._places.get(backend, -1)
        if place < 0:
            return
        weight, is_available = units(backend), backend.is_available
        if self._inside[place] and (not is_available or weight != self._weights[place]):
            self._leave(place)
        self._weights[place] = weight
        if is_available and not self._inside[place]:
            self._join(place)

    def _credit(self, place: int) -> int:
        offset = self._offsets[place]
        return offset + self._weights[place] * self._now if self._inside[place] else offset

    def _leave(self, place: int) -> None:
        self._offsets[place] = self._credit(place)
        self._inside[place] = False
        weight = self._weights[place]
        self._total -= weight
        self._look_at(self._slots[weight])

    def _join(self, place: int) -> None:
        weight = self._weights[place]
        self._offsets[place] -= weight * self._now
        self._inside[place] = True
        self._total += weight
        if weight not in self._slots:
            self._make_slot(weight)
        self._enter(place)

    def _make_slot(self, weight: int) -> None:
        if not self._free:
            self._set_up({**{other: self._heaps[slot] for other, slot in self._slots.items()}, weight: []})
            return
        self._slots[weight] = self._free.pop()

    def _enter(self, place: int) -> None:
        """Put ``place`` into its heap as it stands now."""
        slot = self._slots[self._weights[place]]
        heap = self._heaps[slot]
        heappush(heap, (-self._offsets[place], place))
        if len(heap) > 2 * len(self._backends) + 64:
            heap[:] = sorted({entry for entry in heap if self._is_valid(entry, slot)})
        self._look_at(slot)

    def _is_valid(self, entry: tuple[int, int], slot: int) -> bool:
        offset, place = entry
        return (
            self._offsets[place] == -offset
            and self._inside[place]
            and self._slots.get(self._weights[place]) == slot
        )

    def _look_at(self, slot: int) -> None:
        """Find who leads the weight of ``slot`` now, and play the matches that this matters to."""
        heap, node = self._heaps[slot], self._size + slot
        while heap and not self._is_valid(heap[0], slot):
            heappop(heap)
        if heap:
            self._leaders[node] = heap[0][1]
        else:
            del self._slots[self._weights[self._leaders[node]]]
            self._free.append(slot)
            self._leaders[node] = -1
        while node := node >> 1:
            self._play(node)

    def _catch_up(self, node: int) -> None:
        """Play again, below ``node`` and in it, where somebody may have been overtaken."""
        for side in (2 * node, 2 * node + 1):
            if self._ends[side] <= self._now:
                self._catch_up(side)
        self._play(node)

    def _play(self, node: int) -> None:
        """Find who leads at ``node`` and until which pick that is certain; of equals the first one leads."""
        leaders, ends = self._leaders, self._ends
        one, other = leaders[2 * node], leaders[2 * node + 1]
        end = min(ends[2 * node], ends[2 * node + 1])
        if one < 0 or other < 0:
            leaders[node] = max(one, other)
        else:
            now, offsets, weights = self._now, self._offsets, self._weights
            lead = offsets[one] - offsets[other] + (weights[one] - weights[other]) * now
            if lead < 0 or (lead == 0 and other < one):
                one, other, lead = other, one, -lead
            leaders[node] = one
            gain = weights[other] - weights[one]
            if gain > 0:
                # The other one takes the lead as soon as it has more, or as much and stands before it.
                end = min(end, now + (lead // gain + 1 if one < other else -(-lead // gain)))
        ends[node] = end
