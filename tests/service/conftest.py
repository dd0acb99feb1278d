"""Services that listen on loopback, servers behind them, and one client."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from comfyproxy.service.daemon import ProxyService
from comfyproxy.service.sources import Sources


class Named(Resource):
    """Answers every GET with its name and the path."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render_GET(self, request: Any) -> bytes:
        return f"{self._name} {request.uri.decode()}".encode()


class Servers:
    """HTTP servers on loopback that say who they are."""

    def __init__(self) -> None:
        self._ports: list[Any] = []

    def start(self, name: str) -> str:
        """The URL of a new server that answers with ``name``."""
        site = Site(Named(name))
        site.noisy = False
        port = global_reactor.listenTCP(0, site, interface="127.0.0.1")
        self._ports.append(port)
        return f"http://127.0.0.1:{port.getHost().port}"

    async def stop(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)


@pytest_twisted.async_yield_fixture
async def servers() -> AsyncIterator[Servers]:
    started = Servers()
    yield started
    await started.stop()


@pytest_twisted.async_yield_fixture
async def start_service(tmp_path: Path) -> AsyncIterator[Callable[..., ProxyService]]:
    """Make a service from options (by their keys) and start it on a free port."""
    services: list[ProxyService] = []

    def start(**options: Any) -> ProxyService:
        options = {"listen": ["tcp:0:interface=127.0.0.1"], "access_log": "none"} | options
        service = ProxyService(global_reactor, Sources(options, {}, str(tmp_path)))
        services.append(service)
        service.privilegedStartService()
        service.startService()
        return service

    yield start
    for service in services:
        await service.stopService()


class Asking(Protocol):
    """Sends one request and gathers what comes until the connection ends."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._received = b""
        self.body: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(f"GET {self._path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.body.callback(self._received.partition(b"\r\n\r\n")[2])


@pytest.fixture
def get() -> Callable[..., "Deferred[bytes]"]:
    """GET a path of a service; fires with the body."""

    async def fetch(service: ProxyService, path: str) -> bytes:
        endpoint = TCP4ClientEndpoint(global_reactor, "127.0.0.1", service.addresses[0].port)
        return await (await connectProtocol(endpoint, Asking(path))).body

    return lambda service, path="/": Deferred.fromCoroutine(fetch(service, path))
