"""The two ends of a WebSocket, and how each of them comes to its end, through a whole proxy in memory."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from OpenSSL.crypto import X509, PKey
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from websockets.protocol import State

from comfyproxy.core.config import Timeouts
from comfyproxy.proxy.listeners import HTTPListener
from comfyproxy.proxy.websocket_end import CLOSE_TIMEOUT
from comfyproxy.proxy.websocket_ends import FLUSH_TIMEOUT, LAST_WORDS
from tests.proxy.websocket_peers import MIB, Client, Join, Joined, frame, joining

SLACK = 5
"""Seconds by which deadlines, whose resolution is a quarter of one, may be late after some looks."""

PING_INTERVAL, PING_TIMEOUT = Timeouts().websocket_ping, Timeouts().websocket_dead

join = pytest.fixture(joining)


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
