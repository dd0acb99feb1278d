"""What goes to one peer of a WebSocket at the pace at which it takes it, and what waits meanwhile."""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from comfyproxy.proxy.relay import Transport

SLICE = 64 * 1024
"""Octets handed to a transport at once: so much is lost from sight, the rest shows when the peer takes it."""

OVERHEAD = 256
"""Octets that a waiting message counts for beside its payload: about what Python needs to keep one."""

MessageKey = Callable[[bytes, bool], Hashable | None]
"""Says under which key a newer message replaces an older one that still waits; ``None`` for never."""


@implementer(IPushProducer)
class Outflow:
    """Writes to ``transport`` in slices, each when the one before is out of our hands.

    A transport that was given a large message whole would copy it, and say nothing until all of it is out;
    by slices it is seen that a slow peer is alive. ``changed`` is called with ``True`` when the peer is
    behind, so that what follows would pile up here, and with ``False`` when everything is written.
    ``has_moved`` is set whenever the peer has taken octets that it was behind with.
    """

    def __init__(self, transport: Transport, changed: Callable[[bool], None]) -> None:
        self.is_blocked = False
        self.has_moved = False
        self._transport = transport
        self._changed = changed
        self._queue: deque[bytes | memoryview] = deque()
        self._is_paused = False
        self._last: Callable[[], Any] | None = None
        transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Send ``data`` after what waits."""
        if not self.is_blocked and len(data) <= SLICE:
            self._transport.write(data)
            return
        self._queue.append(data)
        if not self.is_blocked:
            self._send()

    def finish(self, last: Callable[[], Any]) -> None:
        """Do ``last`` once everything is written; the transport has no producer any more then."""
        self._last = last
        self._update()

    def pauseProducing(self) -> None:
        self._is_paused = True
        self._update()

    def resumeProducing(self) -> None:
        self._is_paused = False
        self.has_moved = True
        self._send()

    def stopProducing(self) -> None:
        """The transport is lost."""
        self._queue.clear()

    def _send(self) -> None:
        queue = self._queue
        while queue and not self._is_paused:
            data = queue.popleft()
            if len(data) > SLICE:
                view = memoryview(data)
                data = view[:SLICE]
                queue.appendleft(view[SLICE:])
            self._transport.write(bytes(data))
        self._update()

    def _update(self) -> None:
        blocked = self._is_paused or bool(self._queue)
        if blocked != self.is_blocked:
            self.is_blocked = blocked
            self._changed(blocked)
        if self._last is not None and not self.is_blocked:
            last, self._last = self._last, None
            self._transport.unregisterProducer()
            last()


class Backlog:
    """Messages that wait for a peer, in order; of those with one ``key`` only the newest.

    It keeps up to ``limit`` octets, `OVERHEAD` for each message included.
    """

    def __init__(self, key: MessageKey | None, limit: int) -> None:
        self.size = 0
        self._key = key
        self._limit = limit
        self._waiting: dict[Hashable, tuple[bytes, bool]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, payload: bytes, is_binary: bool, key: Hashable | None = None) -> bool:
        """Let a message wait behind the others; ``False`` if that is more than may wait.

        Its ``key`` is given, or found by the one that this was made with.
        """
        if key is None and self._key is not None:
            key = self._key(payload, is_binary)
        if key is None:
            key = object()
        elif (old := self._waiting.pop(key, None)) is not None:
            self.size -= len(old[0]) + OVERHEAD
        self._waiting[key] = (payload, is_binary)
        self.size += len(payload) + OVERHEAD
        return self.size <= self._limit

    def take(self) -> tuple[bytes, bool]:
        """The message that has waited longest; there must be one."""
        message = self._waiting.pop(next(iter(self._waiting)))
        self.size -= len(message[0]) + OVERHEAD
        return message

    def clear(self) -> None:
        """Let nothing wait."""
        self._waiting.clear()
        self.size = 0
