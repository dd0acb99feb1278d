"""What the proxy keeps for a peer that does not read is bounded, in octets."""

from base64 import b64encode
from hashlib import sha1

import pytest

from comfyproxy.core.config import Timeouts
from comfyproxy.proxy.relay import DRAIN_LIMIT
from comfyproxy.testing import ScriptedBackend
from comfyproxy.testing.network import WINDOW

FULL = 64 * 1024
"""A transport with more than this in its buffer asks its producer to stop."""

READ = 64 * 1024
"""What one read brings at most, after the buffer was just not full."""

BOUND = FULL + READ
MUCH = 5_000_000

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b64encode(sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MUCH,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\n",
}


def body(framing: str) -> bytes:
    if framing == "chunks":
        return b"%x\r\n%b\r\n" % (10_000, b"x" * 10_000) * (MUCH // 10_000) + b"0\r\n\r\n"
    return b"x" * MUCH


@pytest.mark.parametrize("piece", [0, 4000])
@pytest.mark.parametrize("framing", ANSWERS)
def test_an_answer_waits_for_a_client_that_does_not_read(make_rig, framing, piece):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(GET)
    (backend,) = rig.backend.connections
    before = rig.held
    client.pause()
    backend.send(ANSWERS[framing])
    backend.send(body(framing), piece)
    if framing == "until the end" and not piece:
        backend.close()
    rig.network.run()
    assert rig.held - before <= BOUND
    assert backend.transport.line.outgoing.carried <= BOUND + 2 * WINDOW
    client.resume()
    rig.network.run()
    if framing == "until the end" and piece:
        backend.close()
        rig.network.run()
    assert rig.answer(client).body == b"x" * MUCH


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_waits_for_a_backend_that_does_not_read(make_rig, framing):
    rig = make_rig(ScriptedBackend())
    head = {"length": b"Content-Length: %d" % MUCH, "chunks": b"Transfer-Encoding: chunked"}[framing]
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n")
    (backend,) = rig.backend.connections
    before = rig.held
    backend.pause()
    client.send(body(framing))
    rig.network.run()
    assert rig.held - before <= BOUND
    assert client.transport.line.outgoing.carried <= BOUND + 2 * WINDOW + 1000
    backend.resume()
    rig.network.run()
    assert rig.request().body == b"x" * MUCH
    backend.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    rig.network.run()


def test_a_body_waits_for_a_connection_to_be_made(make_rig):
    rig = make_rig(ScriptedBackend())
    rig.network.silent.add("10.0.0.1")
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % MUCH)
    rig.ask(b"x" * MUCH, client=client)
    # The head, which is held too, and one read; then the client is not read.
    assert rig.held <= READ + 1000
    rig.advance(6)
    assert rig.answer(client).status == 503


def test_a_slow_client_does_not_slow_down_others(make_rig):
    rig = make_rig(ScriptedBackend())
    slow, quick = rig.ask(GET), rig.ask(GET)
    slow.pause()
    for backend in rig.backend.connections:
        backend.send(ANSWERS["length"] + b"x" * MUCH)
    rig.network.run()
    assert len(rig.answer(quick).body) == MUCH
    assert slow.received == b""
    slow.resume()
    rig.network.run()
    assert len(rig.answer(slow).body) == MUCH


def test_a_connection_that_was_paused_serves_the_next_client_in_full(make_rig):
    rig = make_rig(ScriptedBackend())
    slow = rig.ask(GET)
    slow.pause()
    (backend,) = rig.backend.connections
    backend.send(ANSWERS["length"] + b"x" * MUCH)
    rig.network.run()
    slow.resume()
    rig.network.run()
    assert len(rig.answer(slow).body) == MUCH
    other = rig.ask(GET)
    backend.send(ANSWERS["length"] + b"x" * MUCH)
    rig.network.run()
    assert len(rig.answer(other).body) == MUCH
    assert len(rig.backend.connections) == 1


def test_small_answers_to_a_client_that_does_not_read_stop_the_pipeline(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.client()
    client.pause()
    client.send(GET * 500)
    size = 20_000
    answered = 0
    while True:
        rig.network.run()
        waiting = [one for one in rig.backend.connections if one.take()]
        if not waiting:
            break
        waiting[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        answered += 1
    assert 0 < answered * size - WINDOW <= FULL + size
    client.resume()
    rig.network.run()
    while answered < 500:
        for one in rig.backend.connections:
            one.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        answered += 1
        rig.network.run()
    assert client.received.count(b"HTTP/1.1 200 OK") == 500


@pytest.fixture
def tunnel(make_rig):
    """Makes a tunnel: a rig, a client and a backend's connection."""

    def make(**settings):
        rig = make_rig(ScriptedBackend(), **settings)
        client = rig.ask(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        (backend,) = rig.backend.connections
        backend.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
        )
        rig.network.run()
        assert client.take().startswith(b"HTTP/1.1 101 ")
        backend.take()
        return rig, client, backend

    return make


@pytest.mark.parametrize("stalled", ["client", "backend"])
def test_a_tunnel_waits_for_a_side_that_does_not_read(tunnel, stalled):
    rig, *ends = tunnel()
    reader, writer = ends if stalled == "client" else reversed(ends)
    before = rig.held
    reader.pause()
    writer.send(b"x" * MUCH)
    rig.network.run()
    assert rig.held - before <= BOUND
    assert writer.transport.line.outgoing.carried <= BOUND + 2 * WINDOW + 1000
    # The other direction is not held up by that.
    reader.send(b"still here")
    rig.network.run()
    assert writer.received == b"still here"
    reader.resume()
    rig.network.run()
    assert reader.received == b"x" * MUCH


def test_a_comfyui_that_sends_events_is_always_read(tunnel):
    rig, client, backend = tunnel(comfyui=True)
    before = rig.held
    client.pause()
    backend.send(b"x" * MUCH)
    rig.network.run()
    assert len(backend.transport.line.outgoing.data) == 0
    assert rig.held - before == MUCH - WINDOW
    client.resume()
    rig.network.run()
    assert client.received == b"x" * MUCH
    assert rig.held == before


def test_what_a_comfyui_is_sent_waits_for_it(tunnel):
    rig, client, backend = tunnel(comfyui=True)
    before = rig.held
    backend.pause()
    client.send(b"x" * MUCH)
    rig.network.run()
    assert rig.held - before <= BOUND
    backend.resume()
    rig.network.run()
    assert backend.received == b"x" * MUCH


def test_a_client_that_is_too_far_behind_a_comfyui_is_cut_off(tunnel):
    rig, client, backend = tunnel(comfyui=True)
    client.pause()
    before = rig.held
    backend.send(b"x" * (DRAIN_LIMIT - MUCH))
    rig.network.run()
    assert rig.held - before == DRAIN_LIMIT - MUCH - WINDOW
    assert (rig.leases, backend.ended) == (1, "")
    backend.send(b"x" * 2 * MUCH)
    rig.network.run()
    assert (rig.leases, rig.proxy.connections) == (0, set())
    assert backend.is_gone
    client.resume()
    rig.network.run()
    assert client.ended == "reset"


def test_a_client_that_has_caught_up_may_fall_behind_again(tunnel):
    rig, client, backend = tunnel(comfyui=True)
    size = DRAIN_LIMIT * 3 // 5
    for _ in range(2):
        client.pause()
        backend.send(b"x" * size)
        rig.network.run()
        client.resume()
        rig.network.run()
        assert len(client.take()) == size
    assert (client.ended, rig.leases) == ("", 1)


def test_what_waits_for_a_slow_client_reaches_it_after_the_comfyui_has_gone(tunnel):
    rig, client, backend = tunnel(comfyui=True)
    client.pause()
    backend.send(b"x" * MUCH)
    rig.network.run()
    backend.close()
    rig.network.run()
    client.resume()
    rig.network.run()
    assert (len(client.received), client.ended) == (MUCH, "closed")


def test_a_client_that_takes_nothing_for_too_long_is_cut_off_and_its_backend_not_blamed(make_rig, caplog):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(idle=600))
    client = rig.ask(GET)
    client.pause()
    rig.backend.connections[0].send(ANSWERS["length"] + b"x" * MUCH)
    rig.advance(599, step=5)
    assert rig.leases == 1
    rig.advance(60)
    assert (rig.leases, rig.backend.connections[0].is_gone) == (0, True)
    assert rig.proxy.connections == set()
    assert "10.0.0.1" not in caplog.text
    client.resume()
    rig.network.run()
    assert client.is_gone


def test_a_client_that_reads_slowly_but_steadily_gets_everything(make_rig):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(idle=10))
    client = rig.ask(GET)
    rig.backend.connections[0].send(ANSWERS["length"] + b"x" * MUCH)
    for _ in range(30):
        client.pause()
        rig.advance(8, step=2)
        client.resume()
        rig.network.run()
    assert rig.answer(client).body == b"x" * MUCH
