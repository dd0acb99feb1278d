"""How many clients are connected: past a limit, or without descriptors, nobody is accepted for a while.

Who is not accepted waits in the kernel's queue (``listen``), as in HAProxy (``maxconn``) and nginx
(``worker_connections``), and is served when another client goes. A refusal would cost a descriptor, and tell
a client to go that a moment's patience would have helped.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from comfyproxy.proxy.accepting import PatientPort

BREATH = 0.5
"""Seconds without accepting when descriptors have run out (nginx's ``accept_mutex_delay``)."""

TIGHT = 1.0
"""Seconds between two looks for connections that can be spared, as long as the limit is reached."""


class Gate:
    """Opens and shuts ``ports`` together, for at most ``limit`` connections (0: for any number).

    ``make_room`` is called when there are no more places, or no descriptors: it may close what can be spared.
    ``pauses`` counts how often the gate was shut.
    """

    def __init__(self, reactor: Any, make_room: Callable[[], None]) -> None:
        self.limit = 0
        self.count = 0
        self.pauses = 0
        self._reactor = reactor
        self._make_room = make_room
        self._ports: list[Any] = []
        self._is_shut = False
        self._is_short = False
        self._timer: IDelayedCall | None = None

    @property
    def is_shut(self) -> bool:
        """Whether nobody is accepted."""
        return self._is_shut

    @property
    def is_short(self) -> bool:
        """Whether that is for want of descriptors."""
        return self._is_short

    def add(self, port: Any) -> None:
        """Shut ``port``, which listens, when there is no room. One that is not Twisted's cannot be."""
        if hasattr(port, "pauseProducing"):
            self._ports.append(port)
            if isinstance(port, PatientPort):
                port.gate = self

    def entered(self) -> None:
        """There is one more connection."""
        self.count += 1
        if self._is_full and not self._is_shut:
            self._shut(TIGHT)

    def left(self) -> None:
        """There is one less."""
        self.count -= 1
        if self._is_shut and not self._is_short:
            self.look()

    @property
    def _is_full(self) -> bool:
        return 0 < self.limit <= self.count

    def run_short(self) -> None:
        """There are no descriptors: accept nobody for `BREATH` seconds.

        What is given back meanwhile is not for new clients, but for the servers that those need who are here.
        """
        if not self._is_short:
            self._is_short = True
            self._shut(BREATH)

    def look(self) -> None:
        """Open if there is room, shut if there is none."""
        self._is_short = False
        if self._is_full:
            if not self._is_shut:
                self._shut(TIGHT)
        elif self._is_shut:
            self._is_shut = False
            self._stop_timer()
            for port in self._ports:
                port.resumeProducing()

    def stop(self) -> None:
        """Leave no timer, and the ports to themselves."""
        self._ports.clear()
        self._stop_timer()

    def _shut(self, seconds: float) -> None:
        if not self._is_shut:
            self._is_shut = True
            self.pauses += 1
            for port in self._ports:
                port.pauseProducing()
        self._stop_timer()
        self._timer = self._reactor.callLater(seconds, self._time_passed)
        self._make_room()

    def _time_passed(self) -> None:
        self._timer = None
        self.look()
        if self._is_shut:
            self._shut(TIGHT)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
