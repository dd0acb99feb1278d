"""Sessions on a network in memory: their clients, their backends, and how both come and go."""

import json

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import ClientFactory

from comfyproxy.core.balancing.operations import OpenSocket
from comfyproxy.core.balancing.routing import Default, Join, Operate, Refuse, Respond
from comfyproxy.core.config import Timeouts
from comfyproxy.testing import Rig
from tests.proxy.websocket_peers import Backend, Client

STATUS = json.dumps({"type": "status", "data": {"status": {}, "sid": "x"}})


class Session:
    """Wants what it is told to, and remembers everything."""

    def __init__(self, client_id="c1"):
        self.client_id = client_id
        self.wanted = []
        self.heard = []
        self.clients = []
        self.sends = {}
        self.greeted = set()
        self.over = False
        self.fails = False
        self.times_due = 0

    def attach(self, client, now):
        self.clients.append(client)

    def detach(self, client, now):
        self.clients.remove(client)

    def from_client(self, client, payload, is_binary, now):
        self.heard.append(payload)
        if self.fails:
            raise ZeroDivisionError

    def opened(self, backend, send, now):
        self.sends[backend] = send
        self.heard.append(f"opened {backend.index}")

    def from_backend(self, backend, payload, is_binary, now):
        self.heard.append((backend.index, payload, is_binary))
        self.greeted.add(backend)

    def lost(self, backend, why, now):
        self.greeted.discard(backend)
        self.heard.append(f"lost {backend.index}")

    def is_greeted(self, backend):
        return backend in self.greeted

    def due(self, now):
        self.times_due += 1

    def is_over(self, now):
        return self.over


class Router:
    """Gives every WebSocket to its session, and takes an operation at ``/operate``."""

    drop = frozenset()

    def __init__(self, *sessions):
        self.sessions = list(sessions)
        self.operation = None
        self.wake = None

    def route(self, head, body, now):
        if head.path == b"/operate":
            return Operate(self.operation())
        return Join(self.sessions[0], b"X-Own: 1\r\n") if head.path == b"/ws" else Default()

    def place(self, head, body, backend, now):
        return None

    def cookies(self, value):
        return value

    def message_key(self, payload, is_binary):
        raise AssertionError

    def learn(self, answer, body, backend, now):
        raise AssertionError

    def background(self, now):
        return ()


class Setting:
    """A session, its router, its backends, and a proxy between."""

    def __init__(self, *backends, **settings):
        self.backends = backends or (Backend(),)
        self.session = Session()
        self.router = Router(self.session)
        self.rig = Rig(*self.backends, router=self.router, comfyui=True, **settings)
        self.rig.proxy.background.follow([self.rig.balancer])
        self.peers = []

    @property
    def pool(self):
        return self.rig.pool.backends

    def client(self, **options):
        client = Client(**options)
        factory = ClientFactory.forProtocol(lambda: client)
        factory.noisy = False
        self.rig.network.connectTCP("127.0.0.1", 8080, factory)
        self.rig.network.run()
        self.peers.append(client)
        return client

    def want(self, *numbers):
        self.session.wanted = [self.pool[number] for number in numbers]
        self.rig.advance(0.5)

    def operate(self, *steps):
        """Begin an operation that takes ``steps``; returns what came of them as they come."""
        came = []

        def operation():
            for step in steps:
                came.append((yield step))
            return Respond(200, b"")

        self.router.operation = operation
        self.rig.ask(b"GET /operate HTTP/1.1\r\nHost: a\r\n\r\n")
        return came

    def close(self):
        for peer in self.peers:
            if not peer.is_gone:
                peer.close()
        self.session.over = True
        self.rig.advance(12)
        return self.rig.close()


@pytest.fixture
def make():
    made = []

    def setting(*backends, **settings):
        made.append(Setting(*backends, **settings))
        return made[-1]

    yield setting
    assert [left for one in made for left in one.close()] == []


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


def test_who_does_not_ask_for_a_websocket_is_told_so(make):
    answer = make().rig.ask(b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n").received
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_wanted_backend_has_a_connection_with_the_client_s_id(make):
    one = make()
    one.session.client_id = "a b/ü"
    one.want(0)
    server = one.backends[0].socket
    assert server.request.path == "/ws?clientId=a%20b%2F%C3%BC"
    assert server.request.headers["Host"] == "10.0.0.1:8188"
    server.say(STATUS)
    server.say(b"\x00\x00\x00\x01x")
    one.session.sends[one.pool[0]](b"hello", False)
    one.rig.network.run()
    assert one.session.heard == ["opened 0", (0, STATUS.encode(), False), (0, b"\x00\x00\x00\x01x", True)]
    assert server.messages == ["hello"]
    assert one.pool[0].leases == one.pool[0].exempt == 1


def test_a_backend_that_is_not_wanted_any_more_is_left_with_a_goodbye(make):
    one = make(Backend(), Backend())
    one.want(0, 1)
    one.want(1)
    assert one.backends[0].socket.closed_with[0] == 1000
    assert one.backends[0].socket.is_gone
    assert not one.backends[1].socket.is_gone
    assert one.session.heard[-1] == "lost 0"


def test_a_connection_that_is_lost_is_made_anew_less_and_less_often(make):
    one = make()
    one.want(0)
    counts = []
    for seconds in (2, 4, 20, 20):
        one.rig.advance(seconds)
        counts.append(len(one.backends[0].connections))
        one.backends[0].connections[-1].close()
    times = []
    for _ in range(12):
        before = len(one.backends[0].connections)
        one.backends[0].connections[-1].close()
        start = one.rig.network.seconds()
        while len(one.backends[0].connections) == before:
            one.rig.advance(0.25)
        times.append(one.rig.network.seconds() - start)
    assert times[-1] == pytest.approx(10, abs=0.6)
    assert times == sorted(times)


def test_a_server_that_answers_soon_again_is_tried_soon_again(make):
    one = make()
    one.want(0)
    for _ in range(8):
        socket = one.backends[0].connections[-1]
        socket.say(STATUS)
        one.rig.advance(0.25)
        socket.close()
        one.rig.advance(0.75)
        assert one.backends[0].connections[-1] is not socket


def test_a_session_that_wants_a_backend_anew_waits_for_the_end_of_the_connection_before(make):
    one = make()
    one.want(0)
    first = one.backends[0].socket
    first.ignores_close = True
    one.want()
    one.want(0)
    one.rig.advance(2)
    assert len(one.backends[0].connections) == 1
    first.close()
    one.rig.advance(1)
    assert len(one.backends[0].connections) == 2


def test_a_backend_that_never_says_goodbye_is_cut_off(make):
    one = make()
    one.want(0)
    one.backends[0].socket.ignores_close = True
    one.want()
    one.rig.advance(7)
    assert one.backends[0].socket.is_gone
    one.want(0)
    assert len(one.backends[0].connections) == 2


def test_what_is_no_websocket_is_no_connection(make):
    one = make(Backend(change=lambda headers: headers.__setitem__("Sec-WebSocket-Extensions", "x")))
    one.want(0)
    assert "lost 0" in one.session.heard
    assert "opened 0" not in one.session.heard


@pytest.mark.parametrize("status", [200, 403, 503])
def test_a_backend_that_answers_otherwise_is_tried_again_later(make, status):
    from comfyproxy.testing import ScriptedBackend, Step

    answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status
    backend = ScriptedBackend([Step(send=answer), Step(send=answer)])
    one = make(backend)
    one.want(0)
    assert one.session.heard[0] == "lost 0"
    one.rig.advance(1)
    assert len(backend.requests) >= 2
    assert one.pool[0].leases == 0
    one.want()


def test_to_open_a_socket_is_to_wait_for_the_first_status(make):
    one = make()
    came = one.operate(OpenSocket(one.session, one.pool[0]))
    assert came == []
    one.backends[0].socket.say(STATUS)
    one.rig.network.run()
    assert came == [True]
    again = one.operate(OpenSocket(one.session, one.pool[0]))
    assert again == [True]
    assert len(one.backends[0].connections) == 1


def test_an_opened_socket_stays_until_its_session_may_want_it(make):
    one = make()
    one.operate(OpenSocket(one.session, one.pool[0]))
    one.backends[0].socket.say(STATUS)
    one.rig.advance(4)
    assert not one.backends[0].socket.is_gone
    one.rig.advance(3)
    assert one.backends[0].socket.is_gone


def test_a_socket_that_is_wanted_once_closes_as_soon_as_it_is_not(make):
    one = make()
    one.operate(OpenSocket(one.session, one.pool[0]))
    one.backends[0].socket.say(STATUS)
    one.want(0)
    one.want()
    assert one.backends[0].socket.is_gone


def test_a_socket_that_cannot_be_had_is_told_at_once(make):
    one = make(None)
    assert one.operate(OpenSocket(one.session, one.pool[0])) == [False]


def test_a_backend_that_greets_nobody_is_given_up_in_time(make):
    one = make()
    came = one.operate(OpenSocket(one.session, one.pool[0], timeout=3))
    one.rig.advance(2.9)
    assert came == []
    one.rig.advance(1)
    assert came == [False]


def test_an_opening_waits_for_the_end_of_a_connection_that_is_closing(make):
    one = make()
    one.want(0)
    first = one.backends[0].socket
    first.say(STATUS)
    first.ignores_close = True
    one.want()
    came = one.operate(OpenSocket(one.session, one.pool[0]))
    one.rig.advance(1)
    assert came == []
    first.close()
    one.rig.advance(1)
    one.backends[0].connections[1].say(STATUS)
    one.rig.network.run()
    assert came == [True]


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


def test_another_session_with_the_same_id_begins_with_a_connection_of_its_own(make):
    one = make()
    one.want(0)
    other = Session()
    other.wanted = [one.pool[0]]
    one.router.sessions[:] = [other]
    one.rig.advance(1)
    assert one.backends[0].connections[0].is_gone
    assert len(one.backends[0].connections) == 2
    assert one.session.heard == ["opened 0", "lost 0"]
    assert other.heard[-1] == "opened 0"
    other.over = True


def test_a_server_that_is_down_is_not_dialled(make):
    one = make()
    one.pool[0].takes_pins = False
    one.want(0)
    one.rig.advance(5)
    assert one.backends[0].connections == []
    one.pool[0].takes_pins = True
    one.rig.advance(1)
    assert len(one.backends[0].connections) == 1


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
