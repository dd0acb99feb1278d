"""Who waits for room: the line before a pool whose servers have as much in flight as they may."""

from collections import OrderedDict
from operator import itemgetter
from typing import Protocol

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.config import DEFAULT_MAX_QUEUE


class Waiter(Protocol):
    """Who waits."""

    def room(self) -> None:
        """There may be room: take it and `Waiting.leave`, or go on waiting."""


class Waiting:
    """Those who wait, first come, first served; at most ``limit`` of them.

    One waits for any server, or for the one that alone will do: that one does not hold up the others. Room is
    offered as soon as there is some, before anybody who comes later can take it.
    """

    __slots__ = ("_last", "_lines", "_places", "limit")

    def __init__(self, limit: int = DEFAULT_MAX_QUEUE) -> None:
        self.limit = limit
        self._last = 0
        self._places: dict[Waiter, Backend | None] = {}
        self._lines: dict[Backend | None, OrderedDict[Waiter, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def join(self, waiter: Waiter, backend: Backend | None = None) -> bool:
        """Wait for room on ``backend``, or on any; ``False`` if too many do so already.

        Who waits for the same keeps its place, who waits for something else gives it up.
        """
        if waiter in self._places:
            if self._places[waiter] is backend:
                return True
            self.leave(waiter)
        elif len(self._places) >= self.limit:
            return False
        self._last += 1
        self._places[waiter] = backend
        self._lines.setdefault(backend, OrderedDict())[waiter] = self._last
        return True

    def leave(self, waiter: Waiter) -> None:
        """Wait no more."""
        backend = self._places.pop(waiter)
        line = self._lines[backend]
        del line[waiter]
        if not line:
            del self._lines[backend]

    def offer(self, backend: Backend) -> None:
        """``backend`` has room: let those have it who wait for it, or for any, as long as there is some."""
        lines = (backend, None) if backend.usable else (backend,)
        turn, last = 0, self._last
        while self._places and not backend.is_full:
            upcoming = [found for line in lines if (found := self._next(line, turn)) is not None]
            turn, waiter = min(upcoming, key=itemgetter(0), default=(last + 1, None))
            if waiter is None or turn > last:
                return
            waiter.room()

    def _next(self, backend: Backend | None, turn: int) -> tuple[int, Waiter] | None:
        """The first of those who wait for ``backend`` whose turn is later than ``turn``."""
        for waiter, number in self._lines.get(backend, {}).items():
            if number > turn:
                return number, waiter
        return None

    def look_again(self) -> None:
        """Servers came, went or may take more: let everybody see what that means for them, in turn."""
        turns = [(number, waiter) for line in self._lines.values() for waiter, number in line.items()]
        for _, waiter in sorted(turns, key=itemgetter(0)):
            if waiter in self._places:
                waiter.room()
