"""Eager writes: octets go to the socket when they are written, not one turn of the reactor later.

Design note. Twisted's `tcp.Connection.write` keeps what it is given and asks the reactor to say when the
socket can take it. For a proxy, whose writes are nearly always small and whose sockets are nearly always
ready, that is four system calls where one would do (``epoll_ctl``, ``epoll_wait``, ``send``,
``epoll_ctl``) and a turn of the reactor on every message in each direction. Here `write` tries ``send``
at once if nothing waits before it. What the socket does not take, and every error, goes the stock way,
which knows about back-pressure, half-close and lost connections; a write never closes anything by itself.

Twisted offers both places this needs: `tcp.Port.transport` names the class of accepted connections, and a
`tcp.Connector` makes its own client. No part of Twisted is replaced, so it works on every reactor built on
`PosixReactorBase` and is simply not used on others.

Rejected: writing through a patched `tcp.Connection` (touches the whole process, also what embeds us), and
corking small writes until the end of the turn (saves a call only where an answer is written in pieces,
which `Front.begin` avoids already).
"""

import sys
from errno import EWOULDBLOCK
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConnector, IListeningPort
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.tcp import Client, Connection, Connector, Server
from twisted.protocols.tls import TLSMemoryBIOFactory

from comfyproxy.proxy.accepting import PatientPort

try:
    import fcntl
    import termios
except ImportError:  # pragma: no cover -- Windows
    _TELLS = False
else:
    _TELLS = True


def with_eager_writes(reactor: Any) -> Any:
    """``reactor`` with TCP connections that write eagerly, or ``reactor`` itself where that can't be had."""
    return EagerReactor(reactor) if isinstance(reactor, PosixReactorBase) else reactor


def unsent(transport: Any) -> int:
    """Octets written to ``transport`` that its peer has not confirmed, as far as can be told.

    Linux knows what waits in its own buffers, of which there may be megabytes; elsewhere only what waits in
    ours is counted.
    """
    # What TLS makes of the octets is in the connection below it.
    connection = getattr(transport, "transport", None) or transport
    waiting = len(connection.dataBuffer) - connection.offset + connection._tempDataLen
    if not _TELLS:  # pragma: no cover -- Windows
        return int(waiting)
    try:
        queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return int(waiting)
    return int(waiting + int.from_bytes(queued, sys.byteorder))


class EagerReactor:
    """A reactor whose TCP ports and connections are those of this module; all else is the reactor's own."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.seconds = reactor.seconds
        self.callLater = reactor.callLater

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """As `IReactorTCP.listenTCP`."""
        listening = EagerPort(port, factory, backlog, interface, self._reactor)
        listening.startListening()
        return listening

    def listenSSL(
        self, port: int, factory: Factory, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """As `IReactorSSL.listenSSL`; what is written eagerly is what TLS made of it."""
        secured = TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor)
        return self.listenTCP(port, secured, backlog, interface)

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: Any = 30, bindAddress: Any = None
    ) -> IConnector:
        """As `IReactorTCP.connectTCP`."""
        connector = EagerConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector


class EagerWrites(Connection):
    """Sends at once what can be sent at once, and hands on what was received without a call between."""

    _is_pulled = False

    @property
    def is_flushed(self) -> bool:
        """Whether everything that was written has gone to the socket."""
        return not self._tempDataBuffer and not self.dataBuffer

    # Twisted's own mixin for aborting declares it as an attribute.
    def doRead(self) -> ConnectionLost | ConnectionDone | None:  # type: ignore[override]
        """As `IReadDescriptor.doRead`."""
        try:
            data = self.socket.recv(self.bufferSize)
        except OSError as error:
            return None if error.errno == EWOULDBLOCK else CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        """As `ITransport.write`."""
        if (
            self._tempDataBuffer
            or self.dataBuffer
            or not self.connected
            or self._writeDisconnected
            or self._aborting
            or self._is_pulled
            or self.TLS
        ):
            super().write(data)
            return
        try:
            sent = self.socket.send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            super().write(data[sent:])

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As `IConsumer.registerProducer`; one that is pulled is asked for more when a buffer was emptied, so
        there has to be one."""
        self._is_pulled = not streaming
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """As `IConsumer.unregisterProducer`."""
        self._is_pulled = False
        super().unregisterProducer()


class EagerServer(EagerWrites, Server):
    """An accepted connection."""


class EagerClient(EagerWrites, Client):
    """A connection that we make."""


class EagerPort(PatientPort):
    """A port whose connections are `EagerServer`."""

    transport = EagerServer


class EagerConnector(Connector):
    """A connector whose connection is an `EagerClient`."""

    def _makeTransport(self) -> EagerClient:
        return EagerClient(self.host, self.port, self.bindAddress, self, self.reactor)
