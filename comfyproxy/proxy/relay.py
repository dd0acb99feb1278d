"""Bytes both ways between two connections, with back-pressure and half-close: tunnels and plain TCP end here.

Each side's transport is the other's producer: when one side's peer reads slowly, its transport asks the other
to stop reading, so at most one buffer of bytes waits in each direction.

ComfyUI's WebSockets are the exception (`Drain`). A ComfyUI process sends its events to all clients from one
loop that waits for each socket in turn (``server.py``, ``publish_loop``), so a socket that nobody reads stops
the events of everybody. Towards such a client, bytes are read on and kept up to a bound, past which the
client is cut off; its page reconnects within a second.
"""

import typing
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.proxy.deadlines import Deadlines

DRAIN_LIMIT = 96 * 1024 * 1024
"""Octets kept for a client that does not read: room for the largest message (64 MiB) that must pass."""


class Transport(typing.Protocol):
    """What the data path asks of a transport; Twisted's TCP and TLS transports have it all."""

    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...
    def loseWriteConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def registerProducer(self, producer: Any, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def setTcpNoDelay(self, enabled: bool) -> None: ...
    def setTcpKeepAlive(self, enabled: bool) -> None: ...
    def getPeer(self) -> Any: ...


@implementer(IHalfCloseableProtocol)
class RelayEnd(Protocol):
    """A connection that can become one side of a `Relay`.

    Subclasses call `RelayEnd.connectionLost` and the two half-close methods when ``relay`` is set.
    """

    transport: Transport  # type: ignore[assignment]
    relay: "Relay | None" = None

    def readConnectionLost(self) -> None:
        if self.relay is not None:
            self.relay.read_ended(self)
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: the other direction goes on until it ends too."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.relay is not None:
            self.relay.lost(self, reason)


class Relay:
    """Joins two established connections until both are gone, then calls ``ended`` once.

    ``to_client`` and ``to_backend`` are octets that go first. After ``idle`` seconds (0: never) without
    an octet both are closed. With ``drain`` the backend is always read (see
    above).
    """

    def __init__(
        self,
        client: RelayEnd,
        backend: RelayEnd,
        ended: Callable[[], None],
        to_client: bytes = b"",
        to_backend: bytes = b"",
        drain: bool = False,
        deadlines: Deadlines | None = None,
        idle: float = 0,
    ) -> None:
        self._client = client
        self._backend = backend
        self._ended: Callable[[], None] | None = ended
        self._read_ends = 0
        client.relay = backend.relay = self
        self._drain = Drain(client) if drain else None
        to_client_writer = self._drain or client.transport
        client.transport.registerProducer(self._drain or backend.transport, True)
        backend.transport.registerProducer(client.transport, True)
        self.deadline = self.slot = inf
        self._idle = idle
        self._deadlines = deadlines
        self._redirect(client, backend.transport.write)
        self._redirect(backend, to_client_writer.write)
        if to_client:
            to_client_writer.write(to_client)
        if to_backend:
            backend.transport.write(to_backend)
        client.transport.resumeProducing()
        backend.transport.resumeProducing()

    def _redirect(self, end: RelayEnd, write: Callable[[bytes], None]) -> None:
        # The transport looks dataReceived up at each read; the bound write of the other side saves a call.
        received = write
        deadlines, idle = self._deadlines, self._idle
        if deadlines is not None and idle:

            def received(data: bytes) -> None:
                deadlines.set(self, idle)
                write(data)

            deadlines.set(self, idle)
        end.dataReceived = received  # type: ignore[method-assign,assignment]

    def deadline_passed(self) -> None:
        """Neither side has sent anything for ``idle`` seconds."""
        self._client.transport.loseConnection()
        self._backend.transport.loseConnection()

    def _other(self, end: RelayEnd) -> RelayEnd:
        return self._backend if end is self._client else self._client

    def _stop_producing_for(self, end: RelayEnd) -> Any:
        """Let ``end``'s transport send what it has and ask for no more; the transport is returned."""
        if self._drain is not None and end is self._client:
            self._drain.resumeProducing()
        end.transport.unregisterProducer()
        return end.transport

    def read_ended(self, end: RelayEnd) -> None:
        """``end``'s peer sends no more; pass that on, and close once both have said so."""
        self._read_ends += 1
        other = self._stop_producing_for(self._other(end))
        # TLS has no half-close, though its transport has the method: that of the socket below it.
        if (
            self._read_ends == 2
            or not hasattr(other, "loseWriteConnection")
            or ISSLTransport.providedBy(other)
        ):
            other.loseConnection()
            end.transport.loseConnection()
        else:
            other.loseWriteConnection()

    def lost(self, end: RelayEnd, reason: Failure) -> None:
        """``end``'s connection is gone; so shall the other be: cleanly after what it still has to
        send, or reset if this one was."""
        ended, self._ended = self._ended, None
        if ended is None:
            return  # The other was lost first; under TLS, Twisted fails when such a one is closed again.
        other = self._stop_producing_for(self._other(end))
        if reason.check(ConnectionDone):
            other.loseConnection()
        else:
            other.abortConnection()
        if self._deadlines is not None:
            self._deadlines.forget(self)
        ended()


@implementer(IPushProducer)
class Drain:
    """Writes to a client that may not keep up, without ever stopping the backend."""

    def __init__(self, client: RelayEnd, limit: int = DRAIN_LIMIT) -> None:
        self._transport = client.transport
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._paused = False

    def write(self, data: bytes) -> None:
        """Send ``data``, or keep it while the client is behind; past the limit the client is cut off."""
        if not self._paused:
            self._transport.write(data)
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self._waiting.clear()
            self._transport.abortConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._transport.write(data)

    def stopProducing(self) -> None:
        self._waiting.clear()
