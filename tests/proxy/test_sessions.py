"""Sessions and their clients on a network in memory: how both come and go."""

import pytest
from twisted.internet.defer import ensureDeferred

from comfyproxy.core.balancing.routing import Refuse
from comfyproxy.core.config import Timeouts
from tests.proxy.session_peers import STATUS, settings


@pytest.fixture
def make():
    yield from settings()


def test_a_client_is_given_to_its_session(make):
    one = make(log="json")
    client = one.client()
    assert client.response.headers["X-Own"] == "1"
    (end,) = one.session.clients
    end.send(b"hello", False)
    end.send(b"\x00\x01", True)
    client.say('{"type": "feature_flags"}')
    one.rig.network.run()
    assert client.messages == ["hello", b"\x00\x01"]
    assert one.session.heard == [b'{"type": "feature_flags"}']
    client.say_goodbye(1001)
    one.rig.advance(1)
    assert one.session.clients == []
    assert client.is_gone
    assert b'"status": 101' in one.rig.logged


def test_a_client_that_offers_compression_has_it(make):
    one = make()
    client = one.client(deflate=True)
    one.session.clients[0].send(b"x" * 5000, False)
    one.rig.network.run()
    assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
    assert client.messages == ["x" * 5000]


def test_a_message_larger_than_comfyui_takes_is_1009(make):
    one = make()
    client = one.client()
    client.say("x" * (4 * 1024 * 1024 + 1))
    one.rig.advance(1)
    assert client.closed_with[0] == 1009
    assert one.session.clients == []
    assert one.session.heard == []


def test_what_a_session_says_may_be_larger_than_what_its_client_may_say(make):
    one = make()
    client = one.client()
    (end,) = one.session.clients
    end.send(b"p" * (6 * 1024 * 1024), True)
    end.send(b"behind", False)
    one.rig.advance(1)
    assert [len(message) for message in client.messages] == [6 * 1024 * 1024, 6]
    client.say("x" * (4 * 1024 * 1024 + 1))
    one.rig.advance(1)
    assert client.closed_with[0] == 1009


def test_a_session_may_say_goodbye_to_its_client(make):
    one = make()
    client = one.client()
    one.session.clients[0].close(4000, b"enough")
    one.rig.advance(1)
    assert client.closed_with == (4000, "enough")
    assert one.session.clients == []


def test_a_client_that_vanishes_is_noticed(make):
    one = make(timeouts=Timeouts(websocket_ping=10, websocket_dead=20))
    client = one.client()
    client.raw = True
    one.rig.advance(60)
    assert one.session.clients == []


@pytest.mark.parametrize("leaves", ["says goodbye", "sends no more", "breaks the rules"])
def test_a_client_that_leaves_is_gone_before_anything_else_is_heard(make, leaves):
    """What comes in the same turn of the reactor is for who comes back."""
    one = make()
    client = one.client()
    one.want(0)
    there = []
    one.session.from_backend = lambda *heard: there.append(list(one.session.clients))
    if leaves == "says goodbye":
        client.say_goodbye(1000)
    elif leaves == "sends no more":
        client.transport.loseWriteConnection()
    else:
        client.transport.write(b"\xff\xff\xff\xff")
    one.backends[0].socket.say(STATUS)
    one.rig.network.run()
    assert there == [[]]


def test_who_does_not_ask_for_a_websocket_is_told_so(make):
    answer = make().rig.ask(b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n").received
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_session_that_is_over_leaves_its_backends(make):
    one = make()
    one.want(0)
    one.session.over = True
    one.rig.advance(1)
    assert one.backends[0].socket.is_gone


def test_a_session_that_is_forgotten_leaves_its_backends(make):
    one = make()
    one.want(0)
    one.router.sessions.clear()
    one.rig.advance(1)
    assert one.backends[0].socket.is_gone


def test_a_session_that_fails_spoils_nothing(make, flush_logged_errors):
    one = make()
    client = one.client()
    one.session.fails = True
    client.say("x")
    one.rig.advance(1)
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    assert one.session.times_due > 2
    assert len(one.session.clients) == 1


def test_what_a_slow_client_cannot_take_gives_way_to_what_is_newer(make):
    one = make()
    client = one.client()
    client.pause()
    (end,) = one.session.clients
    for number in range(200):
        end.send(b"%03d" % number + b"x" * 20_000, True, key="preview")
        one.rig.network.run()
    end.send(b"last", False)
    one.rig.network.run()
    client.resume()
    one.rig.network.run()
    assert client.messages[-1] == "last"
    assert client.messages[-2].startswith(b"199")
    assert len(client.messages) < 60


def test_a_client_that_is_too_far_behind_is_cut_off_and_its_backend_read_on(make):
    one = make()
    one.rig.proxy.sessions.backlog = 100_000
    client = one.client()
    one.want(0)
    client.pause()
    for _ in range(40):
        for end in one.session.clients:
            end.send(b"x" * 20_000, True)
        one.rig.network.run()
    assert one.session.clients == []
    one.backends[0].socket.say(STATUS)
    one.rig.network.run()
    assert one.session.heard[-1] == (0, STATUS.encode(), False)


def test_when_the_proxy_stops_everybody_is_told(make):
    one = make()
    client = one.client()
    one.want(0)
    ensureDeferred(one.rig.proxy.drain(5).run())
    one.rig.advance(3)
    assert client.closed_with == (1001, "The proxy is stopping.")
    assert not one.backends[0].socket.is_gone
    ensureDeferred(one.rig.proxy.close())
    one.rig.advance(2)
    assert one.backends[0].socket.closed_with[0] == 1000
    assert one.backends[0].socket.is_gone


def test_a_backend_that_says_no_goodbye_does_not_keep_the_proxy_from_closing(make):
    one = make()
    one.want(0)
    one.backends[0].socket.ignores_close = True
    closed = ensureDeferred(one.rig.proxy.close())
    one.rig.advance(2)
    assert closed.called
    assert one.backends[0].socket.is_gone


def test_a_router_that_is_gone_leaves_no_connections(make):
    one = make()
    client = one.client()
    one.want(0)
    one.rig.proxy.background.follow([])
    one.rig.advance(1)
    assert client.closed_with[0] == 1001
    assert one.backends[0].socket.is_gone
    assert one.session.clients == []


def test_a_router_may_refuse_a_websocket(make):
    one = make()
    one.router.route = lambda head, body, now: Refuse(403, "Not here.")
    client = one.client()
    assert client.response.status_code == 403
