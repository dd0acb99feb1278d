"""The PROXY protocol on connections: read on those of clients, written on those to servers.

Both stand below TLS and whatever else is spoken, and are gone once the header is through: the transport is
handed to the protocol that it was made for, so nothing is left in the path of its octets.

A header decides who is believed to be asking, so only trusted proxies may send one, and they have to
(sections 2 and 5 of HAProxy's ``doc/proxy-protocol.txt``): from others it is the beginning of a bad request.
"""

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IConnector, IListeningPort
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from comfyproxy.core.http.proxyprotocol import End, ProxyHeader, ProxyHeaderReader, make_header
from comfyproxy.core.http.trust import plain_address
from comfyproxy.errors import ProtocolError
from comfyproxy.proxy.draining import Work

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy


class ProxiedPorts:
    """A reactor on whose ports connections from trusted proxies begin with a header; all else is its own."""

    def __init__(self, reactor: Any, proxy: "Proxy") -> None:
        self._reactor = reactor
        self._proxy = proxy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: Factory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """As `IReactorTCP.listenTCP`."""
        proxied = ProxiedFactory(self._proxy, factory)
        listening: IListeningPort = self._reactor.listenTCP(port, proxied, backlog, interface)
        return listening

    def listenSSL(
        self, port: int, factory: Factory, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """As `IReactorSSL.listenSSL`; the header comes before TLS."""
        secured: Any = TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor)
        return self.listenTCP(port, secured, backlog, interface)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Factory) -> IListeningPort:
        """As `IReactorSocket.adoptStreamPort`, for ports that systemd has opened."""
        proxied = ProxiedFactory(self._proxy, factory)
        listening: IListeningPort = self._reactor.adoptStreamPort(fileDescriptor, addressFamily, proxied)
        return listening


class ProxiedFactory(Factory):
    """Builds what ``factory`` does, for connections from trusted proxies once their header has come."""

    noisy = False

    def __init__(self, proxy: "Proxy", factory: Factory) -> None:
        self._proxy = proxy
        self._factory = factory

    def doStart(self) -> None:
        """As `IProtocolFactory.doStart`."""
        super().doStart()
        self._factory.doStart()

    def doStop(self) -> None:
        """As `IProtocolFactory.doStop`."""
        self._factory.doStop()
        super().doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        host = getattr(addr, "host", None)
        if host is None or not self._proxy.trusted.trusts(plain_address(host).encode()):
            return self._factory.buildProtocol(addr)
        return Announced(self._proxy, self._factory)


class Announced(Protocol):
    """A connection of a trusted proxy until its header has come.

    Then it is the client's: ``getPeer`` and ``getHost`` of its transport say what the header said, and its
    ``came_over_tls`` whether the client spoke TLS with the proxy.
    """

    transport: Any

    def __init__(self, proxy: "Proxy", factory: Factory) -> None:
        self._proxy = proxy
        self._factory = factory
        self._reader = ProxyHeaderReader()
        self.deadline = self.slot = inf

    @property
    def work(self) -> Work:
        """What it is doing."""
        return Work.IDLE

    def connectionMade(self) -> None:
        self._proxy.connections.add(self)
        self._proxy.deadlines.set(self, self._proxy.timeouts.head)

    def dataReceived(self, data: bytes) -> None:
        try:
            header = self._reader.feed(data)
        except ProtocolError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._hand_over(header)

    def _hand_over(self, header: ProxyHeader) -> None:
        self._forget()
        transport = self.transport
        _take(transport, header)
        protocol: Any = self._factory.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.abortConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if self._reader.rest:
            protocol.dataReceived(self._reader.rest)

    def _refuse(self, why: str) -> None:
        peer = plain_address(self.transport.getPeer().host)
        self._proxy.admission.refuse("proxy_protocol", peer, f"{peer}: {why.rstrip('.')}")
        self.transport.abortConnection()

    def deadline_passed(self) -> None:
        self._refuse("The PROXY protocol's header did not come in time.")

    def drain(self) -> None:
        """The proxy stops: nothing has been asked yet."""
        self.transport.abortConnection()

    end = drain

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._forget()

    def _forget(self) -> None:
        self._proxy.connections.discard(self)
        self._proxy.deadlines.forget(self)


def _take(transport: Any, header: ProxyHeader) -> None:
    """Let ``transport`` be the client's connection that ``header`` is about."""
    transport.came_over_tls = header.secure
    if header.source is not None and header.destination is not None:
        source, destination = _address(header.source), _address(header.destination)
        transport.getPeer = lambda: source
        transport.getHost = lambda: destination


def _address(end: End) -> IPv4Address | IPv6Address:
    return (IPv6Address if ":" in end.host else IPv4Address)("TCP", *end)


class Greeted(ClientFactory):
    """Makes connections that begin with ``greeting``, whatever ``factory`` builds goes on with."""

    noisy = False

    def __init__(self, greeting: bytes, factory: Any) -> None:
        self._greeting = greeting
        self._factory = factory

    def buildProtocol(self, addr: IAddress | None) -> "Greeting":
        return Greeting(self._greeting, self._factory.buildProtocol(addr))

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._factory.clientConnectionFailed(connector, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        self._factory.clientConnectionLost(connector, reason)


class Greeting(Protocol):
    """The first moment of a connection: what goes before ``protocol``, which has it from then on."""

    def __init__(self, greeting: bytes, protocol: Any) -> None:
        self._greeting = greeting
        self._protocol = protocol

    def makeConnection(self, transport: Any) -> None:
        """Write it, and leave."""
        transport.protocol = self._protocol
        transport.write(self._greeting)
        self._protocol.makeConnection(transport)


def greeting(version: int, client: bytes, peer: Any, host: Any) -> bytes:
    """The header of a connection to a server on behalf of ``client``.

    Its connection comes from ``peer`` to our ``host``, as Twisted's addresses. If trusted proxies stand
    between, ``client`` is another address than the peer's, of which the port is not known: it is 0 then.
    """
    return make_header(version, _client_end(client.decode(), peer), _end(host))


def _client_end(client: str, peer: Any) -> End | None:
    end = _end(peer)
    return end if end is None or end.host == client else End(client, 0)


def _end(address: Any) -> End | None:
    if isinstance(address, IPv4Address | IPv6Address):
        return End(plain_address(address.host), address.port)
    return None
