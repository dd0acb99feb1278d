"""Two connections joined: octets, ends, resets, back-pressure and time both ways; and what is always read."""

from math import inf

import pytest
from twisted.internet.protocol import ClientFactory, Factory

from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.relay import ENDING, Drain, Relay, RelayEnd
from comfyproxy.testing import MemoryNetwork, RawClient, ScriptedBackend

FULL = 64 * 1024


class Joined:
    """A client and a backend with a relay between them."""

    def __init__(self, **options) -> None:
        self.network = MemoryNetwork()
        self.deadlines = Deadlines(self.network)
        self.ended = 0
        accepted, made = RelayEnd(), RelayEnd()
        server = ScriptedBackend(stays_open=True)
        self.network.listenTCP(1, server)
        self.network.listenTCP(2, Factory.forProtocol(lambda: accepted))
        factory = ClientFactory()
        factory.protocol = lambda: made
        self.network.connectTCP("127.0.0.1", 1, factory)
        self.client = RawClient()
        self.client.stays_open = True
        self.network.connect(self.client, "127.0.0.1", 2)
        self.backend = server.connections[0]
        self.relay = Relay(accepted, made, self._count, self.deadlines, **options)
        self.network.run()

    def _count(self) -> None:
        self.ended += 1

    def run(self, seconds: float = 0) -> None:
        """Let everything happen that does in so many seconds."""
        self.network.run()
        for _ in range(int(seconds)):
            self.network.advance(1)

    def ends(self, side: str):
        """The peer named, and the other."""
        return (self.client, self.backend) if side == "client" else (self.backend, self.client)

    def check_over(self) -> None:
        """Assert that it has ended once and that nothing is left of it."""
        assert self.ended == 1
        assert len(self.deadlines) == 0
        assert (self.client.is_gone, self.backend.is_gone) == (True, True)
        assert self.network.removeAll() == []


SIDES = pytest.mark.parametrize("side", ["client", "backend"])


@SIDES
@pytest.mark.parametrize("piece", [0, 1])
def test_octets_pass(side, piece):
    joined = Joined()
    sender, receiver = joined.ends(side)
    sender.send(bytes(range(256)), piece)
    joined.run()
    assert receiver.received == bytes(range(256))
    assert sender.received == b""


def test_what_is_given_goes_first():
    joined = Joined(to_client=b"to the client, ", to_backend=b"to the backend, ")
    joined.client.send(b"first")
    joined.backend.send(b"second")
    joined.run()
    assert joined.backend.received == b"to the backend, first"
    assert joined.client.received == b"to the client, second"


@SIDES
def test_a_half_close_passes_after_everything_before_it(side):
    joined = Joined()
    first, second = joined.ends(side)
    second.pause()
    first.send(b"x" * 500_000)
    first.finish()
    joined.run()
    assert second.ended == ""
    second.resume()
    joined.run()
    assert (len(second.received), second.ended, second.is_gone) == (500_000, "closed", False)
    assert (first.ended, joined.ended) == ("", 0)
    second.send(b"y" * 500_000)
    joined.run()
    assert len(first.received) == 500_000
    second.close()
    joined.run()
    assert first.ended == "closed"
    first.close()
    joined.run()
    joined.check_over()


def test_both_may_finish_at_the_same_time():
    joined = Joined()
    for end in (joined.client, joined.backend):
        end.send(b"bye")
        end.finish()
    joined.run()
    assert (joined.client.received, joined.backend.received) == (b"bye", b"bye")
    assert (joined.client.ended, joined.backend.ended) == ("closed", "closed")
    joined.check_over()


@SIDES
def test_a_close_is_a_close_on_the_other_side(side):
    joined = Joined()
    first, second = joined.ends(side)
    first.close()
    joined.run()
    assert second.ended == "closed"
    second.close()
    joined.run()
    joined.check_over()


@SIDES
def test_a_reset_is_a_reset_on_the_other_side(side):
    joined = Joined()
    first, second = joined.ends(side)
    first.reset()
    joined.run()
    assert second.ended == "reset"
    joined.check_over()


@SIDES
def test_a_reset_after_a_half_close_passes_too(side):
    joined = Joined()
    first, second = joined.ends(side)
    first.finish()
    joined.run()
    second.reset()
    joined.run()
    assert first.ended == "reset"
    joined.check_over()


@SIDES
def test_what_cannot_be_delivered_any_more_resets_who_sends_it(side):
    joined = Joined()
    first, second = joined.ends(side)
    first.close()
    joined.run()
    while not second.is_gone:
        second.send(b"too late")
        joined.run()
    joined.check_over()


@SIDES
def test_a_side_that_does_not_read_stops_the_other(side):
    joined = Joined()
    first, second = joined.ends(side)
    second.pause()
    first.send(b"x" * 5_000_000)
    joined.run()
    line, there = first.transport.line, second.transport.line
    kept = line.outgoing.carried - len(line.outgoing.data) - there.incoming.carried
    assert FULL < kept <= 2 * FULL
    second.resume()
    joined.run()
    assert len(second.received) == 5_000_000


@SIDES
def test_silence_ends_it_after_the_idle_time(side):
    joined = Joined(idle=60)
    first, second = joined.ends(side)
    for _ in range(5):
        joined.run(50)
        first.send(b".")
        joined.run()
    joined.run(59)
    assert (second.received, second.ended, joined.ended) == (b".....", "", 0)
    joined.run(3)
    assert (first.ended, second.ended, joined.ended) == ("closed", "closed", 1)
    for end in (first, second):
        end.close()
    joined.run()
    joined.check_over()


def test_without_an_idle_time_silence_is_no_end():
    joined = Joined()
    joined.network.advance(1_000_000)
    joined.client.send(b"still here")
    joined.run()
    assert joined.backend.received == b"still here"


@SIDES
def test_octets_that_nobody_takes_are_given_up_in_the_end(side):
    joined = Joined(idle=60)
    first, second = joined.ends(side)
    second.pause()
    first.send(b"x" * 5_000_000)
    # Closing waits until what was written is out, and it never is.
    joined.run(60 + ENDING + 10)
    second.resume()
    joined.run()
    assert (first.is_gone, second.ended) == (True, "reset")
    joined.check_over()


@SIDES
def test_once_one_side_has_ended_the_other_has_its_time(side):
    joined = Joined()
    first, second = joined.ends(side)
    first.finish()
    joined.run(ENDING - 10)
    second.send(b".")
    joined.run(ENDING - 10)
    assert (first.received, first.ended) == (b".", "")
    joined.run(20)
    assert (first.is_gone, joined.ended) == (True, 1)
    while not second.is_gone:
        second.send(b"too late")
        joined.run()
    joined.check_over()


@SIDES
def test_what_waits_for_a_side_when_the_other_is_gone_is_given_up_in_the_end(side):
    joined = Joined()
    first, second = joined.ends(side)
    second.pause()
    first.send(b"x" * 300_000)
    joined.run()
    first.close()
    joined.run(ENDING + 10)
    second.resume()
    joined.run()
    assert second.ended == "reset"
    first.close()
    joined.run()
    joined.check_over()


def test_a_transport_without_half_close_is_closed_instead():
    class Whole:
        """A transport that can only be closed."""

        closed = 0

        def __getattr__(self, name):
            if name == "loseWriteConnection":
                raise AttributeError(name)
            return lambda *arguments: None

        def loseConnection(self):
            self.closed += 1

    client, backend = RelayEnd(), RelayEnd()
    client.transport, backend.transport = Whole(), Whole()
    network = MemoryNetwork()
    Relay(client, backend, lambda: None, deadlines := Deadlines(network))
    client.readConnectionLost()
    assert (client.transport.closed, backend.transport.closed) == (0, 1)
    deadlines.stop()


def test_without_a_relay_an_end_closes_when_its_peer_does():
    network = MemoryNetwork()
    network.listenTCP(1, Factory.forProtocol(RelayEnd))
    client = network.connect(RawClient(), "127.0.0.1", 1)
    client.finish()
    network.run()
    assert (client.ended, client.is_gone) == ("closed", True)


class Slow:
    """A transport that takes one piece, then asks for a pause."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = 0
        self.drain: Drain | None = None

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.drain is not None:
            self.drain.pauseProducing()

    def abortConnection(self) -> None:
        self.aborted += 1


class TestDrain:
    """What is kept for a client that must not stop its backend."""

    def drain(self, limit: int = 100) -> tuple[Drain, Slow]:
        transport = Slow()
        transport.drain = drain = Drain(transport, limit)
        return drain, transport

    def test_a_client_that_keeps_up_gets_all_at_once(self):
        transport = Slow()
        drain = Drain(transport, 100)
        for _ in range(1000):
            drain.write(b"x" * 10)
        assert (len(transport.written), transport.aborted) == (1000, 0)

    def test_a_client_that_is_behind_gets_it_when_it_has_read(self):
        drain, transport = self.drain()
        for number in range(5):
            drain.write(b"%d" % number)
        assert transport.written == [b"0"]
        for _ in range(9):
            drain.resumeProducing()
        assert transport.written == [b"0", b"1", b"2", b"3", b"4"]

    def test_its_transport_never_gets_more_than_one_piece_at_a_time(self):
        drain, transport = self.drain(10_000)
        for _ in range(100):
            drain.write(b"x" * 100)
        drain.resumeProducing()
        assert len(transport.written) == 2

    @pytest.mark.parametrize("pieces", [1, 10])
    def test_past_the_limit_it_is_cut_off_once(self, pieces):
        drain, transport = self.drain(100)
        drain.write(b"first")
        for _ in range(pieces):
            drain.write(b"x" * (100 // pieces))
        assert transport.aborted == 0
        for _ in range(3):
            drain.write(b"x")
        assert (transport.aborted, transport.written) == (1, [b"first"])
        drain.resumeProducing()
        assert transport.written == [b"first"]

    def test_the_limit_is_on_what_waits_not_on_what_passed(self):
        drain, transport = self.drain(100)
        for _ in range(50):
            drain.write(b"x" * 60)
            drain.resumeProducing()
            drain.resumeProducing()
        assert transport.aborted == 0

    def test_flush_hands_over_everything(self):
        drain, transport = self.drain()
        for number in range(5):
            drain.write(b"%d" % number)
        drain.flush()
        assert b"".join(transport.written) == b"01234"

    def test_a_client_that_is_gone_keeps_nothing(self):
        drain, transport = self.drain()
        drain.write(b"1")
        drain.write(b"2")
        drain.stopProducing()
        drain.resumeProducing()
        assert transport.written == [b"1"]


def test_a_drained_backend_is_read_whatever_the_client_does():
    joined = Joined(drain=True)
    joined.client.pause()
    joined.backend.send(b"x" * 5_000_000)
    joined.run()
    assert len(joined.backend.transport.line.outgoing.data) == 0
    joined.backend.close()
    joined.run()
    joined.client.resume()
    joined.run()
    assert (len(joined.client.received), joined.client.ended) == (5_000_000, "closed")


def test_a_relay_that_was_never_given_a_time_is_not_watched():
    joined = Joined()
    assert (joined.relay.deadline, len(joined.deadlines)) == (inf, 0)
