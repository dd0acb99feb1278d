"""What routers do beside requests: when they are asked, and how it ends."""

from dataclasses import replace

import pytest

from comfyproxy.core.balancing.operations import Ask
from comfyproxy.core.balancing.routes import RouteTable
from comfyproxy.core.http.headerrules import compile_rules, parse_rule
from comfyproxy.proxy.background import LEAVE, Background
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK
from tests.proxy.session_peers import Router, Session


class Working(Router):
    """Has an operation to begin each time that it is told to, and remembers when it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.operations = []
        self.always = None
        self.settled = []

    def background(self, now):
        self.asked.append(now)
        if self.always is not None:
            self.always()
        operations, self.operations = self.operations, []
        return operations

    def settle(self, now):
        self.settled.append(now)
        operations, self.operations = self.operations, []
        return operations


@pytest.fixture
def working(make_rig):
    rig = make_rig(ScriptedBackend(), router=Working())
    rig.proxy.background.follow([rig.balancer])
    yield rig
    rig.proxy.background.stop()


def asking(rig, came):
    try:
        came.append((yield Ask(rig.pool.backends[0], b"GET", b"/queue")))
    except GeneratorExit:
        came.append("closed")
        raise


def test_a_router_is_asked_for_its_work_four_times_a_second(working):
    working.advance(10)
    assert 39 <= len(working.balancer.router.asked) <= 42


def test_its_operations_are_carried_out(working):
    came = []
    working.balancer.router.operations = [asking(working, came), asking(working, came)]
    working.advance(1)
    for connection in working.backend.connections:
        connection.send(OK)
    working.network.run()
    assert [reply.status for reply in came] == [200, 200]
    assert working.proxy.operations == set()


def test_a_router_that_says_so_is_asked_at_once(working):
    router = working.balancer.router
    working.advance(1.1)
    count = len(router.asked)
    router.wake()
    router.wake()
    assert len(router.asked) == count
    working.network.run()
    assert len(router.asked) == count + 1


def test_a_router_that_always_says_so_leaves_time_for_others(working):
    router = working.balancer.router
    router.always = lambda: router.wake()
    working.advance(1, step=0.001)
    assert len(router.asked) <= 60


def test_a_router_that_fails_is_asked_again(working, flush_logged_errors):
    router = working.balancer.router
    router.always = lambda: 1 / 0
    working.advance(0.6)
    count = len(flush_logged_errors(ZeroDivisionError))
    assert count >= 2
    router.always = None
    working.advance(0.3)
    assert len(router.asked) > count


def test_an_operation_that_fails_is_logged(working, flush_logged_errors):
    def failing():
        yield ()
        raise ZeroDivisionError

    working.balancer.router.operations = [failing()]
    working.advance(0.5)
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


def test_a_reload_that_keeps_the_router_changes_nothing(working):
    came = []
    router = working.balancer.router
    router.operations = [asking(working, came)]
    working.advance(0.3)
    working.proxy.background.follow([working.balancer])
    working.backend.connections[0].send(OK)
    working.advance(1.1)
    assert [reply.status for reply in came] == [200]
    router.wake()
    count = len(router.asked)
    working.network.run()
    assert len(router.asked) == count + 1


def test_the_work_of_a_router_that_is_gone_ends(working):
    came = []
    router = working.balancer.router
    router.operations = [asking(working, came)]
    working.advance(0.3)
    router.wake()
    count = len(router.asked)
    working.proxy.background.follow([])
    assert came == ["closed"]
    working.advance(2)
    router.wake()
    working.advance(1)
    assert len(router.asked) == count
    assert working.network.getDelayedCalls() == []


@pytest.fixture
def holding(working):
    """A router that has something in hand, and is taken away."""
    router = working.balancer.router
    router.in_hand = 2
    working.proxy.background.follow([])
    return router


def test_a_router_that_is_taken_away_brings_to_an_end_what_it_has_in_hand(working, holding):
    came = []
    holding.operations = [asking(working, came)]
    session = Session()
    holding.sessions.append(session)
    working.advance(1)
    working.backend.connections[0].send(OK)
    working.network.run()
    assert ([reply.status for reply in came], holding.asked, session.times_due > 2) == ([200], [], True)
    holding.in_hand = 0
    working.advance(1)
    count = len(holding.settled)
    working.advance(1)
    assert len(holding.settled) == count


def test_what_a_router_asks_that_is_taken_away_goes_by_its_rules_still(make_rig):
    rig = make_rig(ScriptedBackend(), router=Working())
    (route,) = rig.proxy.routes.routes
    rules = compile_rules([parse_rule("set X-Key: secret", "request")])
    rig.proxy.routes = RouteTable([replace(route, request_rules=rules)])
    rig.proxy.background.follow([rig.balancer])
    router = rig.balancer.router
    router.in_hand, router.operations = 1, [asking(rig, [])]
    rig.proxy.routes = RouteTable([])
    rig.proxy.background.follow([])
    rig.advance(1)
    assert b"X-Key: secret\r\n" in rig.backend.connections[0].received
    rig.proxy.background.stop()


def test_what_nobody_takes_is_given_up_and_said(working, holding, caplog):
    working.advance(LEAVE - 1)
    assert caplog.messages == []
    working.advance(2)
    assert caplog.messages == ["Pool default is gone with 2 that no server took."]
    assert working.network.getDelayedCalls() == []


def test_one_that_comes_back_meanwhile_does_its_work_again(working, holding):
    working.proxy.background.follow([working.balancer])
    working.advance(1)
    assert (len(holding.asked) > 2, holding.settled) == (True, [])
    holding.in_hand = 0
    working.advance(1)
    count = len(holding.asked)
    working.advance(1)
    assert len(holding.asked) > count


def test_one_that_leaves_takes_no_websockets_of_its_successor_with_it(working, monkeypatch):
    former, said = working.balancer.router, []
    monkeypatch.setattr(working.proxy.sessions, "forget", said.append)
    former.in_hand = 1
    former.sessions.append(Session())
    working.balancer.router = Working()
    working.proxy.background.follow([working.balancer])
    assert said == [working.balancer]
    former.in_hand = 0
    working.advance(1)
    working.balancer.router.in_hand = 1
    assert (said, working.proxy.background.in_hand) == ([working.balancer], 1)


def test_in_a_drain_nothing_new_begins(working):
    router = working.balancer.router
    working.advance(1)
    count = len(router.asked)
    working.proxy.drain(30)
    router.wake()
    working.advance(1)
    assert (len(router.asked), len(router.settled) > 3) == (count, True)


def test_what_was_asked_for_by_a_client_goes_on_without_the_background(working):
    came = []
    router = working.balancer.router
    router.operation = lambda: asking(working, came)
    working.ask(b"GET /operate HTTP/1.1\r\nHost: a\r\n\r\n")
    working.proxy.background.follow([])
    assert came == []


def test_another_router_of_the_same_pool_takes_over(working):
    former = working.balancer.router
    working.balancer.router = Working()
    working.proxy.background.follow([working.balancer])
    working.advance(1)
    count = len(former.asked)
    former.wake()
    working.advance(1)
    assert len(former.asked) == count
    assert len(working.balancer.router.asked) > 4


def test_sessions_are_looked_after_while_there_are_any(working):
    session = Session()
    working.balancer.router.sessions.append(session)
    working.advance(2)
    assert 7 <= session.times_due <= 9


def test_without_such_a_router_there_is_no_timer(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=OK)]))
    background = Background(rig.proxy)
    background.follow([rig.balancer])
    assert rig.network.getDelayedCalls() == []
    assert not rig.proxy.has_sessions
