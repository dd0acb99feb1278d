"""The resource on real sockets, with autobahn at both ends of its WebSockets, in the clear and under TLS."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from ipaddress import ip_address
from typing import Any

import pytest
import pytest_twisted
from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509, PKey
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, ResponseDone
from twisted.web.iweb import IPolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from comfyproxy.web.resource import RoundRobinResource
from comfyproxy.web.streaming import StreamingSite

# Twisted hands pyOpenSSL objects that pyOpenSSL wants to be cryptography's.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

UNTIMED = {"openHandshakeTimeout": 0, "closeHandshakeTimeout": 0}


class Backend(Resource):
    """Answers with the body it was sent, and its name."""

    isLeaf = True

    def __init__(self, name: bytes) -> None:
        super().__init__()
        self._name = name

    def render(self, request: Any) -> bytes:
        request.setHeader(b"x-name", self._name)
        return bytes(request.content.read())


class Echo(WebSocketServerProtocol):  # type: ignore[misc]
    """Sends back what it gets; takes the subprotocol ``chat``; says goodbye with 3001 when asked to."""

    def onConnect(self, request: Any) -> str | None:
        return "chat" if "chat" in request.protocols else None

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if payload == b"goodbye":
            self.sendClose(3001, "as you wish")
        else:
            self.sendMessage(payload, isBinary)


class Client(WebSocketClientProtocol):  # type: ignore[misc]
    """Resolves what it waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[str | None] = Deferred()
        self.closed: Deferred[tuple[int, str]] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._answer: Deferred[bytes] = Deferred()

    def onOpen(self) -> None:
        self.opened.callback(self.websocket_protocol_in_use)

    def ask(self, payload: bytes, is_binary: bool = False) -> "Deferred[bytes]":
        self._answer = Deferred()
        self.sendMessage(payload, is_binary)
        return self._answer

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._answer.callback(payload)

    def onClose(self, *ignored: object) -> None:
        self.closed.callback((self.remoteCloseCode, self.remoteCloseReason))

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.gone.callback(None)


@dataclass
class Identity:
    """A certificate and its key."""

    certificate: X509
    key: PKey

    def options(self) -> CertificateOptions:
        """The server's side of TLS."""
        return CertificateOptions(privateKey=self.key, certificate=self.certificate)


@pytest.fixture(scope="module")
def certificate() -> Identity:
    """A certificate for 127.0.0.1, good for an hour, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Identity(X509.from_cryptography(made), PKey.from_cryptography_key(key))


class Loopback:
    """A site before two backends on loopback."""

    def __init__(self) -> None:
        self.ports: list[Any] = []

    def listen(self, factory: Any, certificate: Identity | None = None) -> int:
        factory.noisy = False
        if certificate is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, certificate.options(), interface="127.0.0.1")
        self.ports.append(port)
        number: int = port.getHost().port
        return number

    def serve(self, site: type[Site], *backends: Any, certificate: Identity | None = None) -> int:
        """Put ``backends`` behind a resource on ``site``; returns where that listens."""
        urls = [f"http://127.0.0.1:{self.listen(backend)}" for backend in backends]
        self.resource = RoundRobinResource(urls, reactor=reactor)
        return self.listen(site(self.resource), certificate)

    async def stop(self) -> None:
        await self.resource.stop()
        for port in self.ports:
            await port.stopListening()


@pytest_twisted.async_yield_fixture
async def loopback() -> AsyncIterator[Loopback]:
    loopback = Loopback()
    yield loopback
    await loopback.stop()


@implementer(IPolicyForHTTPS)
class Trusting:
    """Trusts one certificate."""

    def __init__(self, certificate: Identity) -> None:
        self._trusted = Certificate(certificate.certificate)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return optionsForClientTLS("127.0.0.1", trustRoot=self._trusted)


class Body(Protocol):
    """Gathers the body of an answer; twisted.web's `readBody` warns of empty ones."""

    def __init__(self) -> None:
        self.complete: Deferred[bytes] = Deferred()
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        self._data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone):
            self.complete.callback(self._data)
        else:
            self.complete.errback(reason)


async def fetch(agent: Agent, url: str, body: bytes | None = None) -> tuple[bytes, bytes]:
    """The name of the backend that answered, and its answer."""
    producer = None if body is None else FileBodyProducer(BytesIO(body))
    response = await agent.request(b"GET" if body is None else b"POST", url.encode(), bodyProducer=producer)
    gathered = Body()
    response.deliverBody(gathered)
    return response.headers.getRawHeaders(b"x-name")[0], await gathered.complete


@pytest.mark.parametrize("site", [Site, StreamingSite])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest_twisted.ensureDeferred
async def test_requests_take_turns_and_large_bodies_pass_both_ways(
    loopback: Loopback, site: type[Site], secure: bool, certificate: Identity
) -> None:
    backends = Site(Backend(b"one")), Site(Backend(b"two"))
    port = loopback.serve(site, *backends, certificate=certificate if secure else None)
    agent = Agent(reactor, Trusting(certificate))
    url = f"{'https' if secure else 'http'}://127.0.0.1:{port}/a?b"
    assert await fetch(agent, url) == (b"one", b"")
    large = bytes(range(256)) * 20_000
    assert await fetch(agent, url, large) == (b"two", large)
    assert await fetch(agent, url, b"small") == (b"one", b"small")


@pytest.fixture
def connect(loopback: Loopback, certificate: Identity) -> Callable[[str], Client]:
    """Connects a WebSocket client, plain or secure, to an echo server behind the resource."""

    def connect(scheme: str) -> Client:
        backend = WebSocketServerFactory(reactor=reactor)
        backend.protocol = Echo
        backend.setProtocolOptions(echoCloseCodeReason=True, **UNTIMED)
        port = loopback.serve(Site, backend, certificate=certificate if scheme == "wss" else None)
        client = Client()
        factory = WebSocketClientFactory(
            f"{scheme}://127.0.0.1:{port}/ws?a=b", protocols=["other", "chat"], reactor=reactor
        )
        factory.setProtocolOptions(serverConnectionDropTimeout=0, **UNTIMED)
        factory.noisy = False
        factory.protocol = lambda: client
        if scheme == "wss":
            creator = Trusting(certificate).creatorForNetloc(b"127.0.0.1", port)
            reactor.connectSSL("127.0.0.1", port, factory, creator)
        else:
            reactor.connectTCP("127.0.0.1", port, factory)
        return client

    return connect


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest_twisted.ensureDeferred
async def test_websockets_pass_through_a_site(connect: Callable[[str], Client], scheme: str) -> None:
    client = connect(scheme)
    assert await client.opened == "chat"
    assert await client.ask(b"hello") == b"hello"
    large = bytes(range(256)) * 20_000
    assert await client.ask(large, is_binary=True) == large
    client.sendMessage(b"goodbye")
    assert await client.closed == (3001, "as you wish")
    await client.gone


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest_twisted.ensureDeferred
async def test_the_client_s_goodbye_reaches_the_server(connect: Callable[[str], Client], scheme: str) -> None:
    client = connect(scheme)
    await client.opened
    client.sendClose(3002, "that's all")
    assert await client.closed == (3002, "that's all")
    await client.gone


@pytest_twisted.ensureDeferred
async def test_stopping_ends_a_websocket(loopback: Loopback, connect: Callable[[str], Client]) -> None:
    client = connect("ws")
    await client.opened
    await loopback.resource.stop()
    assert (await client.closed)[0] == 1001
    await client.gone
