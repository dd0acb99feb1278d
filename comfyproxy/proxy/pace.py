"""A least rate for peers: who moves something now and then, but hardly anything, is as good as gone.

A timeout between two pieces is kept up for ever by one octet at a time, and holds a connection, and often a
backend, all that while (Slowloris and its kin). A `Pace` looks once in a window at what has moved in it, so
it costs nothing per piece.
"""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.relay import Transport
from comfyproxy.proxy.transports import unsent

if TYPE_CHECKING:
    from comfyproxy.proxy.exchange import Exchange


class Pace:
    """Calls ``too_slow`` when in a window of ``window`` seconds less moved than ``rate`` octets a second.

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
        self._window = window
        self._moved = moved
        self._too_slow = too_slow
        self._waiting = waiting
        self._goal = 0.0
        self.deadline = self.slot = inf

    def start(self) -> None:
        """Begin a window."""
        self._goal = self._moved() + min(self._least, self._waiting())
        self._deadlines.set(self, self._window)

    def pause(self) -> None:
        """Look away until the next `start`."""
        self._deadlines.clear(self)

    def stop(self) -> None:
        """Look away for good."""
        self._deadlines.forget(self)

    def deadline_passed(self) -> None:
        """The window is over: begin the next one, unless this one was too poor."""
        if self._moved() < self._goal:
            self._too_slow()
        else:
            self.start()


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
