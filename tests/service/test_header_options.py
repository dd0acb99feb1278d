"""What a daemon's configuration says of headers and PROXY headers, on real sockets."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from comfyproxy.service.daemon import ProxyService

Start = Callable[..., ProxyService]
HEADER = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"


class Echo(Resource):
    """Answers with the fields that it got."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        lines = request.requestHeaders.getAllRawHeaders()
        return b"\n".join(name.lower() + b": " + value for name, values in lines for value in values)


@pytest_twisted.async_yield_fixture
async def echo() -> AsyncIterator[str]:
    """The URL of a server that answers with the fields that it got."""
    site = Site(Echo())
    site.noisy = False
    port = global_reactor.listenTCP(0, site, interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}"
    await maybeDeferred(port.stopListening)


class Asking(Protocol):
    """Sends octets and gathers what comes until the connection ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._received = b""
        self.received: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._data)

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.received.callback(self._received)


async def ask(service: ProxyService, *lines: bytes, before: bytes = b"", path: bytes = b"/") -> bytes:
    """The answer to a request, its head and its body."""
    fields = b"\r\n".join([b"Host: a", b"Connection: close", *lines, b"", b""])
    endpoint = TCP4ClientEndpoint(global_reactor, "127.0.0.1", service.addresses[0].port)
    asking = await connectProtocol(endpoint, Asking(before + b"GET " + path + b" HTTP/1.1\r\n" + fields))
    return await asking.received


@pytest_twisted.ensureDeferred
async def test_proxies_in_front_say_whose_their_connections_are(start_service: Start, echo: str) -> None:
    service = start_service(
        url=[echo],
        app="http",
        trusted_proxy=["127.0.0.1"],
        accept_proxy_protocol=True,
        forwarding_headers=["forwarded"],
    )
    answer = await ask(service, before=HEADER)
    assert b'\nforwarded: for=203.0.113.7;host="a";proto=http' in answer
    assert b"x-forwarded-for" not in answer
    assert await ask(service) == b""


@pytest_twisted.ensureDeferred
async def test_that_it_is_to_be_so_takes_a_restart(
    start_service: Start, echo: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conf = tmp_path / "tap.conf"
    conf.write_text("trusted_proxy = '127.0.0.1'\n")
    service = start_service(url=[echo], app="http", config=str(conf))
    conf.write_text("trusted_proxy = '127.0.0.1'\naccept_proxy_protocol = true\n")
    service.reload()
    assert "Where or how to listen has changed: that takes a restart." in caplog.text
    assert b"x-forwarded-for: 127.0.0.1" in await ask(service)


@pytest_twisted.ensureDeferred
async def test_rules_and_forwarding_fields_change_with_a_reload(
    start_service: Start, echo: str, tmp_path: Path
) -> None:
    conf = tmp_path / "tap.conf"
    servers = f"url = '{echo}'\napp = 'http'\n"
    conf.write_text(
        servers + "request_header = 'set X-A: {client}'\nresponse_header = 'remove Content-Type'\n"
    )
    service = start_service(config=str(conf))
    answer = await ask(service, b"X-A: 0")
    assert b"\nx-a: 127.0.0.1" in answer
    assert b"Content-Type" not in answer
    conf.write_text(
        servers + "forwarding_headers = 'x-forwarded-port'\n"
        "[[routes]]\nprefix = '/'\npool = 'default'\n"
        "[[routes]]\nprefix = '/b'\npool = 'default'\nrequest_headers = { add = { X-A = ['1', '2'] } }\n"
    )
    service.reload()
    answer = await ask(service, b"X-A: 0")
    assert b"\nx-a: 0" in answer
    assert b"x-forwarded-port: 80" in answer
    assert b"x-forwarded-for" not in answer
    assert (await ask(service, b"X-A: 0", path=b"/b/c")).count(b"\nx-a: ") == 3


class Announced(Protocol):
    """A server that answers one request behind a PROXY header, and keeps its connection."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"\r\n\r\n"):
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


@pytest_twisted.ensureDeferred
async def test_what_was_a_clients_alone_is_closed_when_it_leaves(start_service: Start) -> None:
    server = Announced()
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda address: server  # type: ignore[method-assign,assignment]
    port = global_reactor.listenTCP(0, factory, interface="127.0.0.1")
    service = start_service(
        url=[f"http://127.0.0.1:{port.getHost().port}"], app="http", probe="none", send_proxy_protocol="v1"
    )
    assert (await ask(service)).startswith(b"HTTP/1.1 200 ")
    await server.lost
    assert server.received.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    await maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_a_pool_may_want_to_know_whose_a_connection_is(start_service: Start) -> None:
    got: Deferred[bytes] = Deferred()

    class Listening(Protocol):
        def dataReceived(self, data: bytes) -> None:
            if not got.called:
                got.callback(data)
            self.transport.loseConnection()

    factory = Factory.forProtocol(Listening)
    factory.noisy = False
    port = global_reactor.listenTCP(0, factory, interface="127.0.0.1")
    service = start_service(
        url=[f"tcp://127.0.0.1:{port.getHost().port}"], tcp=True, send_proxy_protocol="v1"
    )
    endpoint = TCP4ClientEndpoint(global_reactor, "127.0.0.1", service.addresses[0].port)
    await connectProtocol(endpoint, Asking(b""))
    source = (await got).split(b" ")
    assert source[:4] == [b"PROXY", b"TCP4", b"127.0.0.1", b"127.0.0.1"]
    assert int(source[5]) == service.addresses[0].port
    await maybeDeferred(port.stopListening)
