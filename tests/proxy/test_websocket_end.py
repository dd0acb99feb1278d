"""One end of a WebSocket: its pace and its signs of life, through a whole proxy in memory."""

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from comfyproxy.core.config import Timeouts
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.websocket_ends import BackendEnd, ClientEnd
from comfyproxy.proxy.websockets import Bridges
from tests.proxy.websocket_peers import MIB, Join, Message, frame, joining

SLACK = 5
"""Seconds by which deadlines, whose resolution is a quarter of one, may be late after some looks."""

PING_INTERVAL, PING_TIMEOUT = Timeouts().websocket_ping, Timeouts().websocket_dead

join = pytest.fixture(joining)


# Back-pressure


def test_a_client_that_does_not_read_stops_the_backend_of_a_plain_pool(join: Join) -> None:
    joined = join()
    joined.client.pause()
    messages: list[Message] = [bytes([number % 256]) * 10_000 for number in range(1000)]
    for message in messages:
        joined.server.say(message)
    joined.run()
    assert joined.rig.held < MIB
    assert joined.server.transport.line.outgoing.data, "everything was read"
    joined.client.resume()
    joined.run()
    assert joined.client.messages == messages


def test_a_backend_that_does_not_read_stops_the_client(join: Join) -> None:
    joined = join(comfyui=True)
    joined.server.pause()
    messages: list[Message] = ["m" * 10_000 + str(number) for number in range(1000)]
    for message in messages:
        joined.client.say(message)
    joined.run()
    assert joined.rig.held < MIB
    joined.server.resume()
    joined.run()
    assert joined.server.messages == messages


def test_one_message_is_all_that_is_held_of_a_large_one(join: Join) -> None:
    joined = join()
    joined.client.pause()
    for _ in range(3):
        joined.server.say(b"p" * 20 * MIB)
    joined.run()
    assert joined.rig.held < 21 * MIB
    joined.client.resume()
    joined.run()
    assert [len(message) for message in joined.client.messages] == [20 * MIB] * 3


def test_both_may_stop_reading_and_go_on(join: Join) -> None:
    joined = join()
    joined.client.pause()
    joined.server.pause()
    for number in range(500):
        joined.client.say(f"c{number}" + "c" * 5000)
        joined.server.say(f"s{number}" + "s" * 5000)
    joined.run()
    assert joined.rig.held < MIB
    joined.server.resume()
    joined.run()
    joined.client.resume()
    joined.run()
    assert joined.server.messages == [f"c{number}" + "c" * 5000 for number in range(500)]
    assert joined.client.messages == [f"s{number}" + "s" * 5000 for number in range(500)]


def test_a_backend_that_was_not_read_is_heard_out_when_the_client_is_gone(join: Join) -> None:
    joined = join()
    joined.client.pause()
    for _ in range(100):
        joined.server.say(b"x" * 50_000)
    joined.run()
    joined.client.reset()
    joined.run()
    assert joined.server.closed_with[0] == 1001
    assert joined.server.ended == "closed"
    assert joined.rig.leases == 0


def test_a_client_that_sends_no_more_gets_only_what_is_on_its_way(join: Join) -> None:
    joined = join()
    joined.server.ignores_close = True
    joined.client.stays_open = True
    joined.client.pause()
    joined.server.say(b"on its way" * MIB)
    joined.run()
    joined.client.finish()
    joined.run()
    for _ in range(5):
        joined.server.send(frame(2, b"too late" * MIB, masked=False))
        joined.run()
    joined.client.resume()
    joined.run()
    assert joined.client.messages == [b"on its way" * MIB]
    assert joined.client.is_gone


def test_nobody_is_held_who_is_to_close() -> None:
    client, backend = ClientEnd(MIB), BackendEnd(MIB)
    bridges = Bridges(Clock())
    client.accept(bridges.clients, b"dGhlIHNhbXBsZSBub25jZQ==", [])
    backend.accept(bridges.backends)
    to_client, to_backend = StringTransport(), StringTransport()
    deadlines = Deadlines(Clock())
    client.join(to_client, backend, deadlines, Timeouts(), None)  # type: ignore[arg-type]
    backend.join(to_backend, client, deadlines, Timeouts(), None)  # type: ignore[arg-type]
    out: Any = to_client.producer
    out.pauseProducing()
    assert to_backend.producerState == "paused"
    out.resumeProducing()
    assert to_backend.producerState == "producing"
    backend.dataReceived(frame(8, masked=False))
    out.pauseProducing()
    assert to_backend.producerState == "producing"


def test_who_pings_and_does_not_read_gets_one_pong_in_the_end(join: Join) -> None:
    joined = join()
    joined.client.pause()
    joined.server.say(b"x" * 2 * MIB)
    joined.run()
    for number in range(20_000):
        joined.client.ping(b"%d" % number)
    joined.run()
    assert joined.rig.held < 3 * MIB
    joined.client.resume()
    joined.run()
    assert joined.client.pongs == [b"19999"]


# Signs of life


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("silence", [7, 20, 30, 1000])
def test_no_hop_is_silent_for_a_minute(join: Join, who: str, silence: int) -> None:
    joined = join()
    line = getattr(joined, who).transport.line
    quiet = 0
    for second in range(600):
        if second % silence == 0:
            getattr(joined, who).say("x")
        before = line.incoming.carried + line.outgoing.carried
        joined.advance(1)
        quiet = quiet + 1 if before == line.incoming.carried + line.outgoing.carried else 0
        assert quiet <= 51
    assert not joined.client.ended


def test_a_talking_peer_gets_no_pings(join: Join) -> None:
    joined = join()
    for _ in range(30):
        joined.client.say("x")
        joined.advance(10)
    assert joined.client.pings == 0


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_peer_without_a_sign_of_life_is_cut_off(join: Join, who: str) -> None:
    joined = join()
    dead = getattr(joined, who)
    dead.raw = True
    joined.advance(2 * PING_INTERVAL + PING_TIMEOUT + SLACK)
    assert dead.ended == "reset"
    if who == "client":
        assert joined.server.closed_with[0] == 1001
    else:
        assert joined.client.closed_with[0] == 1014


@pytest.mark.parametrize(("ping", "dead"), [(5, 12), (5, 2), (30, 30)])
def test_pings_and_death_come_when_they_are_wanted(join: Join, ping: float, dead: float) -> None:
    joined = join(timeouts=Timeouts(websocket_ping=ping, websocket_dead=dead))
    joined.advance(ping - 0.5)
    assert joined.client.pings == 0
    joined.client.raw = True
    joined.advance(dead)
    assert (joined.client.ended, joined.client.received.count(b"\x89\x00") > 0) == ("", True)
    joined.advance(SLACK)
    assert joined.client.ended == "reset"


def test_without_an_interval_there_are_no_pings_and_nobody_dies(join: Join) -> None:
    joined = join(timeouts=Timeouts(websocket_ping=0))
    joined.client.raw = joined.server.raw = True
    joined.advance(1000, step=100)
    assert (joined.client.ended, joined.client.received, joined.server.received) == ("", b"", b"")


def test_without_a_death_silent_peers_are_pinged_for_ever(join: Join) -> None:
    joined = join(timeouts=Timeouts(websocket_ping=10, websocket_dead=0))
    joined.client.raw = True
    joined.advance(1000)
    assert joined.client.ended == ""
    assert 95 <= joined.client.received.count(b"\x89\x00") <= 100


def test_a_message_that_takes_minutes_to_come_is_a_sign_of_life(join: Join) -> None:
    joined = join()
    octets = frame(2, b"x" * 6000)
    for start in range(0, len(octets), 100):
        joined.client.send(octets[start : start + 100])
        joined.advance(5)
    assert joined.server.messages == [b"x" * 6000]


def test_a_message_that_takes_minutes_to_go_is_a_sign_of_life(join: Join) -> None:
    joined = join()
    joined.client.pause()
    joined.server.say(b"x" * 20 * MIB)
    joined.run()
    while not joined.client.messages:
        joined.client.resume()
        joined.rig.network._turn()
        joined.client.pause()
        joined.advance(5)
    assert joined.rig.network.seconds() > 3 * (PING_INTERVAL + PING_TIMEOUT)
    joined.client.resume()
    joined.run()
    assert not joined.client.ended


def test_a_peer_that_is_not_read_is_not_taken_for_dead(join: Join) -> None:
    joined = join()
    joined.client.pause()
    for _ in range(30):
        joined.server.say(b"x" * 50_000)
    joined.run()
    for _ in range(60):
        joined.client.ping(b"here")
        joined.advance(5)
    joined.client.resume()
    joined.run()
    assert len(joined.client.messages) == 30
    assert not joined.server.ended


def test_a_client_that_takes_nothing_and_says_nothing_is_dead(join: Join) -> None:
    joined = join()
    joined.client.pause()
    joined.server.say(b"x" * MIB)
    joined.advance(2 * PING_INTERVAL + PING_TIMEOUT + SLACK)
    joined.client.resume()
    joined.run()
    assert joined.client.ended == "reset"
    assert joined.server.closed_with[0] == 1001
