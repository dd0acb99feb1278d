"""How often, how long and after which answers another server is asked, and of how many requests."""

import json
from dataclasses import replace

import pytest

from comfyproxy.core.balancing.retries import FLOOR, RetryBudget
from comfyproxy.core.balancing.routes import RouteTable
from comfyproxy.core.balancing.routing import Default, NeedBody, Pin, Search
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"


def ok() -> ScriptedBackend:
    return ScriptedBackend([Step(send=OK)])


def dying() -> ScriptedBackend:
    """A backend that takes a request and ends the connection without an answer."""
    return ScriptedBackend([Step(end="close")])


class Router:
    """Decides as it is told once it has seen the body."""

    drop = frozenset()
    message_key = None

    def __init__(self, decide=Default):
        self.decide = decide

    def route(self, head, body, now):
        return NeedBody(1000) if body is None and head.body else self.decide()

    def place(self, head, body, backend, now):
        return None

    def cookies(self, value):
        return value


@pytest.fixture
def routed(make_rig):
    """Makes rigs whose only route has these settings besides."""

    def make(*backends, route, **settings):
        rig = make_rig(*backends, **settings)
        (given,) = rig.proxy.routes.routes
        rig.proxy.routes = RouteTable([replace(given, **route)])
        return rig

    return make


def answering(status: int, body: bytes = b"no", *fields: bytes, end: str = "") -> ScriptedBackend:
    head = [b"HTTP/1.1 %d X" % status, b"Content-Length: %d" % len(body), *fields]
    return ScriptedBackend([Step(send=b"\r\n".join((*head, b"", b"")) + body, end=end)])


def asked(rig) -> list[int]:
    """How often each server was asked."""
    return [len(backend.requests) if backend is not None else 0 for backend in rig.backends]


@pytest.mark.parametrize(("retries", "status"), [(0, 503), (1, 503), (2, 200)])
def test_no_more_servers_are_tried_than_the_route_allows(routed, retries, status):
    rig = routed(None, None, ok(), route={"retries": retries})
    assert rig.answer(rig.ask(POST)).status == status


def test_ten_other_servers_are_tried_unless_said_otherwise(make_rig):
    rig = make_rig(*[None] * 10, ok())
    assert rig.answer(rig.ask(GET)).status == 200
    rig = make_rig(*[None] * 11, ok())
    assert rig.answer(rig.ask(GET)).status == 503


@pytest.mark.parametrize(("retry", "status"), [(9, 503), (11, 200), (0, 200)])
def test_no_other_server_is_tried_long_after_the_first_failure(make_rig, retry, status):
    rig = make_rig(ok(), ok(), ok(), ok(), timeouts=Timeouts(connect=5, retry=retry))
    rig.network.silent |= {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    client = rig.ask(GET)
    rig.advance(30)
    assert rig.answer(client).status == status


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE"])
def test_an_answer_that_counts_as_a_failure_means_another_server(routed, status, method):
    failing = answering(status, b"" if method == b"HEAD" else b"no")
    good = OK[:-2] if method == b"HEAD" else OK
    rig = routed(failing, ScriptedBackend([Step(send=good)]), route={"retry_on": frozenset((502, 503, 504))})
    answer = rig.answer(rig.ask(GET.replace(b"GET", method)), method.decode())
    assert (answer.status, asked(rig)) == (200, [1, 1])


def test_other_answers_are_passed_on(routed):
    rig = routed(answering(500), ok(), route={"retry_on": frozenset((502, 503))})
    assert rig.answer(rig.ask(GET)).status == 500
    assert asked(rig) == [1, 0]


def test_unless_asked_for_every_answer_is_passed_on(make_rig):
    rig = make_rig(answering(503), ok())
    assert rig.answer(rig.ask(GET)).status == 503
    assert asked(rig) == [1, 0]


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_what_may_not_be_repeated_is_not_for_an_answer_either(routed, method):
    rig = routed(answering(503), ok(), route={"retry_on": frozenset((503,))})
    assert rig.answer(rig.ask(POST.replace(b"POST", method))).status == 503
    assert asked(rig) == [1, 0]


def test_what_has_sent_its_body_is_not_either(routed):
    rig = routed(answering(503, end="finish"), ok(), route={"retry_on": frozenset((503,))})
    client = rig.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    assert rig.answer(client).status == 503
    assert asked(rig) == [1, 0]


def test_a_body_that_is_at_hand_is_sent_again(routed):
    rig = routed(
        ScriptedBackend([Step(after=b"body", send=b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")]),
        ScriptedBackend([Step(after=b"body", send=OK)]),
        route={"retry_on": frozenset((503,))},
        router=Router(),
    )
    assert rig.answer(rig.ask(POST.replace(b"POST", b"PUT"))).status == 200


def test_the_last_answer_is_passed_on_as_it_came_when_no_server_is_left(routed):
    first, last = answering(503, b"first"), answering(502, b"the last", b"Retry-After: 7", b"X-Its: own")
    rig = routed(first, last, route={"retry_on": frozenset((502, 503))})
    answer = rig.answer(rig.ask(GET))
    assert (answer.status, answer.body) == (502, b"the last")
    assert (answer.value(b"retry-after"), answer.value(b"x-its")) == (b"7", b"own")
    assert asked(rig) == [1, 1]
    assert rig.leases == 0


@pytest.mark.parametrize("others", [(None,), (None, dying()), (dying(), None)])
def test_an_answer_is_better_than_none_and_the_log_says_whose_it_is(routed, others):
    rig = routed(
        answering(503, b"busy", b"Retry-After: 7"), *others, route={"retry_on": frozenset((503,))}, log="json"
    )
    answer = rig.answer(rig.ask(GET))
    assert (answer.status, answer.body, answer.value(b"retry-after")) == (503, b"busy", b"7")
    rig.advance(1)
    line = json.loads(rig.logged)
    assert (line["status"], line["server"]) == (503, "http://10.0.0.1:8188")


def test_an_answer_that_is_still_coming_is_given_up_for_another_servers(routed):
    rig = routed(
        ScriptedBackend([Step(send=b"HTTP/1.1 503 X\r\nContent-Length: 999999\r\n\r\nlong")]),
        ok(),
        route={"retry_on": frozenset((503,))},
    )
    assert rig.answer(rig.ask(GET)).status == 200
    assert rig.backends[0].open_connections == []


def test_an_answer_to_what_belongs_to_one_server_is_final(routed):
    rig = routed(
        answering(503),
        ok(),
        route={"retry_on": frozenset((503,))},
        router=(router := Router()),
    )
    router.decide = lambda: Pin(rig.pool.backends[0], strict=True)
    assert rig.answer(rig.ask(GET)).status == 503
    assert asked(rig) == [1, 0]


def test_each_such_answer_counts_against_the_attempts(routed):
    rig = routed(*[answering(503) for _ in range(5)], route={"retry_on": frozenset((503,)), "retries": 2})
    assert rig.answer(rig.ask(GET)).status == 503
    assert sum(asked(rig)) == 3


def test_no_answer_in_time_means_another_server_where_that_is_wanted(routed):
    rig = routed(ScriptedBackend(), ok(), route={"retries_timeouts": True}, timeouts=Timeouts(response=5))
    client = rig.ask(GET)
    rig.advance(6)
    assert rig.answer(client).status == 200
    assert rig.backends[0].open_connections == []


def test_over_a_connection_that_was_kept_too(routed):
    once = ScriptedBackend([Step(send=OK), Step(after=b"never")])
    rig = routed(once, ok(), route={"retries_timeouts": True}, timeouts=Timeouts(response=5))
    rig.ask(GET)
    rig.ask(GET)
    client = rig.ask(GET)
    rig.advance(6)
    assert rig.answer(client).status == 200
    assert [len(backend.connections) for backend in rig.backends] == [1, 1]


def test_a_post_is_not_sent_twice_for_that(routed):
    rig = routed(ScriptedBackend(), ok(), route={"retries_timeouts": True}, timeouts=Timeouts(response=5))
    client = rig.ask(POST)
    rig.advance(6)
    assert rig.answer(client).status == 504
    assert asked(rig)[1] == 0


def test_two_servers_that_are_silent_for_so_long_are_enough(routed):
    rig = routed(
        *[ScriptedBackend() for _ in range(4)],
        route={"retries_timeouts": True},
        timeouts=Timeouts(response=5),
    )
    client = rig.ask(GET)
    rig.advance(20)
    assert rig.answer(client).status == 504
    assert sum(len(backend.connections) for backend in rig.backends) == 2


def test_what_was_repeated_is_counted_only_as_long_as_it_runs(make_rig):
    rig = make_rig(dying(), ScriptedBackend())
    client = rig.ask(GET)
    assert rig.balancer.budget.in_flight == 1
    rig.backends[1].connections[0].send(OK)
    rig.network.run()
    assert rig.answer(client).status == 200
    assert rig.balancer.budget.in_flight == 0


class NoBudget(RetryBudget):
    """Lets nothing be sent again."""

    def take(self, live):
        return False


def test_without_budget_a_request_is_not_sent_again(make_rig):
    rig = make_rig(dying(), dying(), ok())
    rig.balancer.budget = NoBudget()
    assert rig.answer(rig.ask(GET)).status == 502
    assert asked(rig) == [1, 0, 0]


def test_what_was_never_sent_needs_no_budget(make_rig):
    rig = make_rig(None, None, ok())
    rig.balancer.budget = NoBudget()
    assert rig.answer(rig.ask(GET)).status == 200


def test_all_that_a_dying_server_had_goes_to_the_others(make_rig):
    """More than any share of them: nothing is lost that may be repeated."""
    rig = make_rig(ScriptedBackend(), ScriptedBackend())
    clients = [rig.ask(GET) for _ in range(20)]
    for connection in tuple(rig.backends[0].connections):
        connection.reset()
    rig.network.run()
    assert len(rig.backends[1].connections) == 20
    for connection in rig.backends[1].connections:
        connection.send(OK)
    rig.network.run()
    assert [rig.answer(client).status for client in clients] == [200] * 20


def test_an_outage_is_not_doubled_by_requests_that_are_sent_again(make_rig):
    rig = make_rig(*[dying() for _ in range(4)])
    rig.ask(GET)
    assert sum(asked(rig)) == 2
    # They come one at a time here, so those few that may always be in flight would be all of them.
    rig.balancer.budget.in_flight += FLOOR
    for _ in range(50):
        rig.ask(GET)
    assert 50 + 10 <= sum(asked(rig)) - 2 <= 50 + 10 + 1


def test_a_search_waits_for_a_server_that_is_full(make_rig):
    given = [Address("http", "10.0.0.1", 8188), Address("http", "10.0.0.2", 8188, max_conns=1)]
    rig = make_rig(answering(404), ScriptedBackend(), addresses=given, router=Router(Search))
    lease = rig.balancer.lease(rig.pool.backends[1])
    client = rig.ask(GET)
    assert (client.received, asked(rig)) == (b"", [1, 0])
    lease.release()
    rig.network.run()
    rig.backends[1].connections[0].send(OK)
    rig.network.run()
    assert rig.answer(client).status == 200
