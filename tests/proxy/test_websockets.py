"""WebSockets by messages: the handshake, what passes, and how it ends, through a whole proxy in memory."""

import gc
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.uri import parse_uri

from comfyproxy.comfyui.router import make_router
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.http.headerrules import compile_rules, parse_rule
from comfyproxy.proxy.draining import Work
from comfyproxy.proxy.listeners import HTTPListener
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.proxy.transports import with_eager_writes
from comfyproxy.proxy.websocket_end import CLOSE_TIMEOUT
from comfyproxy.proxy.websockets import Bridges
from tests.proxy.websocket_peers import MIB, Backend, Client, Join, Message, frame, joining

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: comfy.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY
)
SLACK = 5
"""Seconds by which deadlines, whose resolution is a quarter of one, may be late after some looks."""

join = pytest.fixture(joining)


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Follows the memory that is taken; gives a function that says how many octets it was at most."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    most = 0
    try:
        yield lambda: most
    finally:
        most = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()


# Messages


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "ünïcödé ✓ 🎨",
        b"",
        b"\x00\xff" * 70,
        "x" * 125,
        "x" * 126,
        b"x" * 65535,
        b"x" * 65536,
        "é" * MIB,
    ],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_a_message_passes_both_ways_as_what_it_is(join: Join, message: Message) -> None:
    joined = join()
    joined.server.echoes = True
    joined.client.say(message)
    joined.run()
    assert joined.server.messages == [message]
    assert joined.client.messages == [message]


def test_messages_keep_their_order(join: Join) -> None:
    joined = join()
    joined.server.echoes = True
    messages: list[Message] = [f"{number}" * (number * 37 % 4000) for number in range(300)]
    for message in messages:
        joined.client.say(message)
    joined.run()
    assert joined.client.messages == messages


def test_a_message_in_fragments_arrives_as_one_message(join: Join) -> None:
    joined = join()
    joined.client.say("one", " two", "", " three")
    joined.server.say(b"a", b"b", b"")
    joined.run()
    assert joined.server.messages == ["one two three"]
    assert joined.client.messages == [b"ab"]


def test_a_text_may_be_cut_inside_a_character(join: Join) -> None:
    joined = join()
    joined.client.say("caf", "é"[:0], *[])
    joined.client.send(frame(1, b"caf\xc3", fin=False) + frame(9, b"mid") + frame(0, b"\xa9"))
    joined.run()
    assert joined.server.messages == ["caf", "café"]
    assert joined.client.pongs == [b"mid"]


def test_a_message_of_64_mib_passes_both_ways(join: Join) -> None:
    joined = join()
    joined.server.echoes = True
    picture = bytes(range(256)) * (64 * MIB // 256)
    joined.client.say(picture)
    joined.run()
    assert joined.client.messages == [picture]


def test_each_hop_answers_its_own_pings(join: Join) -> None:
    joined = join()
    joined.client.ping(b"are you there")
    joined.server.ping(b"and you")
    joined.run()
    assert (joined.client.pongs, joined.server.pongs) == ([b"are you there"], [b"and you"])
    assert (joined.client.pings, joined.server.pings) == (0, 0)


def test_fragments_of_nothing_take_no_memory(join: Join) -> None:
    joined = join()
    joined.client.send(frame(2, b"", fin=False) + frame(0, b"", fin=False) * 1000 + frame(0, b"end"))
    joined.run()
    assert joined.server.messages == [b"end"]


# The handshake


def test_the_subprotocol_that_the_backend_chooses_reaches_the_client(join: Join) -> None:
    backend = Backend(subprotocols=["graphql-ws"])
    joined = join(backend, client=Client(subprotocols=["other", "graphql-ws"]))
    assert joined.server.request.headers["Sec-WebSocket-Protocol"] == "other, graphql-ws"
    assert joined.client.protocol.subprotocol == "graphql-ws"


def test_a_backend_may_choose_no_subprotocol(join: Join) -> None:
    joined = join(client=Client(subprotocols=["other", "graphql-ws"]))
    assert joined.client.response.status_code == 101
    assert joined.client.protocol.subprotocol is None


def test_the_backends_handshake_has_a_key_and_extensions_of_its_own(join: Join) -> None:
    joined = join(client=Client(deflate=True))
    headers = joined.server.request.headers
    assert "permessage-deflate" in str(joined.client.response.headers["Sec-WebSocket-Extensions"])
    assert "Sec-WebSocket-Extensions" not in headers
    assert headers.get_all("Sec-WebSocket-Key") != [joined.client.protocol.key]


def test_what_the_backend_adds_to_its_101_reaches_the_client(join: Join) -> None:
    def change(headers: Headers) -> None:
        headers["Set-Cookie"] = "a=1; Path=/"
        headers["Set-Cookie"] = "b=2"
        headers["X-Name"] = "one"
        headers["Keep-Alive"] = "timeout=5"

    headers = join(Backend(change=change)).client.response.headers
    assert headers.get_all("Set-Cookie") == ["a=1; Path=/", "b=2"]
    assert headers["X-Name"] == "one"
    assert "Keep-Alive" not in headers
    for name in ("Upgrade", "Connection", "Sec-WebSocket-Accept"):
        assert len(headers.get_all(name)) == 1, name


def test_the_routes_rules_are_for_both_handshakes(join: Join) -> None:
    def change(headers: Headers) -> None:
        headers["X-Secret"] = "1"

    joined = join(Backend(change=change), opened=False)
    (route,) = joined.rig.proxy.routes.routes
    request = compile_rules([parse_rule("set X-Who: {client}", "request")])
    response = compile_rules([parse_rule("remove X-Secret", "response")])
    joined.rig.proxy.routes = RouteTable([replace(route, request_rules=request, response_rules=response)])
    joined.open()
    assert joined.server.request.headers["X-Who"] == "127.0.0.1"
    assert "X-Secret" not in joined.client.response.headers
    joined.server.echoes = True
    joined.client.say("hello")
    joined.run()
    assert joined.client.messages == ["hello"]


def test_the_routers_cookie_and_client_id_are_in_the_handshake(join: Join) -> None:
    joined = join(opened=False)
    joined.rig.balancer.router = make_router("client", joined.rig.pool)
    joined.open()
    assert joined.client.response.headers["Set-Cookie"].startswith("comfyproxy=")
    assert joined.server.request.path.startswith("/ws?clientId=")


def test_a_page_that_refuses_reaches_the_client_and_the_connection_stays_http(join: Join) -> None:
    page = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\nX-Why: no\r\n\r\nforbidden"
    joined = join(Backend(is_silent=True), client=Client(), opened=False)
    joined.client.raw = True
    joined.open()
    joined.server.send(page)
    joined.run()
    assert joined.client.received.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert joined.client.take().endswith(b"\r\n\r\nforbidden")
    joined.client.send(b"GET /page HTTP/1.1\r\nHost: comfy.example\r\n\r\n")
    joined.run()
    asked = joined.backend.connections[-1].request
    assert asked.path == "/page"
    assert "Upgrade" not in asked.headers


def test_a_backend_that_refuses_the_connection_means_the_next_one(join: Join) -> None:
    joined = join(None, Backend())
    joined.client.say("hello")
    joined.run()
    assert joined.server.messages == ["hello"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Sec-WebSocket-Accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("Sec-WebSocket-Protocol", "never-offered"),
        ("Upgrade", "h2c"),
    ],
)
def test_a_101_that_agrees_to_something_else_is_a_bad_gateway(join: Join, name: str, value: str) -> None:
    def change(headers: Headers) -> None:
        if name in headers:
            del headers[name]
        headers[name] = value

    joined = join(Backend(change=change), client=Client(subprotocols=["offered"]))
    assert joined.client.response.status_code == 502
    assert joined.server.ended == "reset"
    assert joined.rig.leases == 0


@pytest.mark.parametrize("is_comfyui", [False, True])
def test_frames_behind_the_101_are_not_lost(join: Join, is_comfyui: bool) -> None:
    glued = frame(1, b"status", masked=False) + frame(2, b"preview", masked=False) + frame(1, b"half")[:1]
    joined = join(Backend(glued=glued), comfyui=is_comfyui)
    joined.server.send(frame(1, b"half", masked=False)[1:])
    joined.run()
    assert joined.client.messages == ["status", b"preview", "half"]


def test_a_101_with_a_close_frame_behind_it_opens_and_closes(join: Join) -> None:
    joined = join(Backend(glued=frame(8, struct.pack("!H", 1013) + b"full", masked=False)))
    assert joined.client.response.status_code == 101
    assert joined.client.closed_with == (1013, "full")


def test_frames_behind_the_request_wait_for_the_101(join: Join) -> None:
    joined = join(Backend(is_silent=True), opened=False)
    joined.client.raw = True
    joined.open()
    joined.client.send(frame(1, b"early"))
    joined.run()
    assert joined.server.messages == []
    joined.server.answer()
    joined.run()
    assert joined.server.messages == ["early"]


def test_a_client_that_sends_much_before_the_101_is_read_again_after_it(join: Join) -> None:
    joined = join(Backend(is_silent=True))
    joined.client.send(frame(9, b"p" * 125) * 1000)
    joined.run()
    joined.client.send(frame(9, b"p" * 125) * 1000 + frame(1, b"last"))
    joined.run()
    assert joined.rig.held < 140_000
    joined.server.answer()
    joined.run()
    assert joined.server.messages == ["last"]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_before_the_101_takes_the_backends_connection_with_it(
    join: Join, how: Literal["close", "reset"]
) -> None:
    joined = join(Backend(is_silent=True))
    getattr(joined.client, how)()
    joined.run()
    assert joined.server.ended == "reset"
    assert joined.rig.leases == 0


@pytest.mark.parametrize("how", ["close", "reset", "finish"])
def test_a_101_that_crosses_a_client_that_leaves_leads_to_nothing_left(join: Join, how: str) -> None:
    joined = join(Backend(is_silent=True))
    getattr(joined.client, how)()
    joined.server.answer()
    joined.run()
    assert joined.server.ended
    assert joined.rig.leases == 0


# Compression on the client's hop


def test_long_texts_are_compressed_for_a_client_that_offers_it_and_nothing_else_is(join: Join) -> None:
    joined = join(client=Client(deflate=True))
    sent: list[Message] = ["{}" * 2000, b"\x00" * 4000, "short" * 10, "z" * 2 * MIB]
    sizes = []
    for message in sent:
        before = joined.client.transport.line.incoming.carried
        joined.server.say(message)
        joined.run()
        sizes.append(joined.client.transport.line.incoming.carried - before)
    assert joined.client.messages == sent
    assert sizes[0] < 400
    assert sizes[1:] == [4004, 52, 2 * MIB + 10]


def test_compressed_messages_of_the_client_reach_the_backend_as_they_were(join: Join) -> None:
    joined = join(client=Client(deflate=True))
    for message in ("{}" * 2000, b"\x00" * 4000, "tiny", ""):
        joined.client.say(message)
    joined.client.say("a" * 500, "b" * 500)
    joined.run()
    assert joined.server.messages == ["{}" * 2000, b"\x00" * 4000, "tiny", "", "a" * 500 + "b" * 500]
    assert all(not frame.rsv1 for frame in joined.server.frames)


@pytest.mark.parametrize(
    ("offers", "accepted"),
    [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover"),
        ("permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10"),
        ('permessage-deflate; server_max_window_bits="10"', "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; server_max_window_bits=\u00b2", None),
        ("x-webkit-deflate-frame, permessage-bzip2", None),
        (";,=;;", None),
    ],
)
def test_an_offer_of_compression_is_taken_or_declined_and_never_an_error(
    join: Join, offers: str, accepted: str | None
) -> None:
    joined = join(opened=False)
    joined.client.raw = True
    joined.client.connectionMade = lambda: None  # type: ignore[method-assign]
    joined.open()
    line = b"Sec-WebSocket-Extensions: %b\r\n\r\n" % offers.encode("latin-1")
    joined.client.send(REQUEST[:-2] + line)
    joined.run()
    head = joined.client.received.decode("latin-1").split("\r\n")
    assert head[0] == "HTTP/1.1 101 Switching Protocols"
    answers = [line.partition(": ")[2] for line in head if line.startswith("Sec-WebSocket-Extensions")]
    assert answers == ([accepted] if accepted else [])


def test_small_windows_and_no_takeover_are_kept_to(join: Join) -> None:
    offers = "permessage-deflate; server_max_window_bits=9; server_no_context_takeover"
    joined = join(opened=False)
    factory = ClientPerMessageDeflateFactory(server_no_context_takeover=True, server_max_window_bits=9)
    joined.client.protocol = ClientProtocol(
        parse_uri("ws://comfy.example/ws"), extensions=[factory], max_size=None
    )
    joined.open()
    assert joined.client.response.headers["Sec-WebSocket-Extensions"] == ";".join(
        ["permessage-deflate", *sorted(offers.split(";")[1:], reverse=True)]
    )
    texts: list[Message] = [str(number) * 300 for number in range(5)]
    for text in texts:
        joined.server.say(text)
    joined.run()
    assert joined.client.messages == texts


# Closing

CODES = [
    (1000, ""),
    (1000, "done"),
    (1001, "leaving"),
    (1003, ""),
    (1008, "not you"),
    (1011, "broke"),
    (1012, ""),
    (1013, "later"),
    (1014, "gateway"),
    (3000, "x" * 123),
    (4999, "ünïcödé"),
    (None, ""),
]


@pytest.mark.parametrize(("code", "reason"), CODES)
@pytest.mark.parametrize("is_comfyui", [False, True])
def test_what_the_backend_closes_with_reaches_the_client(
    join: Join, code: int | None, reason: str, is_comfyui: bool
) -> None:
    joined = join(comfyui=is_comfyui)
    joined.server.say("last words")
    joined.server.say_goodbye(code, reason)
    joined.run()
    assert joined.client.messages == ["last words"]
    assert joined.client.closed_with == joined.server.closed_with == (code, reason)
    assert joined.client.ended == "closed"


@pytest.mark.parametrize(("code", "reason"), CODES)
def test_what_the_client_closes_with_reaches_the_backend(join: Join, code: int | None, reason: str) -> None:
    joined = join()
    joined.client.say("last words")
    joined.client.say_goodbye(code, reason)
    joined.run()
    assert joined.server.messages == ["last words"]
    assert joined.client.closed_with == joined.server.closed_with == (code, reason)
    assert joined.client.ended == joined.server.ended == "closed"
    assert joined.rig.leases == 0


def test_both_may_close_at_once(join: Join) -> None:
    joined = join()
    joined.client.say_goodbye(4001, "me")
    joined.server.say_goodbye(4002, "you")
    joined.run()
    assert joined.client.is_gone
    assert joined.server.is_gone
    assert joined.client.closed_with[0] in (4001, 4002)
    assert joined.server.closed_with[0] in (4001, 4002)


@pytest.mark.parametrize("how", ["close", "reset", "finish"])
def test_a_backend_that_vanishes_is_a_bad_gateway_to_the_client(join: Join, how: str) -> None:
    joined = join()
    joined.server.say("last words")
    joined.run()
    getattr(joined.server, how)()
    joined.run()
    assert joined.client.messages == ["last words"]
    assert joined.client.closed_with == (1014, "The connection to the server was lost.")
    assert joined.client.is_gone
    assert joined.rig.leases == 0


@pytest.mark.parametrize("how", ["close", "reset", "finish"])
def test_a_client_that_vanishes_is_going_away_to_the_backend(join: Join, how: str) -> None:
    joined = join()
    joined.client.say("last words")
    joined.run()
    getattr(joined.client, how)()
    joined.run()
    assert joined.server.messages == ["last words"]
    assert joined.server.closed_with == (1001, "The client is gone.")
    assert joined.server.is_gone
    assert joined.rig.leases == 0


def test_the_lease_lasts_until_the_backend_has_closed_too(join: Join) -> None:
    joined = join()
    joined.server.ignores_close = True
    joined.client.say_goodbye(1000)
    joined.run()
    assert joined.client.is_gone
    assert joined.rig.leases == 1
    joined.advance(CLOSE_TIMEOUT + SLACK)
    assert joined.server.ended == "reset"
    assert joined.rig.leases == 0


@pytest.mark.parametrize("is_comfyui", [False, True])
def test_a_proxy_that_stops_says_1001_to_both(join: Join, is_comfyui: bool) -> None:
    joined = join(comfyui=is_comfyui)
    joined.server.say("last")
    joined.run()
    (connection,) = joined.rig.proxy.connections
    assert connection.work is (Work.EVENTS if is_comfyui else Work.WEBSOCKET)
    connection.end()
    joined.run()
    assert joined.client.messages == ["last"]
    assert joined.client.closed_with == joined.server.closed_with == (1001, "The proxy is stopping.")
    assert (joined.client.is_gone, joined.rig.leases) == (True, 0)


def test_a_client_that_never_answers_a_close_frame_is_cut_off(join: Join) -> None:
    joined = join()
    joined.client.ignores_close = True
    joined.server.say_goodbye(1000)
    joined.run()
    assert joined.server.is_gone
    assert not joined.client.is_gone
    joined.advance(CLOSE_TIMEOUT + SLACK)
    assert joined.client.ended == "reset"
    assert joined.rig.leases == 0


def test_a_backend_that_says_goodbye_and_stays_is_cut_off(join: Join) -> None:
    joined = join()
    joined.server.raw = True
    joined.server.send(frame(8, struct.pack("!H", 1000), masked=False))
    joined.run()
    assert joined.client.closed_with == (1000, "")
    assert not joined.server.ended
    joined.advance(CLOSE_TIMEOUT + SLACK)
    assert joined.server.ended == "reset"


def test_what_is_sent_to_a_peer_that_has_said_goodbye_is_dropped(join: Join) -> None:
    joined = join()
    joined.client.say_goodbye(1000)
    joined.server.say("too late")
    joined.server.ping(b"too late")
    joined.run()
    assert joined.client.messages == []
    assert joined.client.is_gone


# What breaks the protocol (rule 29)

VIOLATIONS = {
    "reserved bit": (frame(1, b"x", rsv=2), 1002),
    "compressed bit without the extension": (frame(1, b"x", rsv=4), 1002),
    "reserved opcode": (frame(3, b"x"), 1002),
    "reserved control opcode": (frame(11, b"x"), 1002),
    "long ping": (frame(9, b"x" * 126), 1002),
    "huge ping": (b"\x89\xff" + struct.pack("!Q", 2**40) + bytes(4) + b"x" * 1000, 1002),
    "ping in fragments": (frame(9, b"x", fin=False), 1002),
    "continuation of nothing": (frame(0, b"x"), 1002),
    "message inside a message": (frame(1, b"x", fin=False) + frame(1, b"y"), 1002),
    "close frame of one octet": (frame(8, b"x"), 1002),
    "length not minimal": (b"\x81\xfe\x00\x01" + bytes(4) + b"x", 1002),
    "length of 64 bits": (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1002),
    "bad UTF-8": (frame(1, b"caf\xe9!"), 1007),
    "bad UTF-8 in a fragment": (frame(1, b"ok", fin=False) + frame(0, b"\xff"), 1007),
    "UTF-8 that ends early": (frame(1, b"caf\xc3"), 1007),
    "surrogate": (frame(1, b"\xed\xa0\x80"), 1007),
    "bad UTF-8 in a reason": (frame(8, struct.pack("!H", 1000) + b"\xff"), 1007),
    **{
        f"close code {code}": (frame(8, struct.pack("!H", code)), 1002) for code in (0, 999, 1004, 1005, 1006)
    },
    **{f"close code {code}": (frame(8, struct.pack("!H", code)), 1002) for code in (1015, 1016, 2999, 5000)},
}


def unmasked(octets: bytes) -> bytes:
    """The same frames as a server sends them: without the mask bit and the mask of zeros."""
    out = b""
    while octets:
        length = octets[1] & 0x7F
        extra = {126: 2, 127: 8}.get(length, 0)
        size = int.from_bytes(octets[2 : 2 + extra], "big") if extra else length
        head, body = octets[: 2 + extra], octets[6 + extra :]
        out += bytes([head[0], head[1] & 0x7F]) + head[2:] + body[:size]
        octets = body[size:]
    return out


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("piece", [0, 1])
def test_a_client_that_breaks_the_protocol_hears_which_part_of_it(join: Join, name: str, piece: int) -> None:
    octets, code = VIOLATIONS[name]
    joined = join()
    joined.client.say("before")
    joined.client.send(octets + frame(1, b"after"), piece)
    joined.run()
    assert joined.client.closed_with[0] == code
    assert joined.client.is_gone
    assert joined.server.messages == ["before"]
    assert joined.server.closed_with == (1001, "The client sent what may not be sent.")
    assert joined.rig.leases == 0


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_backend_that_breaks_the_protocol_is_told_and_the_client_gets_a_bad_gateway(
    join: Join, name: str
) -> None:
    octets, code = VIOLATIONS[name]
    joined = join()
    joined.server.say("before")
    joined.server.send(unmasked(octets) + frame(1, b"after", masked=False))
    joined.run()
    assert joined.server.closed_with[0] == code
    assert joined.client.messages == ["before"]
    assert joined.client.closed_with == (1014, "The server sent what may not be sent.")
    assert joined.server.is_gone
    assert joined.rig.leases == 0


@pytest.mark.parametrize("who", ["client", "server"])
def test_who_breaks_the_protocol_instead_of_answering_a_close_frame_is_done_with(
    join: Join, who: str
) -> None:
    joined = join()
    peer, other = (joined.client, joined.server) if who == "client" else (joined.server, joined.client)
    peer.raw = True
    other.say_goodbye(4000, "bye")
    joined.run()
    peer.send(frame(3, masked=who == "client"))
    joined.run()
    assert peer.ended == "closed"
    assert other.closed_with == (4000, "bye")
    assert joined.rig.leases == 0


def test_masks_are_for_clients_alone(join: Join) -> None:
    joined = join()
    joined.client.send(frame(1, b"x", masked=False))
    joined.run()
    assert joined.client.closed_with == (1002, "unmasked client-to-server frame")
    joined = join()
    joined.server.send(frame(1, b"x", masked=True))
    joined.run()
    assert joined.server.closed_with[0] == 1002


@pytest.mark.parametrize("in_fragments", [False, True])
def test_a_message_of_the_client_that_is_too_large_ends_with_1009(join: Join, in_fragments: bool) -> None:
    joined = join(max_message=10_000)
    joined.client.say(b"x" * 10_000)
    joined.client.say(*([b"y" * 6000] * 2 if in_fragments else [b"y" * 10_001]))
    joined.run()
    assert joined.client.closed_with[0] == 1009
    assert joined.server.messages == [b"x" * 10_000]
    assert joined.server.closed_with[0] == 1001


def test_a_message_of_the_backend_that_is_too_large_ends_with_1009_there_and_1014_here(join: Join) -> None:
    joined = join(max_message=10_000)
    joined.server.say(b"x" * 10_000)
    joined.server.say(b"y" * 10_001)
    joined.run()
    assert joined.server.closed_with[0] == 1009
    assert joined.client.messages == [b"x" * 10_000]
    assert joined.client.closed_with[0] == 1014


def test_a_message_counts_as_what_it_is_inflated(join: Join) -> None:
    joined = join(client=Client(deflate=True), max_message=10_000)
    joined.client.say(b"x" * 10_000)
    joined.client.say(b"x" * 10_001)
    joined.run()
    assert joined.client.closed_with[0] == 1009
    assert joined.server.messages == [b"x" * 10_000]


def test_octets_that_do_not_inflate_end_with_1007(join: Join) -> None:
    joined = join(client=Client(deflate=True))
    joined.client.send(frame(2, b"\xff\xff\xff\xff", rsv=4))
    joined.run()
    assert joined.client.closed_with[0] == 1007


def test_a_message_that_says_it_will_be_too_large_is_refused_before_it_comes(join: Join) -> None:
    joined = join(max_message=10_000)
    joined.client.send(b"\x82\xff" + struct.pack("!Q", 20 * MIB) + bytes(4) + b"x")
    joined.run()
    assert joined.client.closed_with[0] == 1009


def test_a_small_message_cannot_inflate_to_a_huge_one(join: Join) -> None:
    joined = join(client=Client(deflate=True), max_message=10_000)
    compressor = zlib.compressobj(wbits=-15)
    deflated = b"".join(compressor.compress(bytes(MIB)) for _ in range(200))
    with traced() as peak:
        joined.client.send(frame(2, deflated, rsv=4))
        joined.run()
    assert joined.client.closed_with[0] == 1009
    assert peak() < 20 * MIB


def test_what_floods_in_behind_a_violation_is_not_kept_and_ends_soon(join: Join) -> None:
    joined = join()
    joined.client.stays_open = True
    joined.client.raw = True
    joined.client.send(frame(3))
    joined.run()
    joined.client.send(b"\x82\xff" + struct.pack("!Q", 64 * MIB) + bytes(4))
    joined.run()
    with traced() as peak:
        for _ in range(20):
            joined.client.send(bytes(MIB))
            joined.run()
    assert peak() < 8 * MIB
    joined.advance(CLOSE_TIMEOUT + SLACK)
    assert joined.client.ended
    assert not joined.rig.proxy.connections


# On real sockets


class Telling(Client):
    """A client that tells when it may speak, has a message, and is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.may_speak: Deferred[None] = Deferred()
        self.has_message: Deferred[None] = Deferred()
        self.has_gone: Deferred[None] = Deferred()

    def shaken(self, event: Response) -> None:
        super().shaken(event)
        self.may_speak.callback(None)

    def take_frame(self, frame: Frame) -> None:
        super().take_frame(frame)
        if len(self.messages) == 1 and not self.has_message.called:
            self.has_message.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.has_gone.callback(None)


@pytest.mark.parametrize("wrap", [with_eager_writes, lambda reactor: reactor], ids=["eager", "stock"])
@pytest_twisted.ensureDeferred
async def test_on_loopback_a_large_message_comes_back_and_the_goodbye_too(
    running_reactor: Any, wrap: Callable[[Any], Any]
) -> None:
    reactor = wrap(running_reactor)
    backend = Backend()
    backend.change = lambda headers: setattr(backend.socket, "echoes", True)
    servers = reactor.listenTCP(0, backend, interface="127.0.0.1")
    pool = Pool("default", [Address("http", "127.0.0.1", servers.getHost().port)])
    proxy = Proxy(reactor, RouteTable([Route(b"/", Balancer(pool), Timeouts())]))
    proxy.bridges = Bridges(reactor)
    port = reactor.listenTCP(0, HTTPListener(proxy), interface="127.0.0.1")
    client = Telling()
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), client)
    picture = bytes(range(256)) * (8 * MIB // 256)
    await client.may_speak
    client.say(picture)
    await client.has_message
    assert client.messages == [picture]
    client.say_goodbye(4000, "thanks")
    await client.has_gone
    assert client.closed_with == (4000, "thanks")
    for listening in (port, servers):
        await maybeDeferred(listening.stopListening)
    await proxy.close()
    assert [backend.leases for backend in pool.backends] == [0]
