"""The daemon on real sockets: every kind of endpoint, and what only the kernel can show."""

import datetime
import os
from base64 import b64encode
from hashlib import sha1
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.listeners import HTTPListener
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.proxy.tcp import TCPListener
from comfyproxy.proxy.transports import with_eager_writes
from comfyproxy.testing import RawClient, ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b64encode(sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


class Loopback:
    """A daemon's proxy between real sockets; ``close`` waits until all of them are gone."""

    def __init__(self, reactor: Any, eager: bool) -> None:
        self.reactor = with_eager_writes(reactor) if eager else reactor
        self._ports: list[Any] = []
        self._proxies: list[Proxy] = []
        self._peers: list[Any] = []

    async def serve(self, backend: ScriptedBackend, interface: str = "127.0.0.1") -> Address:
        """Let ``backend`` listen, and say where."""
        escaped = interface.replace(":", "\\:")
        kind = "tcp6" if ":" in interface else "tcp"
        port = await serverFromString(self.reactor, f"{kind}:0:interface={escaped}").listen(backend)
        self._ports.append(port)
        return Address("http", interface, port.getHost().port)

    async def listen(self, endpoint: str, *addresses: Address, tcp: bool = False) -> Any:
        """Put a proxy for these servers on a server endpoint, and say where that is."""
        balancer = Balancer(Pool("default", addresses))
        timeouts = Timeouts(connect=5, response=20)
        proxy = Proxy(self.reactor, RouteTable([Route(b"/", balancer, timeouts)]), timeouts=timeouts)
        self._proxies.append(proxy)
        factory = TCPListener(proxy) if tcp else HTTPListener(proxy)
        port = await serverFromString(self.reactor, endpoint).listen(factory)
        self._ports.append(port)
        return port.getHost()

    async def connect(self, endpoint: str) -> RawClient:
        """A client that has connected to a client endpoint."""
        client = RawClient()
        await connectProtocol(clientFromString(self.reactor, endpoint), client)
        self._peers.append(client)
        return client

    async def close(self) -> None:
        """End everything."""
        for port in self._ports:
            await port.stopListening()
        for client in self._peers:
            if not client.is_gone:
                client.close()
        for proxy in self._proxies:
            await proxy.close()


@pytest.fixture(params=["stock", "eager"])
def loopback(request, running_reactor):
    """Loopback with Twisted's own transports, then with ours."""
    loopback = Loopback(running_reactor, request.param == "eager")
    yield loopback
    pytest_twisted.blockon(ensureDeferred(loopback.close()))


@pytest_twisted.ensureDeferred
async def test_tcp(loopback):
    backend = ScriptedBackend([Step(send=OK)])
    here = await loopback.listen("tcp:0:interface=127.0.0.1", await loopback.serve(backend))
    client = await loopback.connect(f"tcp:127.0.0.1:{here.port}")
    client.send(GET)
    assert (await client.until(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Forwarded-For: 127.0.0.1\r\n" in backend.requests[0]


@pytest_twisted.ensureDeferred
async def test_ipv6_on_both_sides(loopback):
    backend = ScriptedBackend([Step(send=OK)])
    here = await loopback.listen("tcp6:0:interface=\\:\\:1", await loopback.serve(backend, "::1"))
    client = await loopback.connect(f"tcp:host=\\:\\:1:port={here.port}")
    client.send(GET)
    await client.until(b"ok")
    assert b"X-Forwarded-For: ::1\r\n" in backend.requests[0]


@pytest_twisted.ensureDeferred
async def test_unix(loopback, tmp_path):
    backend = ScriptedBackend([Step(send=OK)])
    path = os.path.relpath(tmp_path / "here")
    await loopback.listen(f"unix:{path}", await loopback.serve(backend))
    client = await loopback.connect(f"unix:{path}")
    client.send(GET)
    await client.until(b"ok")
    assert b"X-Forwarded-For: unknown\r\n" in backend.requests[0]


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_ssl(loopback, tmp_path, monkeypatch):
    backend = ScriptedBackend([Step(send=OK)])
    certificate = self_signed(tmp_path / "here.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    path = os.path.relpath(certificate)
    address = await loopback.serve(backend)
    here = await loopback.listen(f"ssl:0:privateKey={path}:certKey={path}:interface=127.0.0.1", address)
    client = await loopback.connect(f"tls:localhost:{here.port}:bindAddress=127.0.0.1")
    client.send(GET)
    await client.until(b"ok")
    assert b"X-Forwarded-Proto: https\r\n" in backend.requests[0]
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert (await client.until(None)).count(b"200 OK") == 2


@pytest_twisted.ensureDeferred
async def test_large_bodies_both_ways(loopback):
    body = bytes(range(256)) * 20_000 + b"the end"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    backend = ScriptedBackend([Step(after=b"0\r\n\r\n", send=b"HTTP/1.1 200 OK\r\n" + length + body)])
    here = await loopback.listen("tcp:0:interface=127.0.0.1", await loopback.serve(backend))
    client = await loopback.connect(f"tcp:127.0.0.1:{here.port}")
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert (await client.until(b"the end")).endswith(body)
    assert body in backend.requests[0]


@pytest_twisted.ensureDeferred
async def test_who_is_refused_while_sending_gets_to_read_why(loopback):
    backend = ScriptedBackend([Step(send=b"HTTP/1.1 413 Too much\r\nContent-Length: 4\r\n\r\nless")])
    here = await loopback.listen("tcp:0:interface=127.0.0.1", await loopback.serve(backend))
    client = await loopback.connect(f"tcp:127.0.0.1:{here.port}")
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 5_000_000)
    assert (await client.until(None)).endswith(b"less")
    assert client.ended == "closed"


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest_twisted.ensureDeferred
async def test_who_leaves_ends_the_request_at_the_backend(loopback, end):
    backend = ScriptedBackend()
    here = await loopback.listen("tcp:0:interface=127.0.0.1", await loopback.serve(backend))
    client = await loopback.connect(f"tcp:127.0.0.1:{here.port}")
    client.send(GET)
    connection = await backend.connected()
    await connection.until(b"\r\n\r\n")
    getattr(client, end)()
    await connection.until(None)
    assert connection.ended == "reset"


@pytest_twisted.ensureDeferred
async def test_an_answer_that_breaks_off_is_seen_to(loopback):
    backend = ScriptedBackend([Step(send=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", end="close")])
    here = await loopback.listen("tcp:0:interface=127.0.0.1", await loopback.serve(backend))
    client = await loopback.connect(f"tcp:127.0.0.1:{here.port}")
    client.send(GET)
    assert (await client.until(None)).endswith(b"hello")


@pytest_twisted.ensureDeferred
async def test_a_tunnel_passes_octets_and_its_end(loopback):
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
    )
    backend = ScriptedBackend([Step(send=answer), Step(after=b"ping", send=b"pong")])
    here = await loopback.listen("tcp:0:interface=127.0.0.1", await loopback.serve(backend))
    client = await loopback.connect(f"tcp:127.0.0.1:{here.port}")
    client.send(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n\r\nping"
    )
    assert (await client.until(b"pong")).startswith(b"HTTP/1.1 101 ")
    client.reset()
    connection = backend.connections[0]
    await connection.until(None)
    assert connection.ended == "reset"


@pytest_twisted.ensureDeferred
async def test_plain_tcp_with_half_close(loopback):
    backend = ScriptedBackend(stays_open=True)
    address = await loopback.serve(backend)
    tcp_address = Address("tcp", address.host, address.port)
    here = await loopback.listen("tcp:0:interface=127.0.0.1", tcp_address, tcp=True)
    client = await loopback.connect(f"tcp:127.0.0.1:{here.port}")
    client.send(b"question")
    client.finish()
    connection = await backend.connected()
    assert await connection.until(None) == b"question"
    connection.send(b"answer")
    connection.close()
    assert await client.until(None) == b"answer"
    assert client.ended == "closed"


def self_signed(path: Any) -> Any:
    """Write a key and a certificate for ``localhost``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, until)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    return path
