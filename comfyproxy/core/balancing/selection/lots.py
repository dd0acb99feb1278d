"""Random draws in proportion to weights, among what changes all the time."""

from collections.abc import Callable, Collection, Sequence

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.policy import units

Random = Callable[[], float]
"""A number from 0 up to but not including 1, as `random.random` gives."""


class Lots:
    """The available backends, drawn in proportion to their weights at O(log n) a draw.

    The weights are in a binary indexed tree (Fenwick, "A new data structure for cumulative frequency tables",
    1994). A backend that is drawn and turns out unavailable is left out until `update` finds it back.
    """

    __slots__ = ("_backends", "_places", "_random", "_shares", "_step", "_total", "_tree")

    def __init__(self, random: Random) -> None:
        self._random = random
        self.use(())

    def use(self, backends: Sequence[Backend]) -> None:
        """Draw from ``backends`` from now on."""
        self._backends = backends
        self._places = {backend: place for place, backend in enumerate(backends)}
        self._shares = [units(backend) if backend.is_available else 0 for backend in backends]
        self._total = sum(self._shares)
        self._tree = tree = [0, *self._shares]
        for node in range(1, len(tree)):
            above = node + (node & -node)
            if above < len(tree):
                tree[above] += tree[node]
        self._step = 1 << len(backends).bit_length() >> 1

    def two(self, tried: Collection[Backend] = ()) -> tuple[Backend | None, Backend | None]:
        """Two different available backends, drawn one after the other, that are not in ``tried``; the second
        is ``None`` if there is one, both if there is none."""
        held = [(place, self._shares[place]) for one in tried if (place := self._places.get(one, -1)) >= 0]
        for place, _ in held:
            self._set(place, 0)
        drawn = self._draw_two()
        for place, share in held:
            self._set(place, share)
        return drawn

    def update(self, backend: Backend) -> None:
        """Give ``backend`` the share that it has now."""
        place = self._places.get(backend, -1)
        if place >= 0:
            self._set(place, units(backend) if backend.is_available else 0)

    def _draw_two(self) -> tuple[Backend | None, Backend | None]:
        while self._total:
            place, start = self._find(int(self._random() * self._total))
            first = self._backends[place]
            if not first.is_available:
                self._set(place, 0)
                continue
            while rest := self._total - self._shares[place]:
                point = int(self._random() * rest)
                other, _ = self._find(point if point < start else point + self._shares[place])
                second = self._backends[other]
                if second.is_available:
                    return first, second
                self._set(other, 0)
                if other < place:
                    start = self._start_of(place)
            return first, None
        return None, None

    def _find(self, point: int) -> tuple[int, int]:
        """Whose share ``point`` lies in when they are laid out in a row, and where that share begins."""
        tree, place, left, step = self._tree, 0, point, self._step
        size = len(tree)
        while step:
            node = place + step
            if node < size and tree[node] <= left:
                left -= tree[node]
                place = node
            step >>= 1
        return place, point - left

    def _start_of(self, place: int) -> int:
        start, node = 0, place
        while node:
            start += self._tree[node]
            node &= node - 1
        return start

    def _set(self, place: int, share: int) -> None:
        gain = share - self._shares[place]
        if gain:
            self._shares[place] = share
            self._total += gain
            node = place + 1
            while node < len(self._tree):
                self._tree[node] += gain
                node += node & -node
