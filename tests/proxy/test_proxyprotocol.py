"""PROXY headers on connections: whom they make the client, who has to send them, and what goes on behind."""

import datetime
import tomllib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from OpenSSL.SSL import Connection
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.http.proxyprotocol import V1, V2, End, ProxyHeaderReader, make_header, own_header
from comfyproxy.proxy.proxyprotocol import Announced, Greeted, ProxiedFactory, ProxiedPorts, greeting
from comfyproxy.proxy.tcp import TCPListener
from comfyproxy.testing import RawClient, Rig, ScriptedBackend, Step
from comfyproxy.testing.rig import HERE, OK, PORT, daemon, proxy_for

# Twisted's CertificateOptions still take the objects that pyOpenSSL would rather not.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

VECTORS = Path(__file__).parent.parent / "vectors" / "proxy-protocol"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEADER = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
PROXY = "192.0.2.1"
STRANGER = "192.0.3.1"


def corpus(folder: str) -> list[Any]:
    tables = tomllib.loads((VECTORS / folder / "expected.toml").read_text())
    return [
        pytest.param((VECTORS / folder / f"{name}.bin").read_bytes(), expected, id=name)
        for name, expected in tables.items()
    ]


def proxied(network: Any, balancer: Any, **settings: Any) -> tuple[Any, Any]:
    """The daemon's front, where a trusted proxy has to send a header."""
    proxy, accepting = daemon(network, balancer, **settings)
    return proxy, ProxiedFactory(proxy, accepting)


@pytest.fixture
def make(make_rig):
    """Makes rigs with that front; clients from 192.0.2.0/24 are trusted."""

    def make(*backends: Any, **settings: Any) -> Rig:
        return make_rig(*backends, **{"front": proxied, "trusted": ("192.0.2.0/24",)} | settings)

    return make


def told(rig: Rig, name: bytes) -> bytes:
    """The value of one field that the backend got."""
    (line,) = [line for line in rig.backend.requests[-1].split(b"\r\n") if line.startswith(name + b": ")]
    return line.partition(b": ")[2]


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(("raw", "expected"), corpus("valid"))
def test_a_header_says_whose_connection_it_is(make, raw, expected, piece):
    rig = make()
    if len(raw) > 1000 and piece:
        raw, piece = raw[:16] + raw[16:], 500
    client = rig.ask(raw + GET, piece, rig.client(PROXY))
    assert client.received.startswith(b"HTTP/1.1 200 ")
    assert told(rig, b"X-Real-IP") == expected.get("source", [PROXY])[0].encode()
    assert told(rig, b"X-Forwarded-Proto") == (b"https" if expected.get("secure") else b"http")


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(("raw", "expected"), corpus("invalid"))
def test_what_is_no_header_ends_the_connection(make, raw, expected, piece):
    rig = make()
    client = rig.ask(raw + GET, piece, rig.client(PROXY))
    assert (client.received, client.ended) == (b"", "reset")
    assert rig.backend.requests == []
    assert not rig.proxy.connections


def test_a_trusted_proxy_that_sends_none_is_refused_and_the_log_says_so_sparingly(make, caplog):
    rig = make()
    for _ in range(3):
        assert rig.ask(GET, client=rig.client(PROXY)).ended == "reset"
    assert caplog.text.count("192.0.2.1: The PROXY protocol's header is malformed: it begins otherwise.") == 1
    assert rig.proxy.admission.refused["proxy_protocol"] == 3


def test_others_need_no_header_and_are_not_believed_one(make):
    rig = make()
    assert rig.ask(GET, client=rig.client(STRANGER)).received.startswith(b"HTTP/1.1 200 ")
    assert told(rig, b"X-Real-IP") == STRANGER.encode()
    client = rig.ask(HEADER + GET, client=rig.client(STRANGER))
    assert client.received.startswith(b"HTTP/1.1 400 ")
    assert len(rig.backend.requests) == 1


def test_the_client_in_the_header_is_trusted_or_not_by_its_own_address(make):
    rig = make()
    spoofed = GET[:-2] + b"X-Forwarded-For: 9.9.9.9\r\n\r\n"
    rig.ask(HEADER + spoofed, client=rig.client(PROXY))
    assert told(rig, b"X-Forwarded-For") == b"203.0.113.7"
    header = make_header(V2, End("192.0.2.99", 1), End(HERE, PORT))
    rig.ask(header + spoofed, client=rig.client(PROXY))
    assert told(rig, b"X-Forwarded-For") == b"9.9.9.9, 192.0.2.99"


def test_requests_behind_the_header_are_as_any_others(make):
    rig = make()
    client = rig.ask(HEADER + GET * 3, client=rig.client(PROXY))
    assert client.received.count(b"HTTP/1.1 200 ") == 3
    rig.ask(GET, client=client)
    assert client.received.count(b"HTTP/1.1 200 ") == 4


def test_the_log_has_the_client(make):
    rig = make(log="combined")
    rig.ask(HEADER + GET, client=rig.client(PROXY))
    rig.proxy.log.flush()
    assert rig.logged.startswith(b"203.0.113.7 - - ")


def test_a_header_has_as_much_time_as_a_head(make, caplog):
    rig = make(timeouts=Timeouts(head=30))
    client = rig.ask(HEADER[:20], client=rig.client(PROXY))
    rig.advance(29)
    rig.ask(HEADER[20:21], client=client)
    assert client.ended == ""
    rig.advance(2)
    assert client.ended == "reset"
    assert "header did not come in time" in caplog.text


def test_a_connection_that_closes_before_its_header_is_nothing_to_speak_of(make, caplog):
    rig = make()
    client = rig.client(PROXY)
    client.finish()
    rig.network.run()
    assert client.is_gone
    assert not rig.proxy.connections
    assert "PROXY" not in caplog.text


def test_a_drain_ends_what_has_sent_no_header(make):
    rig = make()
    client = rig.client(PROXY)
    (connection,) = rig.proxy.connections
    assert isinstance(connection, Announced)
    assert connection.work.value == "idle connection"
    connection.drain()
    rig.network.run()
    assert client.ended == "reset"


def test_a_protocol_that_is_not_built_ends_the_connection(make_rig):
    class Nothing(Factory):
        noisy = False

        def buildProtocol(self, addr: Any) -> None:
            return None

    def front(network: Any, balancer: Any, **settings: Any) -> tuple[Any, Any]:
        proxy, _ = daemon(network, balancer, **settings)
        return proxy, ProxiedFactory(proxy, Nothing())

    rig = make_rig(front=front, trusted=(PROXY,))
    assert rig.ask(HEADER, client=rig.client(PROXY)).ended == "reset"


@pytest.mark.parametrize("version", [V1, V2])
def test_plain_tcp_has_a_header_before_it_on_either_side(make_rig, version):
    def front(network: Any, balancer: Any, **settings: Any) -> tuple[Any, Any]:
        proxy = proxy_for(network, balancer, **settings)
        return proxy, ProxiedFactory(proxy, TCPListener(proxy))

    backend = ScriptedBackend([Step(after=b"question", send=b"answer")])
    rig = make_rig(backend, front=front, trusted=(PROXY,), addresses=[Address("tcp", "10.0.0.1", 5432)])
    for one in rig.pool.backends:
        one.proxy_protocol = version
    client = rig.ask(HEADER + b"quest", client=rig.client(PROXY))
    rig.ask(b"ion", client=client)
    sent = make_header(version, End("203.0.113.7", 4711), End("198.51.100.1", 443))
    assert backend.connections[0].received == sent + b"question"
    assert client.received == b"answer"


def test_the_connections_of_a_client_that_leaves_are_closed(make_rig):
    rig = make_rig(ScriptedBackend([Step(after=GET[:-2], send=OK)]))
    for one in rig.pool.backends:
        one.proxy_protocol = V2
    clients = [rig.ask(GET, client=rig.client(f"192.0.2.{number}")) for number in (7, 8)]
    assert len(rig.backend.open_connections) == 2
    clients[0].close()
    rig.network.run()
    (left,) = rig.backend.open_connections
    header = ProxyHeaderReader().feed(left.received)
    assert header is not None
    assert header.source is not None
    assert header.source.host == "192.0.2.8"


def test_not_more_are_kept_than_so_many_and_those_of_the_latest_clients(make_rig, monkeypatch):
    monkeypatch.setattr("comfyproxy.proxy.connectors.MAX_IDLE", 2)
    rig = make_rig(ScriptedBackend([Step(after=GET[:-2], send=OK)]))
    for one in rig.pool.backends:
        one.proxy_protocol = V1
    clients = [rig.ask(GET, client=rig.client(f"192.0.2.{number}")) for number in (1, 2, 3)]
    assert [connection.is_gone for connection in rig.backend.connections] == [True, False, False]
    rig.ask(GET, client=clients[2])
    rig.ask(GET, client=clients[1])
    assert len(rig.backend.connections) == 3


@pytest.mark.parametrize(
    ("client", "peer", "header"),
    [
        (b"192.0.2.7", IPv4Address("TCP", "192.0.2.7", 4711), "TCP4 192.0.2.7 10.0.0.1 4711 80"),
        (b"192.0.2.7", IPv6Address("TCP", "::ffff:192.0.2.7", 4711), "TCP4 192.0.2.7 10.0.0.1 4711 80"),
        (b"203.0.113.9", IPv4Address("TCP", "192.0.2.7", 4711), "TCP4 203.0.113.9 10.0.0.1 0 80"),
        (
            b"2001:db8::9",
            IPv4Address("TCP", "192.0.2.7", 4711),
            "TCP6 2001:db8::9 ::ffff:a00:1 0 80",
        ),
        (b"unknown", UNIXAddress(b"/run/client"), "UNKNOWN"),
    ],
)
def test_a_greeting_is_on_behalf_of_the_client(client, peer, header):
    host = IPv4Address("TCP", "10.0.0.1", 80)
    assert greeting(V1, client, peer, host) == f"PROXY {header}\r\n".encode()


def test_a_greeting_changes_nothing_for_who_waits_for_the_connection():
    factory = Mock()
    greeted = Greeted(b"hello", factory)
    connector, reason = Mock(), Mock()
    greeted.clientConnectionFailed(connector, reason)
    greeted.clientConnectionLost(connector, reason)
    factory.clientConnectionFailed.assert_called_once_with(connector, reason)
    factory.clientConnectionLost.assert_called_once_with(connector, reason)


def test_a_server_that_cannot_be_had_is_told_as_ever(make_rig):
    rig = make_rig(None, ScriptedBackend([Step(after=GET[:-2], send=OK)]))
    for one in rig.pool.backends:
        one.proxy_protocol = V1
    assert rig.ask(GET).received.startswith(b"HTTP/1.1 200 ")


@implementer(IOpenSSLClientConnectionCreator)
class Believing:
    """A TLS client that believes any server."""

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        return Connection(CertificateOptions(verify=False).getContext(), None)


@pytest.fixture(scope="module")
def certificate() -> CertificateOptions:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key), certificate=crypto.X509.from_cryptography(signed)
    )


def connect_secure(rig: Rig, header: bytes, port: int = PORT) -> RawClient:
    """A client that sends a header and speaks TLS behind it."""
    client = RawClient()
    factory: Any = ClientFactory()
    factory.protocol = lambda: client
    factory.noisy = False
    secured = TLSMemoryBIOFactory(Believing(), True, factory, rig.network)
    rig.network.connectTCP(HERE, port, Greeted(header, secured), timeout=None, bindAddress=(PROXY, 0))
    rig.network.run()
    rig.clients.append(client)
    return client


def test_the_header_comes_before_tls(make_rig, certificate):
    rig = make_rig(trusted=(PROXY,))
    ports = ProxiedPorts(rig.network, rig.proxy)
    port = ports.listenSSL(4433, rig.accepting, certificate, interface=HERE)
    assert rig.ask(GET, client=connect_secure(rig, HEADER, 4433)).received.startswith(b"HTTP/1.1 200 ")
    assert told(rig, b"X-Real-IP") == b"203.0.113.7"
    assert told(rig, b"X-Forwarded-Proto") == b"https"
    port.stopListening()


def test_ports_of_every_kind_take_headers(make_rig):
    rig = make_rig(trusted=(PROXY,))
    adopted = Mock()
    reactor = Mock(wraps=rig.network, adoptStreamPort=adopted)
    ports = ProxiedPorts(reactor, rig.proxy)
    assert ports.seconds() == rig.network.seconds()
    port = ports.listenTCP(8081, rig.accepting, interface=HERE)
    client = rig.network.connect(RawClient(), HERE, 8081, PROXY)
    rig.clients.append(client)
    assert rig.ask(HEADER + GET, client=client).received.startswith(b"HTTP/1.1 200 ")
    port.stopListening()
    assert ports.adoptStreamPort(7, 2, rig.accepting) is adopted.return_value
    (descriptor, family, factory), _ = adopted.call_args
    assert (descriptor, family, type(factory)) == (7, 2, ProxiedFactory)
    assert isinstance(factory.buildProtocol(IPv4Address("TCP", PROXY, 1)), Announced)
    assert not isinstance(factory.buildProtocol(UNIXAddress(b"/run/client")), Announced)


def test_starting_and_stopping_reach_the_factory(rig):
    inner = Mock()
    factory = ProxiedFactory(rig.proxy, inner)
    factory.doStart()
    inner.doStart.assert_called_once_with()
    factory.doStop()
    inner.doStop.assert_called_once_with()


class Below(Protocol):
    """A server's connection: the header, then TLS."""

    def __init__(self, factory: Any, seen: list[bytes]) -> None:
        self._factory = factory
        self._seen = seen
        self._reader = ProxyHeaderReader()

    def dataReceived(self, data: bytes) -> None:
        if self._reader.feed(data) is None:
            return
        self._seen.append(data)
        transport: Any = self.transport
        transport.protocol = secured = self._factory.buildProtocol(None)
        secured.makeConnection(transport)
        secured.dataReceived(self._reader.rest)


def test_a_header_to_a_server_comes_before_tls(make_rig, certificate):
    backend = ScriptedBackend([Step(after=GET[:-2], send=OK)])
    rig = make_rig(backend, addresses=[Address("https", "10.0.0.1", 8443)], verify=False)
    for one in rig.pool.backends:
        one.proxy_protocol = V1
    secured = TLSMemoryBIOFactory(certificate, False, backend, rig.network)
    seen: list[bytes] = []
    below: Any = Factory()
    below.noisy = False
    below.buildProtocol = lambda address: Below(secured, seen)
    rig.network.ports.clear()
    rig.network.listenTCP(8443, below, interface="10.0.0.1")
    rig.network.listenTCP(PORT, rig.accepting, interface=HERE)
    client = rig.client("192.0.2.7")
    rig.ask(GET, client=client)
    rig.ask(GET, client=client)
    assert client.received.count(b"HTTP/1.1 200 ") == 2
    assert len(seen) == 1
    assert seen[0].startswith(b"PROXY TCP4 192.0.2.7 127.0.0.1 ")


def test_a_connection_of_our_own_is_nobodys():
    assert ProxyHeaderReader().feed(own_header(V1)) == ProxyHeaderReader().feed(own_header(V2))
