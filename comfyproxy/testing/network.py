"""A network in memory: a reactor whose connections lead to its own ports, and whose time is told to pass.

Its connections are Twisted's own (buffers, producers, half-close and all); only the sockets below and the
waiting are replaced. When one end closes with octets unread, or is reset, the other sees what Linux shows.
"""

# ruff: noqa: N802, N803 -- most of these names are those of Twisted's reactors.

from collections.abc import Callable
from errno import EADDRINUSE, EMFILE
from itertools import count
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.base import BaseConnector
from twisted.internet.error import (
    CannotListenError,
    ConnectBindError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IListeningPort,
    IReactorFDSet,
    IReactorTCP,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.testing.sockets import Direction, MemorySocket

WINDOW = 256 * 1024
"""Octets that are under way in one direction at most: what the kernels of both ends keep."""

MAX_TURNS = 300_000
"""Turns of a network that does not come to rest before that is taken to be an error."""

P = TypeVar("P", bound=Protocol)


class MemoryConnection(Connection):
    """Twisted's TCP connection on a `MemorySocket`, which stays known as ``line`` when it is closed."""

    def __init__(
        self,
        socket: MemorySocket,
        protocol: Protocol,
        network: Any,
        host: Any,
        peer: Any,
        connector: Any = None,
    ) -> None:
        super().__init__(socket, protocol, network)  # type: ignore[arg-type]
        self.line = socket
        self._host = host
        self._peer = peer
        self._connector = connector
        self.connected = 1
        self.startReading()

    def getHost(self) -> Any:
        """This end's address."""
        return self._host

    def getPeer(self) -> Any:
        """The other end's address."""
        return self._peer

    def connectionLost(self, reason: Failure) -> None:
        """Tell the connector, as Twisted's clients do."""
        super().connectionLost(reason)
        connector, self._connector = self._connector, None
        if connector is not None:
            connector.connectionLost(reason)


class MemoryConnector(BaseConnector):
    """A connection that is being made in memory."""

    reactor: Any

    def __init__(self, network: Any, host: str, port: int, factory: Any, timeout: Any, source: Any) -> None:
        super().__init__(factory, timeout, network)
        self._destination = _address(host, port)
        self._source = source

    def _makeTransport(self) -> Any:
        self.reactor.callLater(0, self._arrive)
        return self

    def getDestination(self) -> Any:
        """Where it leads."""
        return self._destination

    def failIfNotConnected(self, error: Exception) -> None:
        """As Twisted's clients: give up unless it stands."""
        if self.state != "connected":
            self.connectionFailed(Failure(error))

    def _arrive(self) -> None:
        if self.state != "connecting" or self._destination.host in self.reactor.silent:
            return
        if self.reactor.is_short:
            self.failIfNotConnected(ConnectBindError(EMFILE, "Too many open files"))
            return
        port = self.reactor.ports.get((self._destination.host, self._destination.port))
        if port is None:
            self.failIfNotConnected(ConnectionRefusedError(string="Connection refused"))
        else:
            source = self._source or _address("127.0.0.1", next(self.reactor.numbers))
            self.reactor.join(self, port, source)


@implementer(IListeningPort)
class MemoryPort:
    """A port that listens in memory."""

    def __init__(self, network: "MemoryNetwork", address: Any, factory: Any) -> None:
        self.factory = factory
        self._network = network
        self._address = address
        self._is_paused = False
        self._waiting: list[Callable[[], bool]] = []

    def startListening(self) -> None:
        """Accept connections."""
        key = (self._address.host, self._address.port)
        if key in self._network.ports:
            raise CannotListenError(*key, OSError(EADDRINUSE, "it is in use"))
        self._network.ports[key] = self
        self.factory.doStart()

    def stopListening(self) -> None:
        """Accept no more; those that stand stay."""
        if self._network.ports.pop((self._address.host, self._address.port), None) is self:
            self.factory.doStop()

    def pauseProducing(self) -> None:
        """Let those who connect wait, as in a kernel's queue."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Accept who waits, and who comes."""
        self._is_paused = False
        while self._waiting and not self._is_paused:
            self._waiting.pop(0)()

    def accept(self, accept: Callable[[], bool]) -> bool:
        """Call ``accept`` when connections are accepted; `False` if it refused.

        Who connects does not wait for that, as it is the kernel that it is connected with.
        """
        if self._is_paused:
            self._waiting.append(accept)
            return True
        return accept()

    def getHost(self) -> Any:
        """Where it listens."""
        return self._address


@implementer(IReactorTCP, IReactorFDSet, IHostnameResolver)
class MemoryNetwork(Clock):
    """A reactor whose connections lead to its own ports, and whose time passes when it is told to.

    ``names`` says what each name resolves to. Hosts in ``silent`` never answer: connecting there takes for
    ever. While it ``is_short``, there are no descriptors to connect with. Nothing happens except in `run` and
    `advance`. ``connection`` is the class of its connections.
    """

    _log = Logger(namespace="comfyproxy.testing")

    def __init__(self, window: int = WINDOW, connection: type[MemoryConnection] = MemoryConnection) -> None:
        super().__init__()
        self.window = window
        self.names: dict[str, list[str]] = {}
        self.silent: set[str] = set()
        self.is_short = False
        self.ports: dict[tuple[str, int], MemoryPort] = {}
        self.numbers = count(49_152)
        self.nameResolver = self
        self._connection = connection
        self._readers: dict[Any, None] = {}
        self._writers: dict[Any, None] = {}

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> MemoryPort:
        """As `IReactorTCP.listenTCP`; without an interface it is loopback's."""
        listening = MemoryPort(self, _address(interface or "127.0.0.1", port or next(self.numbers)), factory)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: "ClientFactory[Any]",
        timeout: float | None = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> MemoryConnector:
        """As `IReactorTCP.connectTCP`; ``bindAddress`` is where the other end sees it come from."""
        source = None
        if bindAddress is not None:
            source = _address(bindAddress[0], bindAddress[1] or next(self.numbers))
        connector = MemoryConnector(self, host, port, factory, timeout, source)
        connector.connect()
        return connector

    def connect(self, client: P, host: str, port: int, source: str = "127.0.0.1") -> P:
        """Connect ``client`` to a port from ``source``, and run until that has happened."""
        factory: ClientFactory[Any] = ClientFactory()
        factory.noisy = False
        factory.protocol = lambda: client
        self.connectTCP(host, port, factory, timeout=None, bindAddress=(source, 0))
        self.run()
        return client

    def join(self, connector: MemoryConnector, port: MemoryPort, source: Any) -> None:
        """Let ``port`` accept what ``connector`` brings, now or when it accepts again."""
        there, back = Direction(self.window), Direction(self.window)
        host = port.getHost()

        def accept() -> bool:
            socket = MemorySocket(there, back)
            accepted = port.factory.buildProtocol(source)
            if accepted is None:
                socket.close()
                return False
            accepted.makeConnection(self._connection(socket, accepted, self, host, source))
            return True

        if not port.accept(accept):
            connector.failIfNotConnected(ConnectionRefusedError(string="Connection refused"))
            return
        protocol: Any = connector.buildProtocol(host)
        client = self._connection(MemorySocket(back, there), protocol, self, source, host, connector)
        connector.transport = client  # type: ignore[assignment]
        protocol.makeConnection(client)

    def resolveHostName(
        self,
        receiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """As `IHostnameResolver.resolveHostName`, from ``names``; it takes a turn."""
        resolution = _Resolution(hostName)
        receiver.resolutionBegan(resolution)

        def answer() -> None:
            for host in self.names.get(hostName, ()):
                receiver.addressResolved(_address(host, portNumber))
            receiver.resolutionComplete()

        self.callLater(0, answer)
        return resolution

    def addReader(self, reader: Any) -> None:
        """As `IReactorFDSet.addReader`."""
        self._readers[reader] = None

    def addWriter(self, writer: Any) -> None:
        """As `IReactorFDSet.addWriter`."""
        self._writers[writer] = None

    def removeReader(self, reader: Any) -> None:
        """As `IReactorFDSet.removeReader`."""
        self._readers.pop(reader, None)

    def removeWriter(self, writer: Any) -> None:
        """As `IReactorFDSet.removeWriter`."""
        self._writers.pop(writer, None)

    def removeAll(self) -> list[Any]:
        """As `IReactorFDSet.removeAll`."""
        everything = [*self._readers, *(one for one in self._writers if one not in self._readers)]
        self._readers.clear()
        self._writers.clear()
        return everything

    def getReaders(self) -> list[Any]:
        """As `IReactorFDSet.getReaders`."""
        return list(self._readers)

    def getWriters(self) -> list[Any]:
        """As `IReactorFDSet.getWriters`."""
        return list(self._writers)

    def advance(self, amount: float) -> None:
        """Let ``amount`` seconds pass, then run."""
        self.rightNow += amount
        self.run()

    def run(self) -> None:
        """Let everything happen that can happen now, until the network is at rest."""
        for _ in range(MAX_TURNS):
            moved = self._turn()
            if not self._call() and not moved:
                return
        raise AssertionError(f"the network is not at rest after {MAX_TURNS} turns")

    def _call(self) -> bool:
        """Make the calls that are due; what they put off by no time at all is for the next turn."""
        due = [call for call in self.calls if call.getTime() <= self.seconds()]
        for call in due:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        return bool(due)

    def _turn(self) -> bool:
        moved = False
        for reader in list(self._readers):
            if reader in self._readers and reader.socket.is_readable:
                moved = True
                self._act(reader, reader.doRead, is_read=True)
        for writer in list(self._writers):
            if writer in self._writers and writer.socket.is_writable:
                moved = True
                self._act(writer, writer.doWrite, is_read=False)
        return moved

    def _act(self, connection: Connection, act: Callable[[], Any], is_read: bool) -> None:
        """Read or write, and end what is over as Twisted's reactors do."""
        try:
            why = act()
        except Exception as error:
            self._log.failure("A reader or writer failed; its connection is closed")
            why = error
        if why is None:
            return
        self.removeReader(connection)
        if is_read and isinstance(why, ConnectionDone):
            connection.readConnectionLost(Failure(ConnectionDone()))
        else:
            self.removeWriter(connection)
            lost = ConnectionLost() if isinstance(why, ConnectionLost) else why
            connection.connectionLost(Failure(lost))


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """It is over in a turn anyhow."""


def _address(host: str, port: int) -> IPv4Address | IPv6Address:
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)
