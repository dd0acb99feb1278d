"""A Site with a `RoundRobinResource`, its clients and its servers, all in memory; time passes when told."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site

from comfyproxy.web.resource import RoundRobinResource

CLIENT = IPv4Address("TCP", "192.0.2.7", 54321)
HERE = IPv4Address("TCP", "192.0.2.1", 8080)


class Reactor(MemoryReactorClock):
    """One whose turns are told apart: what is to happen at once happens in the next, a millisecond later."""

    def callLater(self, when: float, what: Any, *arguments: Any, **options: Any) -> Any:
        return super().callLater(max(when, 0.001), what, *arguments, **options)

    def turn(self, times: int = 2) -> None:
        self.pump([0.001] * times)


class Wire(StringTransport):
    """A connection as the reactor's: full past 64 KiB unread octets, and lost in the turn after it closes."""

    protocol: Any = None

    def __init__(self, reactor: Reactor) -> None:
        super().__init__(hostAddress=HERE, peerAddress=CLIENT, lenient=True)
        self._reactor = reactor
        self.how_closed = ""
        self.half_closed = False
        self.unread = 0

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def write(self, data: bytes) -> None:
        if self.how_closed == "aborted":
            return
        super().write(data)
        self.unread += len(data)
        if self.unread > 65536 and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def be_read(self) -> bytes:
        """All that was written since, as the peer reads it."""
        data = self.value()
        self.clear()
        full, self.unread = self.unread > 65536, 0
        if full and self.producer is not None:
            self.producer.resumeProducing()
        return data

    def loseConnection(self) -> None:
        self.lose("closed", ConnectionDone())

    def abortConnection(self) -> None:
        self.lose("aborted", ConnectionAborted())

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def lose(self, how: str, error: Exception) -> None:
        if not self.how_closed:
            self.how_closed = how
            self._reactor.callLater(0, lambda: self.protocol.connectionLost(Failure(error)))

    def unregisterProducer(self) -> None:
        self.producer = None


class Peer:
    """Who is at the other end of a `Wire`."""

    def __init__(self, reactor: Reactor, protocol: Any, **attributes: Any) -> None:
        self._reactor = reactor
        self.wire = Wire(reactor)
        for name, value in attributes.items():
            setattr(self.wire, name, value)
        self.wire.protocol = protocol
        protocol.makeConnection(self.wire)

    def send(self, *pieces: bytes) -> None:
        """Send octets, and let the reactor turn."""
        for piece in pieces:
            if not self.wire.how_closed:
                self.wire.protocol.dataReceived(piece)
        self._reactor.turn()

    def leave(self, error: Exception | None = None) -> None:
        """Close this end."""
        self.wire.lose("by peer", error or ConnectionDone())
        self._reactor.turn()

    def read(self) -> bytes:
        """What came since the last time."""
        data = self.wire.be_read()
        self._reactor.turn()
        return data

    @property
    def how_closed(self) -> str:
        """How the connection was closed: ``closed``, ``aborted``, ``by peer``; empty while it is open."""
        return self.wire.how_closed

    @property
    def is_read(self) -> bool:
        """Whether what this end sends is read on."""
        return self.wire.producerState == "producing"


class Rig:
    """One site and what goes on around it."""

    def __init__(self, resource: Callable[[Any], Any], site: type[Site] = Site, **options: Any) -> None:
        self.reactor = Reactor()
        self.reactor.advance(1_000_000_000)
        self.resource = resource(self.reactor)
        self.site = site(self.resource, reactor=self.reactor, **options)
        self._accepted = 0
        self._clients: list[Peer] = []

    def client(self, **attributes: Any) -> Peer:
        """A new client's connection; ``attributes`` are the transport's."""
        client = Peer(self.reactor, self.site.buildProtocol(CLIENT), **attributes)
        self._clients.append(client)
        return client

    def end(self) -> None:
        """Let all clients go, and with them the files that hold their requests."""
        for client in self._clients:
            client.leave()

    def ask(self, data: bytes) -> Peer:
        """A new client that has sent ``data``."""
        client = self.client()
        client.send(data)
        return client

    @property
    def dialled(self) -> list[tuple[str, int]]:
        """Where connections were asked for that were neither made nor refused yet."""
        return [attempt[:2] for attempt in self.reactor.tcpClients[self._accepted :]]

    def accept(self) -> Peer:
        """Make the next connection that was asked for, and be the server at its other end."""
        factory = self._next()
        server = Peer(self.reactor, factory.buildProtocol(None))
        self.reactor.turn()
        return server

    def refuse(self) -> None:
        """Refuse the next connection that was asked for."""
        self._next().clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.turn()

    def _next(self) -> Any:
        factory = self.reactor.tcpClients[self._accepted][2]
        self._accepted += 1
        return factory

    @property
    def timers(self) -> list[Any]:
        """What waits in the reactor."""
        return self.reactor.getDelayedCalls()


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    """Makes a rig around what ``resource(reactor)`` returns."""
    rigs = []

    def make(*args: Any, **options: Any) -> Rig:
        rigs.append(Rig(*args, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.end()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A resource for three servers as the root of a stock Site."""
    return make_rig(lambda reactor: RoundRobinResource("http://10.0.0.[1-3]:8188", reactor=reactor))
