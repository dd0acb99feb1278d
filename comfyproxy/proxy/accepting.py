"""Accepting when the process has no file descriptor left: who comes waits in the kernel's queue.

Twisted's own port keeps one descriptor in reserve, to accept and close whoever comes, one log line each. A
moment later there would have been room: a connection that ends gives its descriptor back. So a port of this
kind stops reading for `PAUSE` seconds, as nginx does (``ngx_event_accept.c``), and says so once in a while.

Who waits in the queue when a port closes would be reset: the kernel has told him that he is connected, so he
is let in, and the proxy tells him what it has to tell.
"""

import socket
from collections.abc import Callable
from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from comfyproxy.proxy.gate import Gate

PAUSE = 0.25
"""Seconds until the next try."""

LOG_INTERVAL = 60.0
"""Seconds between two log lines about it."""

EXHAUSTED = (EMFILE, ENFILE, ENOBUFS, ENOMEM)
"""What the system says when it has no descriptor, or no memory for one."""


class ListeningSocket(socket.socket):
    """A socket that accepts nobody, rather than fail, while there is nothing to accept with."""

    def __init__(
        self,
        listening: socket.socket,
        exhausted: Callable[[OSError], None],
        is_shut: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take over ``listening``; ``exhausted`` is told each time that accepting fails.

        As long as ``is_shut`` says so, nobody is accepted.
        """
        super().__init__(listening.family, listening.type, listening.proto, listening.detach())
        self._exhausted = exhausted
        self._is_shut = is_shut

    def accept(self) -> tuple[socket.socket, Any]:
        """As ever, but exhaustion looks like an empty queue."""
        if self._is_shut():
            raise BlockingIOError(EAGAIN, "there is no room")
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self._exhausted(error)
            raise BlockingIOError(EAGAIN, "nothing to accept with") from error


class PatientPort(Port):
    """A port that waits for descriptors, and accepts nobody while its ``gate`` is shut."""

    gate: "Gate | None" = None
    _log = Logger(namespace="comfyproxy.listeners")
    reactor: Any
    _pause: IDelayedCall | None = None
    _told_at = -LOG_INTERVAL

    def createInternetSocket(self) -> socket.socket:
        """As `Port` makes it, but patient."""
        return ListeningSocket(super().createInternetSocket(), self._exhausted, self._is_shut)

    def _is_shut(self) -> bool:
        return self.gate is not None and self.gate.is_shut

    def _exhausted(self, error: OSError) -> None:
        if self.gate is not None:
            self.gate.run_short()
        now = self.reactor.seconds()
        if now - self._told_at >= LOG_INTERVAL:
            self._told_at = now
            self._log.warn(
                "No new connections for now: {error}. Clients wait; raise the limit of file descriptors.",
                error=error.strerror,
            )
        if self._pause is None:
            self.stopReading()
            self._pause = self.reactor.callLater(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        if not self._is_shut():
            self.startReading()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """As `Port` does it; but who is in the queue, and thinks that he is connected, is let in before."""
        if self.connected:
            self.doRead()
            if self._shouldShutdown:
                # At once: whoever comes after the last look is reset.
                self.socket.shutdown(socket.SHUT_RDWR)
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.cancel()
        super().connectionLost(reason)
