"""A least rate for peers: who moves something now and then, but hardly anything, is as good as gone.

A timeout between two pieces is kept up for ever by one octet at a time, and holds a connection, and often a
backend, all that while (Slowloris and its kin). A `Pace` looks at what has moved a few times in a window, so
it costs nothing per piece.
"""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.relay import Transport
from comfyproxy.proxy.transports import unsent

if TYPE_CHECKING:
    from comfyproxy.proxy.exchange import Exchange


MOST_LOOKS = 16
"""Looks in one window, so that one that begins badly in its middle is not noticed much later."""

SHORTEST = 2.0
"""Seconds between two looks at least."""

SOON = 0.001
"""Seconds until a look that should have been made already."""


class Pace:
    """Calls ``too_slow`` when in ``window`` seconds less than ``rate`` octets a second have moved.

    ``moved`` is asked for the octets that have moved since some fixed moment, ``waiting`` for those that
    could have: who has taken all that waited when a window began was fast enough. `pause` while it is not
    the peer that is waited for.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        rate: int,
        window: float,
        moved: Callable[[], int],
        too_slow: Callable[[], None],
        waiting: Callable[[], float] = lambda: inf,
    ) -> None:
        self._deadlines = deadlines
        self._least = rate * window
        self._looks = min(MOST_LOOKS, max(1, int(window / SHORTEST)))
        self._interval = window / self._looks
        self._moved = moved
        self._too_slow = too_slow
        self._waiting = waiting
        self._goals: deque[float] = deque()
        self._next = 0.0
        self.deadline = self.slot = inf

    def start(self) -> None:
        """Begin with a window."""
        self._goals.clear()
        self._next = self._deadlines.seconds()
        self._look()

    def pause(self) -> None:
        """Look away until the next `start`."""
        self._deadlines.clear(self)

    def stop(self) -> None:
        """Look away for good."""
        self._deadlines.forget(self)

    def _look(self) -> None:
        """Note what has to have moved in a window from now on."""
        self._goals.append(self._moved() + min(self._least, self._waiting()))
        # Deadlines pass late; without this the delays of all looks would add up.
        self._next += self._interval
        self._deadlines.set(self, max(self._next - self._deadlines.seconds(), SOON))

    def deadline_passed(self) -> None:
        """See whether what had to move in the window that is over has moved."""
        if len(self._goals) == self._looks and self._moved() < self._goals.popleft():
            self._too_slow()
        else:
            self._look()


def watch_reading(exchange: "Exchange", transport: Transport, too_slow: Callable[[], None]) -> Pace | None:
    """Watch how the client behind ``transport`` takes the answer of ``exchange``; None if it may be slow."""
    assert exchange.route is not None
    rate, window = exchange.min_rate, exchange.route.timeouts.idle
    if not rate or not window:
        return None
    pace = Pace(
        exchange.proxy.deadlines,
        rate,
        window,
        lambda: exchange.sent - unsent(transport),
        too_slow,
        lambda: unsent(transport),
    )
    pace.start()
    return pace
