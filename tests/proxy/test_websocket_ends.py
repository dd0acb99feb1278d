"""The pace, the patience and the signs of life of the two ends, through a whole proxy in memory."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from OpenSSL.crypto import X509, PKey
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from websockets.protocol import State

from comfyproxy.core.config import Timeouts
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.listeners import HTTPListener
from comfyproxy.proxy.websocket_ends import CLOSE_TIMEOUT, FLUSH_TIMEOUT, LAST_WORDS, BackendEnd, ClientEnd
from comfyproxy.proxy.websockets import Bridges
from tests.proxy.websocket_peers import MIB, Client, Join, Joined, Message, frame, joining

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


# A ComfyUI backend, which is always read


def progress(prompt: str, value: int) -> str:
    return f'{{"type": "progress_state", "data": {{"prompt_id": "{prompt}", "nodes": {{"5": {value}}}}}}}'


def preview(number: int, size: int = 50_000) -> bytes:
    return b"\x00\x00\x00\x01\x00\x00\x00\x01" + bytes([number % 256]) * size


def done(prompt: str) -> str:
    return f'{{"type": "execution_success", "data": {{"prompt_id": "{prompt}"}}}}'


@pytest.fixture
def stalled(join: Join) -> Joined:
    """A client of a ComfyUI backend that does not read, with its buffers full."""
    joined = join(comfyui=True)
    joined.client.pause()
    joined.server.say(b"\x00\x00\x00\x03" + b"x" * MIB)
    joined.run()
    joined.rig.network.run()
    return joined


def test_a_client_that_does_not_read_never_stops_a_comfyui(stalled: Joined) -> None:
    for number in range(400):
        stalled.server.say(preview(number))
        stalled.server.say(progress("p", number))
        stalled.run()
    assert not stalled.server.transport.line.outgoing.data, "something was left unread"
    assert stalled.rig.held - 400 * 50_000 < MIB


def test_only_the_newest_preview_and_progress_wait_and_every_event_does(stalled: Joined) -> None:
    for number in range(400):
        stalled.server.say(preview(number))
        stalled.server.say(progress("p", number))
        stalled.server.say(progress("q", number))
        if number % 100 == 0:
            stalled.server.say(done(f"p{number}"))
    stalled.server.say(done("p"))
    stalled.run()
    stalled.client.resume()
    stalled.run()
    assert stalled.client.messages[1:] == [
        *(done(f"p{number}") for number in (0, 100, 200, 300)),
        preview(399),
        progress("p", 399),
        progress("q", 399),
        done("p"),
    ]


def test_what_waits_arrives_before_the_close_frame(stalled: Joined) -> None:
    stalled.server.say(done("p"))
    stalled.server.say_goodbye(1001, "bye")
    stalled.run()
    assert stalled.server.is_gone
    stalled.advance(CLOSE_TIMEOUT + SLACK)
    stalled.client.resume()
    stalled.run()
    assert stalled.client.messages[1:] == [done("p")]
    assert stalled.client.closed_with == (1001, "bye")
    assert stalled.client.is_gone


@pytest.mark.parametrize("seconds", [CLOSE_TIMEOUT + SLACK, FLUSH_TIMEOUT - SLACK])
def test_a_client_that_is_slow_for_a_while_still_gets_its_last_messages(
    stalled: Joined, seconds: float
) -> None:
    stalled.advance(PING_INTERVAL + SLACK)
    stalled.server.say(done("p"))
    stalled.server.say_goodbye(1001, "bye")
    stalled.advance(seconds)
    stalled.client.resume()
    stalled.run()
    assert stalled.client.messages[1:] == [done("p")]
    assert stalled.client.closed_with == (1001, "bye")


def test_last_messages_may_take_minutes_as_long_as_they_go(stalled: Joined) -> None:
    for number in range(100):
        stalled.server.say(done(str(number)) + " " * 100_000)
    stalled.server.say_goodbye(1001, "bye")
    stalled.run()
    assert stalled.server.is_gone
    while len(stalled.client.messages) < 101:
        stalled.client.resume()
        stalled.rig.network._turn()
        stalled.client.pause()
        stalled.advance(FLUSH_TIMEOUT / 2)
    assert stalled.rig.network.seconds() > 3 * FLUSH_TIMEOUT
    stalled.client.resume()
    stalled.run()
    assert stalled.client.closed_with == (1001, "bye")


def test_what_waits_for_a_client_that_sends_no_more_is_forgotten(stalled: Joined) -> None:
    stalled.server.say(done("p"))
    stalled.run()
    stalled.client.stays_open = True
    stalled.client.finish()
    stalled.run()
    stalled.client.resume()
    stalled.run()
    assert len(stalled.client.messages) == 1
    assert stalled.client.is_gone


def test_what_waits_arrives_when_the_backend_has_vanished(stalled: Joined) -> None:
    stalled.server.say(done("p"))
    stalled.run()
    stalled.server.reset()
    stalled.run()
    stalled.client.resume()
    stalled.run()
    assert stalled.client.messages[1:] == [done("p")]
    assert stalled.client.closed_with[0] == 1014


def test_a_client_that_takes_nothing_of_its_last_messages_is_cut_off(stalled: Joined) -> None:
    stalled.server.say(done("p"))
    stalled.server.say_goodbye(1000)
    stalled.advance(2 * FLUSH_TIMEOUT + SLACK)
    stalled.client.resume()
    stalled.run()
    assert stalled.client.ended == "reset"
    assert stalled.rig.leases == 0


def test_past_the_limit_the_client_is_cut_off_and_the_backend_hears_it(join: Join) -> None:
    joined = join(comfyui=True, backlog=5 * MIB)
    joined.client.pause()
    number = 0
    while not joined.server.is_gone:
        joined.server.say(done(str(number)) + " " * 50_000)
        joined.run()
        number += 1
    assert 5 * MIB < number * 50_000 < 6 * MIB
    joined.client.resume()
    joined.run()
    assert joined.client.ended == "reset"
    assert joined.server.closed_with == (1001, "The client is gone.")
    assert joined.rig.leases == 0


def test_many_small_messages_count_for_what_they_take(join: Join) -> None:
    joined = join(comfyui=True, backlog=MIB)
    joined.client.pause()
    joined.server.say(b"x" * MIB)
    for _ in range(5000):
        joined.server.say(b"tiny")
    joined.run()
    assert joined.server.closed_with[0] == 1001
    joined.client.resume()


def test_a_client_that_leaves_with_messages_waiting_leaves_nothing(stalled: Joined) -> None:
    stalled.server.say(done("p"))
    stalled.run()
    stalled.client.reset()
    stalled.run()
    assert stalled.server.closed_with[0] == 1001
    assert stalled.rig.leases == 0


def test_a_client_that_closes_with_messages_waiting_is_answered_behind_what_is_on_its_way(
    stalled: Joined,
) -> None:
    stalled.server.say(done("p"))
    stalled.run()
    stalled.client.say_goodbye(1000, "enough")
    stalled.run()
    stalled.client.resume()
    stalled.run()
    assert stalled.client.closed_with == stalled.server.closed_with == (1000, "enough")
    assert len(stalled.client.messages) == 1
    assert stalled.rig.leases == 0


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


# Behind a violation of the client's

VIOLATION = frame(1, b"x", rsv=2)


def test_the_answer_to_what_came_before_a_violation_arrives_before_the_end(join: Join) -> None:
    joined = join()
    joined.server.ignores_close = True
    joined.client.send(frame(1, b"hello") + VIOLATION + frame(1, b"not heard"))
    joined.run()
    joined.server.say("an answer")
    joined.run()
    assert joined.client.messages == ["an answer"]
    assert joined.client.protocol.close_rcvd is None
    joined.server.say_goodbye(1001)
    joined.run()
    assert joined.client.closed_with[0] == 1002


@pytest.mark.parametrize("comfyui", [False, True])
def test_a_server_that_does_not_answer_the_goodbye_has_a_second(join: Join, comfyui: bool) -> None:
    joined = join(comfyui=comfyui)
    joined.server.ignores_close = True
    joined.client.send(VIOLATION)
    joined.run()
    assert joined.client.protocol.close_rcvd is None
    joined.client.send(VIOLATION)
    joined.advance(LAST_WORDS + 0.5)
    assert joined.client.closed_with[0] == 1002


@pytest.mark.parametrize("how", ["reset", "close", "finish"])
def test_a_client_that_leaves_behind_its_violation_leaves_nothing(join: Join, how: str) -> None:
    joined = join()
    joined.server.ignores_close = True
    joined.client.send(VIOLATION)
    joined.run()
    getattr(joined.client, how)()
    joined.run()
    joined.close()
    assert joined.server.ended


def test_a_server_that_vanishes_behind_a_violation_changes_nothing(join: Join) -> None:
    joined = join()
    joined.server.ignores_close = True
    joined.client.send(VIOLATION)
    joined.run()
    joined.server.reset()
    joined.run()
    assert joined.client.closed_with[0] == 1002


# Whatever happens, in whatever order

ACTIONS = [
    "say",
    "say much",
    "say in parts",
    "ping",
    "goodbye",
    "break the protocol",
    "pause",
    "resume",
    "finish",
    "close",
    "reset",
]


def act(joined: Joined, who: str, action: str, number: int) -> None:
    """Let a peer do something, if it still can."""
    peer = getattr(joined, who)
    if peer.is_gone:
        return
    speaks = peer.protocol.state is State.OPEN
    match action:
        case "pause" | "resume" | "finish" | "close" | "reset":
            getattr(peer, action)()
        case "break the protocol":
            peer.send(b"\xff\x00\xff\x00")
        case "say" if speaks:
            peer.say(progress("p", number))
        case "say much" if speaks:
            peer.say(preview(number, MIB))
        case "say in parts" if speaks:
            peer.say("a", "b" * number, "c")
        case "ping" if speaks:
            peer.ping(b"%d" % number)
        case "goodbye" if speaks:
            peer.say_goodbye(4000, "enough")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    is_comfyui=st.booleans(),
    deflate=st.booleans(),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["client", "server"]),
            st.sampled_from(ACTIONS),
            st.sampled_from([0.0, 0.0, 0.0, 1.0, 30.0, 200.0]),
            st.booleans(),
        ),
        max_size=15,
    ),
)
def test_whoever_does_what_at_any_moment_nothing_is_left(
    join: Join, is_comfyui: bool, deflate: bool, steps: list[tuple[str, str, float, bool]]
) -> None:
    joined = join(comfyui=is_comfyui, client=Client(deflate=deflate), backlog=4 * MIB)
    for number, (who, action, seconds, turns) in enumerate(steps):
        act(joined, who, action, number)
        if turns:
            joined.advance(seconds)
    joined.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(who=st.sampled_from(["client", "server"]), octets=st.binary(max_size=300), piece=st.integers(0, 3))
def test_no_octets_fail_the_proxy(join: Join, who: str, octets: bytes, piece: int) -> None:
    joined = join(client=Client(deflate=True))
    joined.client.raw = joined.server.raw = True
    getattr(joined, who).send(octets, piece)
    joined.run()
    joined.close()


# Under TLS


@pytest.fixture(scope="module")
def secret() -> CertificateOptions:
    """What a TLS server needs: a key and a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "comfy.example")])
    now = datetime.now(UTC)
    until = now + timedelta(hours=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, until)
    certificate = made.sign(key, hashes.SHA256())
    return CertificateOptions(PKey.from_cryptography_key(key), X509.from_cryptography(certificate))


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.parametrize("how", ["goodbye", "break the protocol", "close", "reset", "server reset"])
def test_under_tls_everything_ends_too(join: Join, secret: CertificateOptions, how: str) -> None:
    joined = join(opened=False, comfyui=True)
    network = joined.rig.network
    front = TLSMemoryBIOFactory(secret, False, HTTPListener(joined.rig.proxy), network)
    network.listenTCP(8443, front, interface="127.0.0.1")
    joined.open(8443, lambda factory: TLSMemoryBIOFactory(CertificateOptions(), True, factory, network))
    joined.client.say("c" * MIB)
    joined.server.say("s" * MIB)
    joined.run()
    assert (joined.client.messages, joined.server.messages) == (["s" * MIB], ["c" * MIB])
    act(joined, "server" if "server" in how else "client", how.rpartition("server ")[2], 0)
    joined.advance(CLOSE_TIMEOUT + SLACK)
    assert joined.client.is_gone
    assert joined.server.is_gone
    expected = {"goodbye": 4000, "break the protocol": 1002, "server reset": 1014}
    if how in expected:
        assert joined.client.closed_with[0] == expected[how]
    assert joined.rig.leases == 0
