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
from comfyproxy.proxy.draining import Work

ENDING = 600.0
"""Seconds without an octet that one side has to end, and to take what waits for it, once the other has
ended."""

DRAIN_LIMIT = 96 * 1024 * 1024
"""Octets kept for a client that does not read: room for the largest message (64 MiB) that must pass."""


Write = Callable[[bytes], None]


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
    def getHost(self) -> Any: ...


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
    """Joins two established connections; ``ended`` is called once, when the first of them is gone.

    ``to_client`` and ``to_backend`` are octets that go first. After ``idle`` seconds (0: never) without
    an octet both are closed. When one side has ended, the other has `ENDING` seconds to do so too. With
    ``drain`` the backend is always read (see above).
    """

    def __init__(
        self,
        client: RelayEnd,
        backend: RelayEnd,
        ended: Callable[[], None],
        deadlines: Deadlines,
        idle: float = 0,
        to_client: bytes = b"",
        to_backend: bytes = b"",
        drain: bool = False,
    ) -> None:
        self._client = client
        self._backend = backend
        self._ended: Callable[[], None] | None = ended
        self._ending = False
        self._read_ends = 0
        client.relay = backend.relay = self
        self._drain = Drain(client.transport) if drain else None
        self._to_client: Write = self._toward_client((self._drain or client.transport).write)
        self._to_backend: Write = backend.transport.write
        client.transport.registerProducer(self._drain or backend.transport, True)
        backend.transport.registerProducer(client.transport, True)
        self.deadline = self.slot = inf
        self._deadlines = deadlines
        self._allow(idle)
        if to_client:
            self._to_client(to_client)
        if to_backend:
            self._to_backend(to_backend)
        client.transport.resumeProducing()
        backend.transport.resumeProducing()

    @property
    def is_ending(self) -> bool:
        """Whether one side has said that it is done, or is gone."""
        return self._ending

    @property
    def work(self) -> Work:
        """What it counts as when the proxy is to stop."""
        return Work.TCP

    def goodbye(self) -> None:
        """The proxy stops. There is nothing to say in a protocol that is not known."""

    def _toward_client(self, write: Write) -> Write:
        """What takes the backend's octets; ``write`` is what sends them on."""
        return write

    def _allow(self, seconds: float) -> None:
        """Let it stand for as long as an octet comes every ``seconds``; 0 is for ever."""
        deadlines = self._deadlines
        deadlines.set(self, seconds)

        def timed(write: Write) -> Write:
            def received(data: bytes) -> None:
                deadlines.set(self, seconds)
                write(data)

            # dataReceived is looked up at each read, so the bound write of the other side saves a call.
            return received if seconds else write

        self._client.dataReceived = timed(self._to_backend)  # type: ignore[method-assign,assignment]
        self._backend.dataReceived = timed(self._to_client)  # type: ignore[method-assign,assignment]

    def deadline_passed(self) -> None:
        """Nothing came for too long: close both, and if that takes too long, break them off."""
        for end in (self._client, self._backend):
            if self._ending:
                end.transport.abortConnection()
            else:
                self._stop_producing_for(end).loseConnection()
        self._end()

    def _end(self) -> None:
        """The beginning of the end: from now on what still goes on is limited in time."""
        self._ending = True
        self._allow(ENDING)

    def _other(self, end: RelayEnd) -> RelayEnd:
        return self._backend if end is self._client else self._client

    def _stop_producing_for(self, end: RelayEnd) -> Any:
        """Let ``end``'s transport send what it has and ask for no more; the transport is returned."""
        if self._drain is not None and end is self._client:
            self._drain.flush()
        end.transport.unregisterProducer()
        return end.transport

    def read_ended(self, end: RelayEnd) -> None:
        """``end``'s peer sends no more; pass that on, and close once both have said so."""
        self._read_ends += 1
        self._end()
        other = self._stop_producing_for(self._other(end))
        if self._read_ends == 2:
            other.loseConnection()
            end.transport.loseConnection()
        elif ISSLTransport.providedBy(other) or not hasattr(other, "loseWriteConnection"):
            # TLS has no half-close, though its transport has the method: that of the socket below it. Its
            # close says that no more will come, and what the peer still sends is read until it closes too.
            other.loseConnection()
        else:
            other.loseWriteConnection()

    def lost(self, end: RelayEnd, reason: Failure) -> None:
        """``end``'s connection is gone; so shall the other be: cleanly after what it still has to
        send, or reset if this one was."""
        ended, self._ended = self._ended, None
        if ended is None:
            # The other was lost first; under TLS, Twisted fails when such a one is closed again.
            self._deadlines.forget(self)
            return
        self._end()
        other = self._stop_producing_for(self._other(end))
        if reason.check(ConnectionDone):
            other.loseConnection()
        else:
            other.abortConnection()
        ended()


@implementer(IPushProducer)
class Drain:
    """Writes to a client that may not keep up, without ever stopping the backend."""

    def __init__(self, transport: Transport, limit: int = DRAIN_LIMIT) -> None:
        self._transport = transport
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._cut_off = False

    def write(self, data: bytes) -> None:
        """Send ``data``, or keep it while the client is behind; past the limit the client is cut off."""
        if not self._paused:
            self._transport.write(data)
        elif not self._cut_off:
            self._waiting.append(data)
            self._size += len(data)
            if self._size > self._limit:
                self._cut_off = True
                self._waiting.clear()
                self._transport.abortConnection()

    def flush(self) -> None:
        """Hand over everything, however far behind the client is."""
        waiting, self._waiting, self._size = self._waiting, deque(), 0
        for data in waiting:
            self._transport.write(data)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._waiting and not self._paused:
            data = self._waiting.popleft()
            self._size -= len(data)
            self._transport.write(data)

    def stopProducing(self) -> None:
        self._waiting.clear()
