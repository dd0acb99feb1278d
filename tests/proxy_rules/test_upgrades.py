"""Rules 27 and 28: what becomes a tunnel, and what goes through it."""

from base64 import b64encode
from hashlib import sha1

import pytest

from comfyproxy.core.config import Timeouts
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b64encode(sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())

ASKING = {
    b"Connection": b"Upgrade",
    b"Upgrade": b"websocket",
    b"Sec-WebSocket-Key": KEY,
    b"Sec-WebSocket-Version": b"13",
}
SWITCHING = {b"Upgrade": b"websocket", b"Connection": b"Upgrade", b"Sec-WebSocket-Accept": ACCEPT}


def head(start: bytes, *groups: dict[bytes, bytes | None]) -> bytes:
    """A head of the fields in ``groups``; later ones replace earlier ones, ``None`` leaves out."""
    fields = {name: value for group in groups for name, value in group.items()}
    return b"\r\n".join(
        (start, *(b"%b: %b" % field for field in fields.items() if field[1] is not None), b"", b"")
    )


def asking(**changes: bytes | None) -> bytes:
    named = {name.replace("_", "-").encode(): value for name, value in changes.items()}
    return head(b"GET /ws HTTP/1.1", {b"Host": b"a"}, ASKING, named)


def switching(**changes: bytes | None) -> bytes:
    named = {name.replace("_", "-").encode(): value for name, value in changes.items()}
    return head(b"HTTP/1.1 101 Switching Protocols", SWITCHING, named)


@pytest.fixture
def tunnel(make_rig):
    """A rig, a client and a backend's connection with a tunnel between them."""
    rig = make_rig(ScriptedBackend(stays_open=True))
    client = rig.client()
    client.stays_open = True
    rig.ask(asking(), client=client)
    (backend,) = rig.backend.connections
    backend.take()
    backend.send(switching())
    rig.network.run()
    assert client.take().startswith(b"HTTP/1.1 101 ")
    yield rig, client, backend
    for end in (client, backend):
        if not end.is_gone:
            end.reset()
    rig.network.run()


@pytest.mark.parametrize("piece", [0, 1])
def test_rule_27_a_right_request_and_a_right_answer_make_a_tunnel(make_rig, piece):
    rig = make_rig(ScriptedBackend([Step(send=switching() + b"\x81\x02hi", piece=piece)]))
    client = rig.ask(asking(), piece)
    assert client.received.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert client.received.endswith(b"\r\n\r\n\x81\x02hi")
    lines = client.received.lower().partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert b"connection: upgrade" in lines
    assert b"upgrade: websocket" in lines
    assert b"sec-websocket-accept: " + ACCEPT.lower() in lines
    request = rig.requests()[0]
    assert request.value(b"connection").lower() == b"upgrade"
    assert request.value(b"upgrade").lower() == b"websocket"
    assert request.value(b"sec-websocket-key") == KEY


@pytest.mark.parametrize(
    "changes",
    [
        {"Connection": None},
        {"Connection": b"close"},
        {"Upgrade": None},
        {"Upgrade": b"h2c"},
        {"Upgrade": b"websocket, h2c"},
        {"Sec_WebSocket_Key": None},
        {"Sec_WebSocket_Key": b"short"},
        {"Sec_WebSocket_Key": b"!" * 24},
        {"Sec_WebSocket_Version": None},
        {"Sec_WebSocket_Version": b"8"},
        {"Content_Length": b"0", "Sec_WebSocket_Version": b"14"},
    ],
)
def test_rule_27_a_wrong_request_is_an_ordinary_one(make_rig, changes):
    rig = make_rig(ScriptedBackend([Step(send=OK)]))
    client = rig.ask(asking(**changes))
    assert rig.answer(client).status == 200
    assert not {b"upgrade", b"connection"} & set(rig.request().names)


@pytest.mark.parametrize("start", [b"POST /ws HTTP/1.1", b"GET /ws HTTP/1.0"])
def test_rule_27_only_a_get_of_1_1_may_ask(make_rig, start):
    rig = make_rig(ScriptedBackend([Step(send=OK)]))
    client = rig.ask(head(start, {b"Host": b"a"}, ASKING))
    assert rig.answer(client).status == 200
    assert not {b"upgrade", b"connection"} & set(rig.request().names)


def test_rule_27_h2c_is_never_passed(rig):
    client = rig.ask(
        head(
            b"GET / HTTP/1.1",
            {b"Host": b"a", b"Connection": b"Upgrade, HTTP2-Settings"},
            {b"Upgrade": b"h2c", b"HTTP2-Settings": b"AAMAAABkAAQAoAAAAAIAAAAA"},
        )
    )
    assert rig.answer(client).status == 200
    assert not {b"upgrade", b"connection", b"http2-settings"} & set(rig.request().names)


@pytest.mark.parametrize(
    "changes",
    [
        {"Sec_WebSocket_Accept": None},
        {"Sec_WebSocket_Accept": b"x" + ACCEPT[1:]},
        {"Upgrade": b"h2c"},
        {"Upgrade": None},
        {"Connection": None},
    ],
)
def test_rule_27_a_wrong_101_is_502_and_no_tunnel(make_rig, changes):
    rig = make_rig(ScriptedBackend([Step(send=switching(**changes))]))
    client = rig.ask(asking())
    assert rig.answer(client).status == 502
    assert rig.backend.open_connections == []


@pytest.mark.parametrize("status", [b"200 OK", b"403 Forbidden", b"426 Upgrade Required"])
def test_rule_27_any_other_answer_leaves_the_connection_http(make_rig, status):
    rig = make_rig(ScriptedBackend([Step(send=b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")]))
    client = rig.ask(asking() + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    answers = rig.answers(client, "GET", "GET")
    assert [answer.status for answer in answers] == [int(status[:3])] * 2
    assert [request.start for request in rig.requests()] == [b"GET /ws", b"GET /next"]
    assert rig.requests()[1].values(b"upgrade") == []


def test_rule_27_what_comes_too_early_waits_for_the_101(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(asking() + b"\x81\x82frame")
    rig.ask(b"-and-more", client=client)
    (backend,) = rig.backend.connections
    assert b"frame" not in backend.received
    backend.send(switching())
    rig.network.run()
    assert backend.received.endswith(b"\r\n\r\n\x81\x82frame-and-more")


def test_rule_27_what_comes_too_early_is_bounded(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(asking())
    rig.ask(b"x" * 1_000_000, client=client)
    assert rig.held <= 2 * 64 * 1024
    rig.backend.connections[0].send(switching())
    rig.network.run()
    assert rig.backend.connections[0].received.endswith(b"\r\n\r\n" + b"x" * 1_000_000)


def test_rule_27_the_lease_is_held_as_long_as_the_tunnel(tunnel):
    rig, client, backend = tunnel
    assert rig.leases == 1
    rig.advance(10_000, step=100)
    assert (rig.leases, client.ended, backend.ended) == (1, "", "")
    client.close()
    backend.close()
    rig.network.run()
    assert rig.leases == 0


def test_rule_28_subprotocols_and_extensions_pass_both_ways(make_rig):
    rig = make_rig(
        ScriptedBackend(
            [
                Step(
                    send=switching(
                        Sec_WebSocket_Protocol=b"two",
                        Sec_WebSocket_Extensions=b"permessage-deflate; server_max_window_bits=10",
                        Set_Cookie=b"a=b",
                    )
                )
            ]
        )
    )
    client = rig.ask(
        asking(
            Sec_WebSocket_Protocol=b"one, two",
            Sec_WebSocket_Extensions=b"permessage-deflate; client_max_window_bits",
            Cookie=b"c=d",
        )
    )
    request = rig.requests()[0]
    assert request.value(b"sec-websocket-protocol") == b"one, two"
    assert request.value(b"sec-websocket-extensions") == b"permessage-deflate; client_max_window_bits"
    assert request.value(b"cookie") == b"c=d"
    assert b"\r\nSec-WebSocket-Protocol: two\r\n" in client.received
    assert (
        b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n" in client.received
    )
    assert b"\r\nSet-Cookie: a=b\r\n" in client.received


@pytest.mark.parametrize("piece", [0, 1])
def test_rule_28_octets_pass_both_ways_as_they_are(tunnel, piece):
    rig, client, backend = tunnel
    client.send(bytes(range(256)) * 4, piece)
    backend.send(bytes(reversed(range(256))) * 4, piece)
    rig.network.run()
    assert backend.received == bytes(range(256)) * 4
    assert client.received == bytes(reversed(range(256))) * 4


def test_rule_28_64_mib_pass_at_once(tunnel):
    rig, client, backend = tunnel
    client.send(b"x" * 2**26)
    rig.network.run()
    assert len(backend.received) == 2**26


@pytest.mark.parametrize("side", ["client", "backend"])
def test_rule_28_one_direction_may_end_before_the_other(tunnel, side):
    rig, *ends = tunnel
    first, second = ends if side == "client" else reversed(ends)
    first.send(b"last words")
    first.finish()
    rig.network.run()
    assert (second.received, second.ended, second.is_gone) == (b"last words", "closed", False)
    assert first.ended == ""
    second.send(b"answer")
    rig.network.run()
    assert first.received == b"answer"
    second.close()
    rig.network.run()
    assert (first.ended, first.is_gone) == ("closed", True)
    assert (rig.leases, rig.proxy.connections) == (0, set())


@pytest.mark.parametrize("side", ["client", "backend"])
def test_rule_28_a_reset_passes(tunnel, side):
    rig, *ends = tunnel
    first, second = ends if side == "client" else reversed(ends)
    first.reset()
    rig.network.run()
    assert second.ended == "reset"
    assert (rig.leases, rig.proxy.connections) == (0, set())


@pytest.mark.parametrize("side", ["client", "backend"])
def test_rule_28_a_close_passes_after_everything_that_was_sent(tunnel, side):
    rig, *ends = tunnel
    first, second = ends if side == "client" else reversed(ends)
    second.pause()
    first.send(b"x" * 1_000_000)
    rig.network.run()
    first.close()
    second.resume()
    rig.network.run()
    assert (len(second.received), second.ended) == (1_000_000, "closed")
    second.close()
    rig.network.run()
    assert (rig.leases, rig.proxy.connections) == (0, set())


def test_rule_28_a_peer_that_takes_nothing_does_not_keep_a_dead_tunnel_for_ever(tunnel):
    rig, client, backend = tunnel
    client.pause()
    backend.send(b"x" * 300_000)
    backend.close()
    rig.network.run()
    rig.advance(590, step=10)
    assert client.ended == ""
    rig.advance(30)
    assert (rig.leases, rig.proxy.connections) == (0, set())
    client.resume()
    rig.network.run()
    assert client.ended == "reset"


def test_rule_28_an_upgrade_is_tried_on_the_next_server_when_one_refuses(make_rig):
    rig = make_rig(None, ScriptedBackend([Step(send=switching())]))
    client = rig.ask(asking())
    assert client.received.startswith(b"HTTP/1.1 101 ")
    client.close()
    rig.network.run()
    assert rig.leases == 0


def test_rule_28_a_handshake_that_nobody_answers_is_504(make_rig):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(response=10))
    client = rig.ask(asking())
    rig.advance(11)
    assert rig.answer(client).status == 504
