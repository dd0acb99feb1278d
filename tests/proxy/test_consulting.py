"""What an exchange does when its router answers by itself; what holds for all fronts is in
``tests/proxy_rules/test_routers.py``."""

import pytest

from comfyproxy.core.balancing.operations import Ask
from comfyproxy.core.balancing.routing import NeedBody, Operate, Respond
from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.core.http.headerrules import compile_rules, parse_rule
from comfyproxy.proxy import consulting
from comfyproxy.testing import ScriptedBackend

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Router:
    """Decides by ``decide``, which gets the head and the body."""

    drop = frozenset()
    message_key = None

    def __init__(self, decide):
        self.decide = decide

    def route(self, head, body, now):
        return self.decide(head, body)


@pytest.fixture
def rig_with(make_rig):
    """Makes a rig whose router decides so, and whose backend is silent."""
    return lambda decide, **settings: make_rig(ScriptedBackend(), router=Router(decide), **settings)


def test_a_client_that_takes_a_long_answer_too_slowly_is_cut_off(rig_with):
    body = b"x" * 3_000_000
    limits, timeouts = Limits(min_rate=1000), Timeouts(idle=60)
    rig = rig_with(lambda head, body_: Respond(200, body), limits=limits, timeouts=timeouts)
    client = rig.client()
    client.pause()
    rig.ask(GET, client=client)
    rig.advance(130)
    assert rig.proxy.connections == set()
    client.resume()
    rig.network.run()
    assert len(client.received) < 3_000_000


def test_requests_behind_a_long_answer_are_answered_after_it(rig_with):
    rig = rig_with(lambda head, body: Respond(200, head.target * 100_000))
    client = rig.client()
    client.pause()
    rig.ask(GET + GET.replace(b"/ ", b"/b ") + GET.replace(b"/ ", b"/c "), client=client)
    client.resume()
    rig.network.run()
    bodies = [part.partition(b"\r\n\r\n")[2] for part in client.received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"/" * 100_000, b"/b" * 100_000, b"/c" * 100_000]


def test_the_route_s_rules_for_answers_hold_for_ours(rig_with):
    rig = rig_with(lambda head, body: Respond(200, b"", fields=b"X-Gone: 1\r\n"))
    (route,) = rig.proxy.routes.routes
    rules = compile_rules(
        parse_rule(text, "response") for text in ("set X-Server: a{server}b", "remove X-Gone")
    )
    object.__setattr__(route, "response_rules", rules)
    client = rig.ask(GET)
    assert b"\r\nX-Server: ab\r\n" in client.received
    assert b"X-Gone" not in client.received


def test_an_operation_that_outlasts_its_client_ends_with_the_proxy(rig_with, make_rig):
    rig = rig_with(None)
    ends = []

    def operation():
        try:
            yield Ask(rig.pool.backends[0], b"POST", b"/prompt")
        finally:
            ends.append("closed")

    rig.balancer.router.decide = lambda head, body: Operate(operation(), outlasts=True)
    client = rig.ask(GET)
    client.close()
    rig.network.run()
    assert ends == []
    assert rig.leases == 1
    for running in tuple(rig.proxy.operations):
        running.stop()
    assert ends == ["closed"]
    assert rig.leases == 0


def test_an_operation_is_closed_when_the_proxy_stops_waiting(rig_with):
    rig = rig_with(None)
    ends = []

    def operation():
        try:
            yield Ask(rig.pool.backends[0], b"GET", b"/queue")
        finally:
            ends.append("closed")

    rig.balancer.router.decide = lambda head, body: Operate(operation())
    client = rig.ask(GET)
    for connection in tuple(rig.proxy.connections):
        connection.end()
    rig.network.run()
    assert ends == ["closed"]
    assert b" 503 " in client.received


def upload(size):
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size


def test_all_bodies_that_are_held_together_are_bounded(rig_with, monkeypatch):
    monkeypatch.setattr(consulting, "MAX_GATHERED", 1_000_000)
    rig = rig_with(
        lambda head, body: NeedBody(10_000_000) if body is None else Respond(200, b"%d" % len(body))
    )
    first = rig.ask(upload(900_000) + b"x" * 800_000)
    second = rig.ask(upload(500_000) + b"x" * 400_000)
    assert second.received.startswith(b"HTTP/1.1 503 ")
    assert rig.ask(upload(1000) + b"x" * 1000).received.endswith(b"\r\n\r\n1000"), "small ones pass"
    first.send(b"x" * 100_000)
    rig.network.run()
    assert first.received.endswith(b"\r\n\r\n900000")
    third = rig.ask(upload(900_000) + b"x" * 800_000)
    third.close()
    rig.network.run()
    assert rig.proxy.gathered == 0
