"""The network in memory shows what real sockets show; the tests that can run on both."""

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionRefusedError, UserError
from twisted.internet.protocol import ClientFactory, Protocol

from comfyproxy.testing import MemoryNetwork, RawClient, ScriptedBackend, Step
from comfyproxy.testing.network import WINDOW

MUCH = b"x" * 1_000_000


class Attempt(ClientFactory):
    """Remembers how connecting ended."""

    noisy = False

    def __init__(self) -> None:
        self.protocol = Protocol
        self.why = None

    def clientConnectionFailed(self, connector, reason):
        self.why = reason.value


class Producer:
    """Counts what its consumer asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pauseProducing(self):
        self.asked.append("pause")

    def resumeProducing(self):
        self.asked.append("resume")

    def stopProducing(self):
        self.asked.append("stop")


@pytest_twisted.ensureDeferred
async def test_octets_go_both_ways(wires):
    backend = ScriptedBackend([Step(after=b"ping", send=b"pong")])
    client = await wires.pair(backend)
    client.send(b"ping")
    assert await wires.wait(client.until(b"pong")) == b"pong"
    assert backend.requests == [b"ping"]
    client.close()
    await wires.wait(backend.connections[0].until(None))


@pytest_twisted.ensureDeferred
async def test_a_close_sends_everything_first_and_ends_cleanly(wires):
    backend = ScriptedBackend([Step(after=b"", send=MUCH, end="close")])
    client = await wires.pair(backend)
    assert await wires.wait(client.until(None)) == MUCH
    assert client.ended == "closed"
    await wires.wait(backend.connections[0].until(None))


@pytest_twisted.ensureDeferred
async def test_a_half_close_leaves_the_other_direction_open(wires):
    backend = ScriptedBackend(stays_open=True)
    client = await wires.pair(backend)
    client.send(b"question")
    client.finish()
    connection = backend.connections[0]
    assert await wires.wait(connection.until(None)) == b"question"
    assert (connection.ended, connection.is_gone) == ("closed", False)
    connection.send(b"answer")
    connection.close()
    assert await wires.wait(client.until(None)) == b"answer"
    assert client.ended == "closed"


@pytest_twisted.ensureDeferred
async def test_a_reset_is_seen_as_one(wires):
    backend = ScriptedBackend([Step(after=b"go", end="reset")])
    client = await wires.pair(backend)
    client.send(b"go")
    await wires.wait(client.until(None))
    assert client.ended == "reset"


@pytest.mark.parametrize("unread", [b"", b"never read"])
@pytest_twisted.ensureDeferred
async def test_who_has_closed_ends_cleanly_and_resets_those_that_go_on_sending(wires, unread):
    backend = ScriptedBackend()
    client = await wires.pair(backend)
    client.stays_open = True
    connection = backend.connections[0]
    connection.pause()
    client.send(unread)
    connection.send(b"before the end")
    await wires.wait(client.until(b"before the end"))
    connection.close()
    await wires.wait(client.until(None))
    assert client.ended == "closed"
    lost = []
    client.connectionLost = lambda reason: lost.append(reason.type.__name__)
    while not lost:
        client.send(b"into the void")
        await wires.turn()
    assert lost == ["ConnectionLost"]


@pytest_twisted.ensureDeferred
async def test_a_producer_is_paused_by_a_peer_that_does_not_read_and_resumed_when_it_does(wires):
    backend = ScriptedBackend()
    client = await wires.pair(backend)
    connection = backend.connections[0]
    producer = Producer()
    client.transport.registerProducer(producer, True)
    connection.pause()
    sent = 0
    while not producer.asked:
        client.send(b"y" * 65_536)
        sent += 65_536
        await wires.turn()
    assert producer.asked[0] == "pause"
    connection.resume()
    client.send(b"end")
    await wires.wait(connection.until(b"end"))
    assert len(connection.received) == sent + 3
    assert producer.asked[-1] == "resume"
    client.transport.unregisterProducer()
    client.close()
    await wires.wait(connection.until(None))


@pytest_twisted.ensureDeferred
async def test_nobody_listening_refuses(wires):
    attempt = Attempt()
    port = wires.reactor.listenTCP(0, ScriptedBackend(), interface="127.0.0.1")
    number = port.getHost().port
    await maybeDeferred(port.stopListening)
    wires.reactor.connectTCP("127.0.0.1", number, attempt)
    while attempt.why is None:
        await wires.turn()
    assert isinstance(attempt.why, ConnectionRefusedError)


@pytest_twisted.ensureDeferred
async def test_an_attempt_that_is_given_up_fails_at_once(wires):
    attempt = Attempt()
    port = wires.reactor.listenTCP(0, ScriptedBackend(), interface="127.0.0.1")
    connector = wires.reactor.connectTCP("127.0.0.1", port.getHost().port, attempt)
    connector.disconnect()
    assert isinstance(attempt.why, UserError)
    await maybeDeferred(port.stopListening)


def test_a_silent_host_never_answers(network: MemoryNetwork):
    network.silent.add("10.0.0.9")
    attempt = Attempt()
    network.connectTCP("10.0.0.9", 80, attempt, timeout=7)
    network.advance(6.9)
    assert attempt.why is None
    network.advance(0.2)
    assert type(attempt.why).__name__ == "TimeoutError"


def test_one_direction_carries_a_window_full_and_no_more(network: MemoryNetwork):
    backend = ScriptedBackend()
    network.listenTCP(80, backend)
    client = network.connect(RawClient(), "127.0.0.1", 80)
    backend.connections[0].pause()
    client.send(MUCH)
    network.run()
    assert len(client.transport.line.outgoing.data) == WINDOW
    backend.connections[0].resume()
    network.run()
    assert backend.connections[0].received == MUCH


def test_pieces_arrive_one_by_one(network: MemoryNetwork):
    backend = ScriptedBackend()
    network.listenTCP(80, backend)
    client = network.connect(RawClient(), "127.0.0.1", 80)
    pieces = []
    backend.connections[0].dataReceived = pieces.append
    client.send(b"abc", piece=1)
    network.run()
    assert pieces == [b"a", b"b", b"c"]


def test_an_address_is_taken_once(network: MemoryNetwork):
    network.listenTCP(80, ScriptedBackend(), interface="10.0.0.1")
    network.listenTCP(80, ScriptedBackend(), interface="10.0.0.2")
    with pytest.raises(Exception, match="in use"):
        network.listenTCP(80, ScriptedBackend(), interface="10.0.0.1")


def test_both_ends_know_their_addresses(network: MemoryNetwork):
    backend = ScriptedBackend()
    network.listenTCP(80, backend, interface="::1")
    client = network.connect(RawClient(), "::1", 80, source="::2")
    assert (client.transport.getPeer().host, client.transport.getHost().host) == ("::1", "::2")
    assert backend.connections[0].transport.getPeer().host == "::2"


def test_an_error_in_a_protocol_is_logged_and_ends_its_connection(
    network: MemoryNetwork, flush_logged_errors
):
    backend = ScriptedBackend()
    network.listenTCP(80, backend)
    client = network.connect(RawClient(), "127.0.0.1", 80)
    backend.connections[0].dataReceived = lambda data: 1 / 0
    client.send(b"x")
    network.run()
    assert client.is_gone
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


def test_a_network_that_finds_no_rest_is_an_error(network: MemoryNetwork):
    def again() -> None:
        network.callLater(0, again)

    again()
    with pytest.raises(AssertionError, match="not at rest"):
        network.run()
