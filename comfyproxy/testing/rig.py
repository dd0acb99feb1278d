"""A proxy between raw clients and scripted backends, all on one memory network."""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import ensureDeferred

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.balancing.routing import Router
from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.accesslog import FORMATS
from comfyproxy.proxy.listeners import HTTPListener
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.testing.network import MemoryConnection, MemoryNetwork
from comfyproxy.testing.peers import RawClient, ScriptedBackend, Step

HERE = "127.0.0.1"
PORT = 8080

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
"""A short answer."""


def daemon(network: MemoryNetwork, balancer: Balancer, **settings: Any) -> tuple[Proxy, Any]:
    """The daemon's front: a proxy, and the factory that accepts its clients."""
    proxy = proxy_for(network, balancer, **settings)
    return proxy, HTTPListener(proxy)


def proxy_for(
    network: MemoryNetwork, balancer: Balancer, *, timeouts: Timeouts, comfyui: bool, **settings: Any
) -> Proxy:
    """A proxy whose only route leads to ``balancer``; ``settings`` are those of `Proxy`."""
    routes = RouteTable([Route(b"/", balancer, timeouts, comfyui=comfyui)])
    return Proxy(network, routes, timeouts=timeouts, **settings)


class Rig:
    """One pool, ``default``, of ``backends`` at 10.0.0.1:8188, 10.0.0.2:8188 and so on, behind a proxy.

    ``None`` in place of a backend is an address that refuses. Without any there is one backend that answers
    `OK` to every head. ``front`` makes a proxy and the factory that accepts its clients. ``logged`` is what
    the access log of format ``log`` has written. `close` ends everything and says what was left behind.
    """

    def __init__(
        self,
        *backends: ScriptedBackend | None,
        front: Callable[..., tuple[Proxy, Any]] = daemon,
        addresses: Iterable[Address] = (),
        router: Router | None = None,
        comfyui: bool = False,
        keep_host: bool = True,
        verify: bool = True,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        trusted: tuple[str, ...] = (),
        debug: bool = False,
        log: str = "none",
        connection: type[MemoryConnection] = MemoryConnection,
    ) -> None:
        self.network = MemoryNetwork(connection=connection)
        self.backends = list(backends or (ScriptedBackend([Step(send=OK)]),))
        self.clients: list[RawClient] = []
        self.logged = b""
        given = tuple(addresses) or [
            Address("http", f"10.0.0.{number}", 8188) for number in range(1, len(self.backends) + 1)
        ]
        for address, backend in zip(given, self.backends, strict=False):
            if backend is not None:
                self.network.listenTCP(address.port, backend, interface=address.host)
        self.pool = Pool("default", given, verify=verify)
        self.balancer = Balancer(self.pool, router=router, keep_host=keep_host)
        self.proxy, self.accepting = front(
            self.network,
            self.balancer,
            comfyui=comfyui,
            timeouts=timeouts or Timeouts(),
            limits=limits or Limits(),
            trusted=trusted,
            debug=debug,
            log=FORMATS[log](self.network, self._write),
        )
        self._port = self.network.listenTCP(PORT, self.accepting, interface=HERE)
        self.proxy.admission.gate.add(self._port)

    @property
    def backend(self) -> ScriptedBackend:
        """The first backend."""
        first = self.backends[0]
        assert first is not None
        return first

    def client(self, source: str = "192.0.2.1") -> RawClient:
        """A client that has connected from ``source``."""
        client = self.network.connect(RawClient(), HERE, PORT, source)
        self.clients.append(client)
        return client

    def ask(self, request: bytes, piece: int = 0, client: RawClient | None = None) -> RawClient:
        """Send ``request`` from ``client`` or a new one and run; returns the client."""
        client = client or self.client()
        client.send(request, piece)
        self.network.run()
        return client

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass, in steps that timers set meanwhile can keep up with."""
        end = self.network.seconds() + seconds
        while self.network.seconds() < end:
            self.network.advance(min(step, end - self.network.seconds()))

    @property
    def leases(self) -> int:
        """Leases that are held."""
        return sum(backend.leases for backend in (*self.pool.backends, *self.pool.removed))

    @property
    def held(self) -> int:
        """Octets that the proxy has read and not yet sent on; what it adds itself counts against it.

        What lies in kernels, on either side, is not the proxy's.
        """
        peers = [*self.clients, *(one for backend in self.backends if backend for one in backend.connections)]
        lines = [peer.transport.line for peer in peers]
        read = sum(line.outgoing.carried - len(line.outgoing.data) for line in lines)
        return read - sum(line.incoming.carried for line in lines)

    def close(self) -> list[str]:
        """End everything; returns what the proxy left behind, one sentence each."""
        for client in self.clients:
            if not client.is_gone:
                client.close()
        self.network.run()
        left = self._left()
        self._port.stopListening()
        ensureDeferred(self.proxy.close())
        self.network.run()
        left += [
            f"a connection to backend {number} was left open"
            for number, backend in enumerate(self.backends, 1)
            for connection in (backend.connections if backend is not None else ())
            if not connection.ended
        ]
        for one in self.network.removeAll():
            one.abortConnection()
        self.network.run()
        left += [f"a timer was left: {call}" for call in self.network.getDelayedCalls()]
        return left

    def _left(self) -> list[str]:
        left = []
        if self.leases:
            left.append(f"{self.leases} leases are held")
        if self.proxy.connections:
            left.append(f"{len(self.proxy.connections)} connections of clients are left")
        return left

    def _write(self, lines: bytes) -> None:
        self.logged += lines
