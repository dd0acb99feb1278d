"""WebSockets by messages, through a whole proxy in memory: the handshake, and what passes."""

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from websockets.datastructures import Headers
from websockets.frames import Frame
from websockets.http11 import Response

from comfyproxy.comfyui.router import make_router
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.http.headerrules import compile_rules, parse_rule
from comfyproxy.proxy.listeners import HTTPListener
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.proxy.transports import with_eager_writes
from comfyproxy.proxy.websockets import Bridges
from tests.proxy.websocket_peers import MIB, Backend, Client, Join, Message, frame, joining

join = pytest.fixture(joining)


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
