"""WebSocket upgrades inside a stock Site."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from comfyproxy.core.http.frames import close_frame
from comfyproxy.proxy.accesslog import AccessLog
from comfyproxy.web.resource import RoundRobinResource

ASK = (
    b"GET /ws?clientId=1 HTTP/1.1\r\nHost: proxy.example\r\n"
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n\r\n"
)
FIELDS = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + FIELDS + b"\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\n" + FIELDS + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)


@pytest.fixture
def joined(rig: Any) -> tuple[Any, Any]:
    """A client and a server that have shaken hands, and have read that."""
    client = rig.ask(ASK)
    server = rig.accept()
    server.read()
    server.send(SWITCH)
    assert client.read() == SWITCHED
    return client, server


def test_the_server_is_asked_for_what_the_client_asked_for(rig: Any) -> None:
    rig.ask(ASK)
    received = rig.accept().read()
    for line in (b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-protocol: chat"):
        assert received.lower().count(b"\r\n" + line + b"\r\n") == 1


def test_octets_pass_both_ways(joined: tuple[Any, Any]) -> None:
    client, server = joined
    client.send(b"to the server")
    server.send(b"to the client")
    assert (server.read(), client.read()) == (b"to the server", b"to the client")


def test_what_comes_before_its_time_is_not_lost(rig: Any) -> None:
    client = rig.ask(ASK + b"very ")
    client.send(b"early ")
    server = rig.accept()
    server.read()
    client.send(b"indeed")
    server.send(SWITCH + b"at once")
    assert server.read() == b"very early indeed"
    assert client.read() == SWITCHED + b"at once"


def test_much_that_comes_before_its_time_is_waited_with(rig: Any) -> None:
    client = rig.ask(ASK)
    client.send(b"x" * 20_000)
    assert not client.is_read
    server = rig.accept()
    server.send(SWITCH)
    assert client.is_read
    assert server.read().endswith(b"\r\n\r\n" + b"x" * 20_000)


def test_each_side_waits_for_the_other(joined: tuple[Any, Any]) -> None:
    client, server = joined
    server.send(b"x" * 70_000)
    assert not server.is_read
    client.read()
    assert server.is_read
    client.send(b"x" * 70_000)
    assert not client.is_read
    server.read()
    assert client.is_read


def test_a_comfyui_server_is_always_read(make_rig: Callable[..., Any]) -> None:
    rig = make_rig(lambda reactor: RoundRobinResource("http://10.0.0.1:8188", reactor=reactor, comfyui=True))
    client = rig.ask(ASK)
    server = rig.accept()
    server.send(SWITCH)
    server.send(b"x" * 70_000)
    server.send(b"y")
    assert server.is_read
    client.read()
    assert client.read() == b"y"


def test_the_end_of_one_is_the_end_of_the_other(joined: tuple[Any, Any], rig: Any) -> None:
    client, server = joined
    assert rig.resource.balancer.pool.backends[0].leases == 1
    client.leave()
    assert server.how_closed == "closed"
    assert rig.resource.balancer.pool.backends[0].leases == 0


def test_a_reset_of_one_is_a_reset_of_the_other(joined: tuple[Any, Any]) -> None:
    client, server = joined
    server.leave(ConnectionLost())
    assert client.how_closed == "aborted"


def test_the_site_s_timeout_is_over(joined: tuple[Any, Any], rig: Any) -> None:
    client, _ = joined
    rig.reactor.pump([30] * 20)
    assert client.how_closed == ""


def test_nothing_is_left_when_it_is_over(joined: tuple[Any, Any], rig: Any) -> None:
    client, _ = joined
    client.leave()
    rig.resource.stop()
    rig.reactor.turn(3)
    assert rig.timers == []


def test_stopping_the_resource_ends_it(joined: tuple[Any, Any], rig: Any) -> None:
    client, server = joined
    client.read()
    stopping = rig.resource.stop()
    rig.reactor.turn(5)
    assert (stopping.called, client.read()) == (False, close_frame(1001, "The proxy is stopping."))
    rig.reactor.turn(1200)
    assert stopping.called
    assert (client.how_closed, server.how_closed) == ("aborted", "aborted")


def test_who_waits_for_the_end_of_the_request_is_told(make_rig: Callable[..., Any], rig: Any) -> None:
    told: list[Failure | None] = []

    class Watching(Resource):
        isLeaf = True

        def render(self, request: Any) -> Any:
            request.notifyFinish().addBoth(told.append)
            return rig.resource.render(request)

    client = make_rig(lambda reactor: Watching()).ask(ASK)
    rig.accept().send(SWITCH)
    assert told == []
    client.leave()
    assert len(told) == 1


def test_the_site_logs_it_once_as_what_it_is(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    monkeypatch.setattr(rig.site, "log", lambda request: logged.append((request.uri, request.code)))
    client = rig.ask(ASK)
    rig.accept().send(SWITCH)
    client.leave()
    assert logged == [(b"/ws?clientId=1", 101)]


def test_our_log_has_it_once(make_rig: Callable[..., Any]) -> None:
    finished: list[int] = []

    class Log(AccessLog):
        def finished(self, exchange: Any) -> None:
            finished.append(exchange.status)

    rig = make_rig(
        lambda reactor: RoundRobinResource(
            "http://10.0.0.1:8188", reactor=reactor, log=Log(reactor, lambda lines: None)
        )
    )
    client = rig.ask(ASK)
    rig.accept().send(SWITCH)
    client.leave()
    assert finished == [101]


def test_a_refusal_is_an_ordinary_answer_and_the_connection_stays_http(rig: Any) -> None:
    client = rig.ask(ASK)
    server = rig.accept()
    server.read()
    server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nDate: then\r\n\r\nno")
    assert client.read() == b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nDate: then\r\n\r\nno"
    client.send(b"GET / HTTP/1.1\r\nHost: proxy.example\r\n\r\n")
    assert rig.dialled == [("10.0.0.2", 8188)]


@pytest.mark.parametrize(
    "answer",
    [SWITCH.replace(b"s3pP", b"AAAA"), SWITCH.replace(b"Upgrade: websocket\r\n", b"Upgrade: tls\r\n")],
)
def test_a_false_switch_is_a_502_and_never_a_tunnel(rig: Any, answer: bytes) -> None:
    client = rig.ask(ASK)
    rig.accept().send(answer)
    assert client.read().startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    "request_",
    [
        ASK.replace(b"Version: 13", b"Version: 8"),
        ASK.replace(b"websocket", b"h2c"),
        ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ASK.replace(b"keep-alive, Upgrade", b"keep-alive"),
    ],
)
def test_what_does_not_ask_rightly_is_an_ordinary_request(rig: Any, request_: bytes) -> None:
    rig.ask(request_)
    assert b"\r\nUpgrade:" not in rig.accept().read()


def test_a_server_that_refuses_is_passed_over(rig: Any) -> None:
    client = rig.ask(ASK)
    rig.refuse()
    rig.accept().send(SWITCH)
    assert client.read() == SWITCHED


def test_half_close_passes(joined: tuple[Any, Any]) -> None:
    client, server = joined
    client.wire.protocol.readConnectionLost()
    assert server.wire.half_closed
    server.send(b"still here")
    assert client.read() == b"still here"


def test_a_connection_within_another_protocol_is_taken_from_that(rig: Any) -> None:
    """As under TLS: who talks to the Site's channel is a wrapper, and the socket belongs to the wrapper."""
    wrapping = WrappingFactory(Factory())
    wrapper = ProtocolWrapper(wrapping, rig.site.buildProtocol(None))
    client = type(rig.client())(rig.reactor, wrapper)
    client.send(ASK)
    server = rig.accept()
    server.read()
    server.send(SWITCH)
    client.send(b"hello")
    assert server.read() == b"hello"
    assert client.wire.protocol is wrapper
    client.leave()
    assert server.how_closed == "closed"


def test_the_connection_is_given_to_who_sees_messages(rig: Any) -> None:
    """As `comfyproxy.proxy.websockets.Bridge` does, which answers the handshake itself."""

    class Bridge:
        key_line = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        relay = None

        def bridge(self, exchange: Any) -> "Bridge":
            self.exchange = exchange
            return self

        def accepts(self, head: Any) -> bool:
            return True

        def join(self, *ignored: Any) -> None:
            self.end, self.held = self.exchange.front.give_away()
            self.end.transport.registerProducer(object(), True)
            self.end.transport.write(b"mine")

    bridge = rig.resource.proxy.bridges = Bridge()
    client = rig.ask(ASK + b"early")
    rig.accept().send(SWITCH)
    assert client.read() == b"mine"
    assert bridge.held == b"early"
    assert client.wire.protocol is bridge.end
