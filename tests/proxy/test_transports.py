"""Eager writes: sent at once where that can be, and else all that Twisted's own transports promise."""

import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from errno import ECONNRESET, EWOULDBLOCK
from io import BytesIO
from random import Random
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL.crypto import X509, PKey
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import ClientFactory
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactor
from twisted.protocols.basic import FileSender

from comfyproxy.proxy.transports import (
    EagerClient,
    EagerReactor,
    EagerServer,
    EagerWrites,
    unsent,
    with_eager_writes,
)
from comfyproxy.testing import BackendConnection, MemoryNetwork, RawClient, ScriptedBackend
from tests.accelerators.loopback import HERE, Client, connect
from tests.accelerators.memory_kernel import EagerMemoryConnection

BUFFER = EagerWrites.bufferSize


class Producer:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Pair:
    """Two ends of a connection in memory, ``near`` with eager writes; ``window`` octets fit in between."""

    def __init__(self, window: int = 1000) -> None:
        self.network = MemoryNetwork(window=window, connection=EagerMemoryConnection)
        backend = ScriptedBackend()
        self.network.listenTCP(80, backend, interface="10.0.0.1")
        self.near = self.network.connect(RawClient(), "10.0.0.1", 80)
        self.far = backend.connections[0]
        self.transport = self.near.transport

    @property
    def sent(self) -> bytes:
        """What has gone to the socket and was not read yet."""
        return bytes(self.transport.line.outgoing.data)


class TestInMemory:
    def test_what_is_written_has_gone_when_write_returns(self) -> None:
        pair = Pair()
        pair.transport.write(b"hello")
        assert (pair.sent, pair.transport.is_flushed) == (b"hello", True)
        assert pair.transport not in pair.network.getWriters()

    def test_what_the_socket_does_not_take_follows_in_order(self) -> None:
        pair = Pair(window=10)
        pair.transport.write(b"0123456789abc")
        assert (pair.sent, pair.transport.is_flushed) == (b"0123456789", False)
        pair.transport.write(b"def")
        pair.far.transport.socket.recv(5)
        # There is room now, but what waits goes first.
        pair.transport.write(b"ghi")
        assert pair.sent == b"56789"
        pair.network.run()
        assert (pair.far.received, pair.transport.is_flushed) == (b"56789abcdefghi", True)

    def test_a_socket_that_takes_nothing_makes_it_wait(self) -> None:
        pair = Pair(window=3)
        pair.transport.write(b"abc")
        pair.transport.write(b"def")
        assert (pair.sent, pair.transport.is_flushed) == (b"abc", False)
        pair.network.run()
        assert pair.far.received == b"abcdef"

    @given(st.lists(st.tuples(st.binary(max_size=30), st.booleans(), st.booleans())), st.integers(1, 40))
    def test_order_is_kept_whatever_is_written_and_taken_when(
        self, writes: list[tuple[bytes, bool, bool]], window: int
    ) -> None:
        pair = Pair(window=window)
        for data, in_sequence, runs in writes:
            if in_sequence:
                pair.transport.writeSequence([data[:5], data[5:]])
            else:
                pair.transport.write(data)
            if runs:
                pair.network.run()
        pair.network.run()
        assert pair.far.received == b"".join(data for data, *_ in writes)

    def test_a_producer_is_paused_when_much_waits_and_resumed_when_nothing_does(self) -> None:
        pair = Pair(window=10)
        producer = Producer()
        pair.transport.registerProducer(producer, True)
        pair.transport.write(b"x" * (10 + BUFFER))
        assert producer.told == []
        pair.transport.write(b"x")
        assert producer.told == ["pause"]
        pair.network.run()
        assert producer.told == ["pause", "resume"]
        pair.transport.write(b"x" * 10)
        assert producer.told == ["pause", "resume"]
        pair.transport.unregisterProducer()

    def test_a_producer_that_is_pulled_is_asked_for_all_it_has(self) -> None:
        pair = Pair(window=1_000_000)
        data = Random(1).randbytes(300_000)
        done = FileSender().beginFileTransfer(BytesIO(data), pair.transport)
        pair.network.run()
        assert pair.far.received == data
        assert done.called
        pair.transport.write(b"behind it")
        assert pair.sent == b"behind it"

    def test_a_peer_that_is_gone_is_found_the_stock_way(self) -> None:
        pair = Pair()
        # The reset is there, and nobody has looked.
        pair.transport.line.incoming.broken = True
        pair.transport.write(b"hello")
        assert (pair.near.is_gone, pair.transport.is_flushed) == (False, False)
        pair.network.run()
        assert (pair.near.is_gone, pair.near.ended) == (True, "reset")

    def test_closing_lets_go_what_was_written(self) -> None:
        pair = Pair(window=3)
        pair.transport.write(b"hello")
        pair.transport.loseConnection()
        pair.network.run()
        assert (pair.far.received, pair.far.ended) == (b"hello", "closed")

    @pytest.mark.parametrize("window", [3, 1000])
    def test_half_closing_comes_after_what_was_written_and_nothing_follows(self, window: int) -> None:
        pair = Pair(window=window)
        pair.far.stays_open = True
        pair.transport.write(b"hello")
        pair.transport.loseWriteConnection()
        pair.network.run()
        assert (pair.far.received, pair.far.ended, pair.near.is_gone) == (b"hello", "closed", False)
        pair.transport.write(b"too late")
        pair.far.send(b"answer")
        pair.network.run()
        assert (pair.far.received, pair.near.received) == (b"hello", b"answer")

    def test_nothing_is_sent_after_aborting(self) -> None:
        pair = Pair()
        pair.transport.abortConnection()
        pair.transport.write(b"hello")
        assert pair.sent == b""
        pair.network.run()
        assert (pair.far.received, pair.far.ended) == (b"", "reset")

    def test_writing_to_a_connection_that_is_lost_does_nothing(self) -> None:
        pair = Pair()
        pair.far.close()
        pair.network.run()
        assert pair.near.is_gone
        pair.transport.write(b"hello")
        pair.network.run()
        assert pair.transport.is_flushed

    def test_nothing_is_nothing(self) -> None:
        pair = Pair()
        pair.transport.write(b"")
        assert (pair.transport.is_flushed, pair.network.getWriters()) == (True, [])

    def test_text_is_refused(self) -> None:
        pair = Pair()
        with pytest.raises(TypeError):
            pair.transport.write("hello")


@pytest.mark.parametrize(
    ("received", "result"),
    [
        (b"hello", None),
        (b"", CONNECTION_DONE),
        (BlockingIOError(EWOULDBLOCK, "not now"), None),
        (ConnectionResetError(ECONNRESET, "reset"), CONNECTION_LOST),
    ],
)
def test_what_is_received_is_handed_on_and_its_end_is_told(
    received: bytes | OSError, result: Exception | None
) -> None:
    transport = EagerServer.__new__(EagerServer)
    transport.socket = Mock(recv=Mock(side_effect=[received]))
    transport.protocol = Mock()
    assert transport.doRead() is result
    handed_on = [call.args[0] for call in transport.protocol.dataReceived.call_args_list]
    assert handed_on == ([received] if received == b"hello" else [])


class Wires:
    """Connected pairs on loopback, both ends made by an eager reactor."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = with_eager_writes(reactor)
        self.ports: list[Any] = []

    def listen(self, backend: ScriptedBackend) -> int:
        port = self.reactor.listenTCP(0, backend, interface=HERE)
        self.ports.append(port)
        number: int = port.getHost().port
        return number

    async def join(self, port: int, backend: ScriptedBackend) -> tuple[Client, BackendConnection]:
        return await connect(self.reactor, port), await backend.connected()

    async def pair(self) -> tuple[Client, BackendConnection]:
        backend = ScriptedBackend()
        return await self.join(self.listen(backend), backend)


@pytest_twisted.async_yield_fixture
async def wires(running_reactor: Any) -> AsyncIterator[Wires]:
    wires = Wires(running_reactor)
    yield wires
    for port in wires.ports:
        await maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_accepted_connections_and_our_own_write_eagerly(wires: Wires) -> None:
    client, server = await wires.pair()
    assert isinstance(client.transport, EagerClient)
    assert isinstance(server.transport, EagerServer)
    data = Random(2).randbytes(5_000_000)
    client.send(data[:2_500_000])
    client.send(data[2_500_000:])
    server.send(data)
    await client.until_count(len(data))
    assert client.received == data
    client.finish()
    assert await server.until(None) == data
    await client.until(None)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_refused_is_said_to_the_factory(wires: Wires) -> None:
    failed: Deferred[Any] = Deferred()

    class Factory(ClientFactory):
        noisy = False

        def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
            failed.callback(reason.value)

    port = wires.listen(ScriptedBackend())
    await wires.ports.pop().stopListening()
    wires.reactor.connectTCP(HERE, port, Factory())
    assert isinstance(await failed, ConnectionRefusedError)


@pytest_twisted.ensureDeferred
async def test_connecting_may_begin_at_an_address_of_choice(wires: Wires) -> None:
    backend = ScriptedBackend()
    port = wires.listen(backend)
    factory: ClientFactory = ClientFactory.forProtocol(Client)
    factory.noisy = False
    wires.reactor.connectTCP(HERE, port, factory, bindAddress=("127.0.0.2", 0))
    server = await backend.connected()
    assert server.transport.getPeer().host == "127.0.0.2"
    server.reset()


@pytest_twisted.ensureDeferred
async def test_endpoints_listen_on_it(wires: Wires) -> None:
    backend = ScriptedBackend()
    port = await serverFromString(wires.reactor, "tcp:0:interface=127.0.0.1").listen(backend)
    wires.ports.append(port)
    client, server = await wires.join(port.getHost().port, backend)
    assert isinstance(server.transport, EagerServer)
    client.reset()
    await server.until(None)


@pytest.fixture(scope="module")
def certificate() -> CertificateOptions:
    """A server's side of TLS for the name ``here``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("here")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateOptions(
        privateKey=PKey.from_cryptography_key(key), certificate=X509.from_cryptography(made)
    )


def trusting(certificate: CertificateOptions) -> Any:
    return optionsForClientTLS("here", trustRoot=Certificate(certificate.certificate))


TLS = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@TLS
@pytest_twisted.ensureDeferred
async def test_under_tls_what_goes_out_eagerly_is_what_tls_made_of_it(
    wires: Wires, certificate: CertificateOptions
) -> None:
    backend = ScriptedBackend()
    port = wires.reactor.listenSSL(0, backend, certificate, interface=HERE)
    wires.ports.append(port)
    client = Client()
    factory: ClientFactory = ClientFactory.forProtocol(lambda: client)  # type: ignore[arg-type]
    factory.noisy = False
    wires.reactor.connectSSL(HERE, port.getHost().port, factory, trusting(certificate))
    server = await backend.connected()
    assert ISSLTransport.providedBy(server.transport)
    assert isinstance(server.transport.transport, EagerServer)
    data = Random(3).randbytes(1_000_000)
    server.send(data)
    await client.until_count(len(data))
    assert client.received == data
    client.send(data)
    client.close()
    assert await server.until(None) == data


@TLS
@pytest_twisted.ensureDeferred
async def test_once_tls_has_started_nothing_goes_out_in_the_clear(
    wires: Wires, certificate: CertificateOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = await wires.pair()
    passed: list[bytes] = []
    receive = Server.doRead

    def looking(transport: Any) -> Any:
        passed.append(transport.socket.recv(65536, 2))
        return receive(transport)

    monkeypatch.setattr(EagerServer, "doRead", looking)
    server.transport.startTLS(certificate)
    client.transport.startTLS(trusting(certificate))
    client.send(b"in the clear")
    client.close()
    assert await server.until(None) == b"in the clear"
    assert b"clear" not in b"".join(passed)
    await client.until(None)


@pytest.mark.parametrize("make", [Clock, MemoryReactor, MemoryNetwork])
def test_a_reactor_without_sockets_of_its_own_stays_as_it_is(make: Callable[[], Any]) -> None:
    reactor = make()
    assert with_eager_writes(reactor) is reactor


def test_all_else_is_the_reactor_s_own(running_reactor: Any) -> None:
    eager = with_eager_writes(running_reactor)
    assert isinstance(eager, EagerReactor)
    assert eager.listenUNIX == running_reactor.listenUNIX
    assert eager.nameResolver is running_reactor.nameResolver
    assert eager.callLater == running_reactor.callLater
    with pytest.raises(AttributeError):
        _ = eager.no_such_thing


def test_what_waits_in_our_own_buffer_is_unsent() -> None:
    pair = Pair(window=1000)
    assert unsent(pair.transport) == 0
    pair.transport.write(b"x" * 2500)
    assert unsent(pair.transport) == 1500


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what its buffers hold")
@pytest_twisted.ensureDeferred
async def test_what_the_peer_has_not_taken_is_unsent_though_the_kernel_has_it(wires: Wires) -> None:
    size = 20_000_000
    client, server = await wires.pair()
    client.pause()
    server.send(b"x" * size)
    waiting = unsent(server.transport)
    assert len(server.transport.dataBuffer) + server.transport._tempDataLen < waiting <= size
    client.resume()
    await client.until_count(size)
    while unsent(server.transport):
        await deferLater(wires.reactor, 0)
    server.close()
    await client.until(None)
