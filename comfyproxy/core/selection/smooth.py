"""nginx's smooth weighted round robin, pick for pick, at O(log n) a pick.

nginx gives every eligible server its weight as credit at each pick, takes the one with the most credit (the
first of several) and subtracts from it the weights of all that were eligible; one that is not eligible is
left out of the pick altogether (``ngx_http_upstream_get_peer``). That is a walk over all servers.

Here the credit of a server is a line: at pick ``t`` it is ``weight * t + offset``, and only what happens to
this server changes its offset. The one with the most credit stands at the root of a tournament: each node
knows who of its two sides leads, and until which pick nobody below it can overtake (a kinetic tournament:
Basch, Guibas, Hershberger, "Data structures for mobile data", 1997). A pick plays the matches on one path
again, and those in which somebody was overtaken meanwhile.
"""

from collections.abc import Collection, Mapping, Sequence
from math import inf

from comfyproxy.core.backend import Backend
from comfyproxy.core.selection.policy import units

Credits = Mapping[Backend, int]
"""The credit of each backend, in units of share; all of them together are about 0."""


class SmoothTurns:
    """The turns of backends of unequal weights; they begin with ``credits``, or with none."""

    __slots__ = (
        "_backends",
        "_ends",
        "_inside",
        "_leaders",
        "_now",
        "_offsets",
        "_places",
        "_size",
        "_total",
        "_weights",
    )

    def __init__(self, backends: Sequence[Backend], credits: Credits | None = None) -> None:
        count = len(backends)
        credits = credits or {}
        self._now = 0
        self._backends = backends
        self._places = {backend: place for place, backend in enumerate(backends)}
        self._weights = [units(backend) for backend in backends]
        # Inside, the offset of its line; outside, where credit stands still, the credit itself.
        self._offsets = [credits.get(backend, 0) for backend in backends]
        self._inside = [backend.is_available for backend in backends]
        self._total = sum(
            weight for weight, inside in zip(self._weights, self._inside, strict=True) if inside
        )
        self._size = size = 1 << max(0, count - 1).bit_length()
        leaves = [place if inside else -1 for place, inside in enumerate(self._inside)]
        self._leaders = [-1] * size + leaves + [-1] * (size - count)
        self._ends: list[float] = [inf] * (2 * size)
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
        places, inside = self._places, self._inside
        held = [place for one in tried if (place := places.get(one, -1)) >= 0 and inside[place]]
        for place in held:
            self._leave(place)
        found = self._next()
        for place in held:
            self._join(place)
        return found

    def _next(self) -> Backend | None:
        turn = self._now + 1
        while self._total:
            self._now = turn
            if self._ends[1] <= turn:
                self._catch_up(1)
            place = self._leaders[1]
            backend = self._backends[place]
            if backend.is_available:
                self._offsets[place] -= self._total
                self._replay(place)
                return backend
            self._now = turn - 1
            self._leave(place)
        return None

    def update(self, backend: Backend) -> None:
        """Let ``backend`` in or out, and give it its share, as it is now."""
        place = self._places.get(backend, -1)
        if place < 0:
            return
        weight = units(backend)
        if self._inside[place] and (not backend.is_available or weight != self._weights[place]):
            self._leave(place)
        self._weights[place] = weight
        if not self._inside[place] and backend.is_available:
            self._join(place)

    def _credit(self, place: int) -> int:
        offset = self._offsets[place]
        return offset + self._weights[place] * self._now if self._inside[place] else offset

    def _leave(self, place: int) -> None:
        self._offsets[place] = self._credit(place)
        self._inside[place] = False
        self._total -= self._weights[place]
        self._leaders[self._size + place] = -1
        self._replay(place)

    def _join(self, place: int) -> None:
        self._offsets[place] -= self._weights[place] * self._now
        self._inside[place] = True
        self._total += self._weights[place]
        self._leaders[self._size + place] = place
        self._replay(place)

    def _replay(self, place: int) -> None:
        node = (self._size + place) >> 1
        while node:
            self._play(node)
            node >>= 1

    def _catch_up(self, node: int) -> None:
        """Play again, below ``node`` and in it, where somebody may have been overtaken."""
        for side in (2 * node, 2 * node + 1):
            if self._ends[side] <= self._now:
                self._catch_up(side)
        self._play(node)

    def _play(self, node: int) -> None:
        """Find who leads at ``node`` and until which pick that is certain; of equals the left one leads."""
        leaders, ends = self._leaders, self._ends
        side = 2 * node
        left, right = leaders[side], leaders[side + 1]
        end = min(ends[side], ends[side + 1])
        if left < 0 or right < 0:
            leaders[node] = max(left, right)
        else:
            now, offsets, weights = self._now, self._offsets, self._weights
            gain = weights[left] - weights[right]
            lead = offsets[left] - offsets[right] + gain * now
            if lead >= 0:
                leaders[node] = left
                if gain < 0:
                    end = min(end, now + lead // -gain + 1)
            else:
                leaders[node] = right
                if gain > 0:
                    end = min(end, now - lead // gain)
        ends[node] = end
