"""A whole proxy between raw clients and scripted backends, all on loopback, with real sockets."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock, deferLater

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.balancing.routing import Router
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy import splice, uploads, upstream
from comfyproxy.proxy.accesslog import FORMATS
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.listeners import HTTPListener
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.proxy.transports import with_eager_writes
from comfyproxy.testing import BackendConnection, RawClient, ScriptedBackend

HERE = "127.0.0.1"
MIB = 1024 * 1024
MOST_TURNS = 100_000
"""Turns of the reactor in which something that is to happen must have happened."""


class Client(RawClient):
    """A raw client that can wait for a number of octets."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._counts: list[tuple[int, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.count += len(data)
        super().dataReceived(data)

    def until_count(self, count: int) -> "Deferred[None]":
        """Fires once so many octets have come and not been taken, or at the end."""
        waiting: Deferred[None] = Deferred()
        self._counts.append((count, waiting))
        self._look()
        return waiting

    def _look(self) -> None:
        super()._look()
        for entry in list(self._counts):
            if self.ended or self.count >= entry[0]:
                self._counts.remove(entry)
                entry[1].callback(None)

    async def answer(self, length: int) -> tuple[bytes, bytes]:
        """Take the head of the next answer and its body of ``length`` octets, as far as they come."""
        await self.until(b"\r\n\r\n")
        head = self.received.partition(b"\r\n\r\n")[0]
        end = len(head) + 4 + length
        await self.until_count(end)
        data, rest = self.received[:end], self.received[end:]
        self._pieces, self.count = [rest], len(rest)
        return head, data[len(head) + 4 :]


async def connect(reactor: Any, port: int) -> Client:
    """A client that has connected to a port on loopback."""
    client = Client()
    made: Deferred[None] = Deferred()
    client.connectionMade = lambda: made.callback(None)  # type: ignore[method-assign]
    factory: ClientFactory = ClientFactory()
    factory.noisy = False
    factory.protocol = lambda: client  # type: ignore[assignment]
    reactor.connectTCP(HERE, port, factory)
    await made
    return client


async def until(reactor: Any, condition: Callable[[], Any]) -> None:
    """Let ``reactor`` turn until ``condition`` holds."""
    for _ in range(MOST_TURNS):
        if condition():
            return
        await deferLater(reactor, 0)
    raise AssertionError("it did not come about")


async def turns(reactor: Any, count: int) -> None:
    """Let ``reactor`` turn so many times."""
    for _ in range(count):
        await deferLater(reactor, 0)


class Loopback:
    """A proxy with one pool on loopback.

    Its time passes when ``clock`` is told, its splices are counted in ``spliced``; without ``accelerated``
    it runs on stock transports and copies.
    """

    def __init__(
        self,
        reactor: Any,
        *backends: ScriptedBackend,
        accelerated: bool = True,
        router: Router | None = None,
        timeouts: Timeouts | None = None,
        log: str = "none",
    ) -> None:
        self.reactor = reactor
        self.backends = list(backends or (ScriptedBackend(),))
        self.clock = Clock()
        self.logged = b""
        self._clients: list[Client] = []
        self._ports = [reactor.listenTCP(0, backend, interface=HERE) for backend in self.backends]
        self._pool = Pool("default", [Address("http", HERE, port.getHost().port) for port in self._ports])
        timeouts = timeouts or Timeouts()
        route = Route(b"/", Balancer(self._pool, router=router), timeouts)
        proxied = with_eager_writes(reactor) if accelerated else reactor
        self.proxy = Proxy(
            proxied,
            RouteTable([route]),
            timeouts=timeouts,
            log=FORMATS[log](reactor, self._write),
            splices=accelerated,
        )
        self.proxy.deadlines = Deadlines(self.clock)
        listening = proxied.listenTCP(0, HTTPListener(self.proxy), interface=HERE)
        self._ports.append(listening)
        self._port = listening.getHost().port

    @property
    def backend(self) -> ScriptedBackend:
        """The first backend."""
        return self.backends[0]

    @property
    def leases(self) -> int:
        """Leases that are held."""
        return sum(backend.leases for backend in self._pool.backends)

    async def client(self) -> Client:
        """A client that has connected."""
        client = await connect(self.reactor, self._port)
        self._clients.append(client)
        return client

    async def ask(self, request: bytes, client: Client | None = None) -> tuple[Client, BackendConnection]:
        """Send ``request``; both ends, once its head is at the first backend."""
        client = client or await self.client()
        client.send(request)
        connection: BackendConnection = await self.backend.connected()
        await connection.until(b"\r\n\r\n")
        return client, connection

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the reactor turn until ``condition`` holds."""
        await until(self.reactor, condition)

    async def turns(self, count: int) -> None:
        """Let the reactor turn so many times."""
        await turns(self.reactor, count)

    def advance(self, seconds: float) -> None:
        """Let the proxy's deadlines come nearer."""
        self.clock.pump([0.25] * int(seconds * 4))

    async def close(self) -> None:
        """End everything."""
        for client in self._clients:
            if not client.is_gone:
                client.reset()
        await self.proxy.close()
        for backend in self.backends:
            for connection in backend.open_connections:
                connection.reset()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        await self.until(lambda: all(client.is_gone for client in self._clients))
        await self.until(lambda: not any(backend.open_connections for backend in self.backends))

    def _write(self, lines: bytes) -> None:
        self.logged += lines


def open_descriptors() -> set[str]:
    """The sockets and pipes that are open, one entry a descriptor."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")
    return {one for one in found if "socket:" in one or "pipe:" in one}


def close_spare_pipes() -> None:
    """Keep no pipes for the next transfer."""
    while splice._spare:
        splice._close(splice._spare.pop())


async def proxies(running_reactor: Any) -> AsyncIterator[Callable[..., Loopback]]:
    """Makes proxies on loopback; at the end nothing may be left of them: no lease, no descriptor."""
    close_spare_pipes()
    before = open_descriptors()
    made: list[Loopback] = []

    def make(*backends: ScriptedBackend, **settings: Any) -> Loopback:
        made.append(Loopback(running_reactor, *backends, **settings))
        return made[-1]

    yield make
    for loopback in made:
        await loopback.close()
        assert loopback.leases == 0
    close_spare_pipes()
    left = open_descriptors() - before
    assert not left, left


class Spliced:
    """The splices that there were: ``count`` of them, of which those in ``active`` still go on."""

    def __init__(self, monkeypatch: Any) -> None:
        self.made: list[Any] = []
        self.octets = 0
        made = self.made
        spliced = self

        class Noted(splice.Splice):
            def __init__(self, source: Any, sink: Any, octets: int, moved: Any, ended: Any) -> None:
                def noted(count: int) -> None:
                    spliced.octets += count
                    moved(count)

                super().__init__(source, sink, octets, noted, ended)
                made.append(self)

        for module in (upstream, uploads):
            monkeypatch.setattr(module, "Splice", Noted)

    @property
    def active(self) -> list[Any]:
        """Those that still go on."""
        return [one for one in self.made if one._active]
