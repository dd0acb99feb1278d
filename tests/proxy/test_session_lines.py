"""A session's connections to its backends on a network in memory: when they are made, kept and ended."""

import itertools

import pytest
from twisted.logger import capturedLogs

from comfyproxy.core.balancing.backend import AdminState
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.health import Health, Status
from comfyproxy.core.balancing.operations import OpenSocket
from comfyproxy.core.config import Timeouts
from comfyproxy.core.http.headerrules import compile_rules, parse_rule
from comfyproxy.testing import ScriptedBackend, Step
from tests.proxy.session_peers import STATUS, Session, settings
from tests.proxy.websocket_peers import Backend, frame


@pytest.fixture
def make():
    yield from settings()


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


def test_a_server_in_maintenance_is_not_dialled(make):
    one = make()
    one.rig.pool.set_admin(one.pool[0], AdminState.MAINT, 0)
    one.want(0)
    one.rig.advance(5)
    assert one.backends[0].connections == []
    one.rig.pool.set_admin(one.pool[0], AdminState.READY, 5)
    one.rig.advance(1)
    assert len(one.backends[0].connections) == 1


def test_a_backend_s_connection_is_pinged_and_given_up_when_nobody_answers(make):
    one = make(timeouts=Timeouts(websocket_ping=10, websocket_dead=20))
    one.want(0)
    socket = one.backends[0].socket
    one.rig.advance(15)
    assert socket.pings
    socket.raw = True
    one.rig.advance(60)
    assert socket.is_gone
    assert len(one.backends[0].connections) > 1


@pytest.mark.parametrize("data", [b"\x8f\x00", b"\x81\x02\xff\xff", b"\x81\x7f" + b"\xff" * 8])
def test_a_backend_that_breaks_the_protocol_is_left(make, data):
    one = make()
    one.want(0)
    one.backends[0].socket.transport.write(data)
    one.rig.advance(1)
    assert "lost 0" in one.session.heard
    assert len(one.backends[0].connections) == 2


def test_a_backend_that_says_goodbye_is_asked_again(make):
    one = make()
    one.want(0)
    one.backends[0].socket.say_goodbye(1001)
    one.rig.advance(1)
    assert one.session.heard == ["opened 0", "lost 0", "opened 0"]


def test_what_a_backend_says_behind_its_101_is_heard(make):
    one = make(Backend(glued=frame(1, STATUS.encode(), masked=False)))
    one.want(0)
    assert one.session.heard == ["opened 0", (0, STATUS.encode(), False)]


def test_what_waits_for_a_backend_that_does_not_read_is_bounded(make):
    one = make()
    one.want(0)
    one.backends[0].socket.pause()
    send = one.session.sends[one.pool[0]]
    for _ in range(200):
        send(b"x" * 100_000, True)
        one.rig.network.run()
    one.backends[0].socket.resume()
    one.rig.network.run()
    assert "lost 0" in one.session.heard


def test_the_rules_of_the_route_hold_for_the_handshake(make):
    one = make()
    (route,) = one.rig.proxy.routes.routes
    rules = compile_rules([parse_rule("set Authorization: Bearer x", "request")])
    object.__setattr__(route, "request_rules", rules)
    one.want(0)
    assert one.backends[0].socket.request.headers["Authorization"] == "Bearer x"


def test_an_attempt_that_is_not_wanted_any_more_is_broken_off(make):
    one = make(Backend(is_silent=True))
    one.want(0)
    one.want()
    assert one.backends[0].socket.is_gone
    assert one.pool[0].leases == 0
    assert one.session.heard == ["lost 0"]


def test_an_operation_that_is_closed_waits_no_more_for_its_socket(make):
    one = make()
    came = one.operate(OpenSocket(one.session, one.pool[0]))
    for running in tuple(one.rig.proxy.operations):
        running.stop()
    one.rig.advance(7)
    assert came == []
    assert one.backends[0].socket.is_gone


def test_a_server_that_a_reload_took_out_keeps_its_connections_while_they_are_wanted(make):
    one = make()
    backend = one.pool[0]
    one.want(0)
    one.rig.balancer.apply(diff(one.rig.pool.addresses, ()))
    one.rig.proxy.forget_removed()
    one.rig.advance(2)
    assert not one.backends[0].socket.is_gone
    one.session.wanted = []
    one.rig.advance(2)
    assert one.backends[0].socket.is_gone
    assert backend.leases == 0


def test_what_goes_wrong_again_and_again_is_told_once(make):
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno"
    steps = [Step(send=answer % status) for status in (404, 404, 404, 403, 403, 403)]
    one = make(ScriptedBackend(steps))
    with capturedLogs() as logged:
        one.want(0)
        one.rig.advance(12)
    told = [str(entry["error"]) for entry in logged if "error" in entry]
    assert [status for text in told for status in ("404", "403") if status in text] == ["404", "403"]
    one.want()


def test_failures_are_news_after_a_connection(make):
    sessions = make().rig.proxy.sessions
    backend = make().pool[0]
    assert [sessions.is_news(backend, why) for why in "aabba"] == [True, False, True, False, False]
    assert sum(sessions.is_news(backend, str(number)) for number in range(100)) == 6
    sessions.forget_failure(backend)
    assert sessions.is_news(backend, "b")


def test_a_server_that_cannot_be_reached_is_not_given_up_for_it_by_turns(make):
    one = make(None)
    one.want(0)
    one.rig.advance(30)
    assert one.pool[0].failures <= 1
    assert not one.pool[0].ejected


def test_a_server_that_checks_found_down_is_left_to_them(make):
    one = make()
    one.pool[0].health, one.pool[0].usable = Health(Status.DOWN), False
    one.want(0)
    one.rig.advance(5)
    assert one.backends[0].connections == []
    came = one.operate(OpenSocket(one.session, one.pool[0]))
    one.backends[0].socket.say(STATUS)
    one.rig.network.run()
    assert came == [True]


def test_a_server_that_gets_work_whatever_checks_found_is_tried(make):
    one = make()
    one.pool[0].health = Health(Status.DOWN, known=False)
    one.want(0)
    one.rig.advance(5)
    assert one.backends[0].connections == []
    one.pool[0].health = Health(Status.DOWN)
    one.rig.advance(5)
    assert len(one.backends[0].connections) == 1


def test_very_many_connections_are_not_begun_all_at_once(make, monkeypatch):
    monkeypatch.setattr("comfyproxy.proxy.sessions.AT_ONCE", 2)
    one = make(*(Backend() for _ in range(5)))
    one.session.wanted = list(one.pool)
    counts = []
    for _ in range(4):
        one.rig.advance(0.25)
        counts.append(sum(len(backend.connections) for backend in one.backends))
    assert counts[-1] == 5
    assert max(later - sooner for sooner, later in itertools.pairwise([0, *counts])) == 2


def test_of_very_many_servers_each_is_tried_less_often(make, monkeypatch):
    one = make()
    sessions = one.rig.proxy.sessions
    assert sessions.longest_rest == 10
    monkeypatch.setattr("comfyproxy.proxy.sessions.ATTEMPTS", 0.05)
    one.want(0)
    assert sessions.longest_rest == 20
