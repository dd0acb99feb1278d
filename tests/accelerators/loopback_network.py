"""A memory network whose connections are real ones on loopback, read and written by a lean reactor.

Time still passes when it is told to, and a test still lets everything happen that can happen. What only a
network in memory can show, where octets are at each moment, can't be asked here.
"""

# ruff: noqa: N802 -- most of these names are those of Twisted's reactors.

from contextlib import suppress
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import ClientFactory, Factory

from comfyproxy.proxy.reactor import LeanReactor
from comfyproxy.proxy.transports import EagerClient, EagerConnector, EagerPort, EagerServer
from comfyproxy.testing import MemoryNetwork
from comfyproxy.testing.network import MemoryConnector

HERE = "127.0.0.1"

SETTLING = 0.003
"""Seconds without an event after which the network is taken to be at rest: a busy kernel may deliver late."""


class _Server(EagerServer):
    """An accepted connection that comes from where its client says."""

    def getPeer(self) -> Any:
        peer = super().getPeer()
        return self.reactor.sources.get(peer.port, peer)


class _Port(EagerPort):
    transport = _Server


class _Counting:
    """An epoll object that counts its events."""

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self.events = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def poll(self, timeout: float, most: int) -> Any:
        events = self._poller.poll(timeout, most)
        self.events += len(events)
        return events


class LoopbackNetwork(MemoryNetwork):
    """The addresses of a memory network, on loopback; `removeAll` closes what listens, too."""

    def __init__(self, **ignored: Any) -> None:
        super().__init__()
        self.sources: dict[int, IPv4Address] = {}
        self._epoll = LeanReactor()
        self._epoll._poller = self._counting = _Counting(self._epoll._poller)
        self._advancing = False
        self._listening: list[_Port] = []

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> Any:
        """Listen on a port of loopback's, and be found as ``interface`` and ``port``."""
        listening = _Port(0, factory, backlog, HERE, self)
        listening.startListening()
        self._listening.append(listening)
        self.ports[interface or HERE, port] = listening  # type: ignore[assignment]
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float | None = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Any:
        """Connect to what listens there; what does not listen refuses, and who is silent stays so."""
        there = self.ports.get((host, port))
        if there is None or host in self.silent:
            connector: Any = MemoryConnector(self, host, port, factory, timeout, None)
            connector.connect()
            return connector
        connector = EagerConnector(HERE, there.getHost().port, factory, timeout, (HERE, 0), self)
        connector.connect()
        assert isinstance(connector.transport, EagerClient)
        if bindAddress is not None:
            number = connector.transport.socket.getsockname()[1]
            self.sources[number] = IPv4Address("TCP", bindAddress[0], number)
        return connector

    def addReader(self, reader: Any) -> None:
        self._epoll.addReader(reader)

    def addWriter(self, writer: Any) -> None:
        self._epoll.addWriter(writer)

    def removeReader(self, reader: Any) -> None:
        self._epoll.removeReader(reader)

    def removeWriter(self, writer: Any) -> None:
        self._epoll.removeWriter(writer)

    def getReaders(self) -> list[Any]:
        return [one for one in self._epoll.getReaders() if one not in self._epoll._internalReaders]

    def getWriters(self) -> list[Any]:
        return self._epoll.getWriters()

    def removeAll(self) -> list[Any]:
        for port in list(self.ports.values()):
            with suppress(AttributeError):
                port.stopListening()
        self.run()
        connections = [
            one for one in {*self.getReaders(), *self.getWriters()} if not isinstance(one, EagerPort)
        ]
        for one in connections:
            self.removeReader(one)
            self.removeWriter(one)
        return connections

    def close(self) -> None:
        """Give back its own descriptors, and those of ports that nobody has closed."""
        for listening in self._listening:
            listening.stopListening()
        self.run()
        for waker in self._epoll._internalReaders:
            waker.connectionLost(None)
        self._counting.close()

    def advance(self, amount: float) -> None:
        self._advancing = True
        super().advance(amount)
        self._advancing = False

    def _turn(self) -> bool:
        before = self._counting.events
        self._epoll.doPoll(0)
        is_due = any(call.getTime() <= self.seconds() for call in self.calls)
        if self._counting.events == before and not is_due and not self._advancing:
            self._epoll.doPoll(SETTLING)
        return self._counting.events > before
