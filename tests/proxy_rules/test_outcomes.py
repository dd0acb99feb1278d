"""What is known of a server by how the work for it ended, and in what time it answered."""

import pytest

from comfyproxy.core.balancing.backend import Outcome
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK
from tests.routers import Searching

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"


@pytest.fixture
def outcomes(make_rig, monkeypatch):
    """Makes rigs, with a list of how the work of each lease ended, for which server and in what time."""

    def make(*backends, **settings):
        given = [Address("http", f"10.0.0.{number}", 8188, max_conns=9) for number in range(1, 5)]
        rig = make_rig(*backends, addresses=given[: len(backends)], **settings)
        seen = []
        released = rig.balancer.released

        def watch(lease, outcome, seconds):
            seen.append((lease.backend.index, outcome, int(seconds)))
            released(lease, outcome, seconds)

        monkeypatch.setattr(rig.balancer, "released", watch)
        return rig, seen

    return make


@pytest.mark.parametrize(("status", "outcome"), [(200, "ANSWERED"), (500, "ANSWERED"), (503, "ERRED")])
def test_an_answer_says_how_long_it_took_to_begin(outcomes, status, outcome):
    rig, seen = outcomes(ScriptedBackend())
    rig.ask(GET)
    rig.advance(3)
    (connection,) = rig.backend.connections
    connection.send(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n" % status)
    rig.network.run()
    rig.advance(50)
    assert seen == []
    connection.send(b"ok")
    rig.network.run()
    assert seen == [(0, Outcome[outcome], 3)]


def test_each_attempt_is_timed_by_itself(outcomes):
    rig, seen = outcomes(
        ScriptedBackend(), ScriptedBackend(), ScriptedBackend(), timeouts=Timeouts(connect=5)
    )
    rig.network.silent.add("10.0.0.1")
    rig.ask(GET)
    rig.advance(7)
    rig.backends[1].connections[0].close()
    rig.network.run()
    rig.advance(4)
    rig.backends[2].connections[0].send(OK)
    rig.network.run()
    assert seen == [(0, Outcome.REFUSED, 5), (1, Outcome.LOST, 2), (2, Outcome.ANSWERED, 4)]


def test_waiting_in_line_is_not_the_servers_time(outcomes):
    rig, seen = outcomes(ScriptedBackend())
    for _ in range(10):
        rig.ask(GET)
    rig.advance(8)
    rig.backend.connections[0].send(OK)
    rig.network.run()
    rig.advance(2)
    rig.backend.connections[0].send(OK)
    rig.network.run()
    assert seen == [(0, Outcome.ANSWERED, 8), (0, Outcome.ANSWERED, 2)]


def test_a_server_that_is_silent_has_timed_out(outcomes):
    rig, seen = outcomes(ScriptedBackend(), timeouts=Timeouts(response=5))
    rig.ask(GET)
    rig.advance(6)
    assert seen == [(0, Outcome.TIMED_OUT, 5)]


@pytest.mark.parametrize(
    "rest", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"garbage\r\n\r\n"]
)
def test_a_connection_that_ends_too_early_or_says_no_http_is_lost(outcomes, rest):
    rig, seen = outcomes(ScriptedBackend([Step(send=rest, end="close")]))
    rig.ask(POST)
    assert seen == [(0, Outcome.LOST, 0)]


def test_an_answer_that_stops_has_timed_out(outcomes):
    rig, seen = outcomes(ScriptedBackend([Step(send=OK[:-1])]), timeouts=Timeouts(idle=5))
    rig.ask(GET)
    rig.advance(6)
    assert seen == [(0, Outcome.TIMED_OUT, 0)]


@pytest.mark.parametrize("answered", [b"", OK[:-1]])
def test_a_client_that_leaves_says_nothing_of_the_server(outcomes, answered):
    rig, seen = outcomes(ScriptedBackend([Step(send=answered)]))
    rig.ask(GET).reset()
    rig.network.run()
    assert seen == [(0, Outcome.ABANDONED, 0)]


def test_a_search_that_goes_on_was_answered(outcomes):
    missing = ScriptedBackend([Step(send=b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")])
    rig, seen = outcomes(missing, ScriptedBackend([Step(send=OK)]), router=Searching())
    assert rig.answer(rig.ask(GET)).status == 200
    assert seen == [(0, Outcome.ANSWERED, 0), (1, Outcome.ANSWERED, 0)]
