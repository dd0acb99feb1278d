"""A proxy that stops: what it waits for, for how long, what it says, and what is cut."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from comfyproxy.core.config import Timeouts
from comfyproxy.proxy.draining import FAREWELL, QUIET, STOPPING, TICK, Draining, Work
from comfyproxy.testing import Rig, ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /prompt HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


class Connection:
    """A client's connection that does what its work is, and goes when it is told to unless it ``stays``."""

    transport = None

    def __init__(self, place: set[Any], work: Work, stays: bool = False) -> None:
        self.work = work
        self.told: list[str] = []
        self._place = place
        self._stays = stays
        place.add(self)

    def drain(self) -> None:
        self.told.append("drain")
        if self.work is Work.IDLE:
            self._place.discard(self)

    def end(self) -> None:
        self.told.append("end")
        if not self._stays:
            self._place.discard(self)


class Drained:
    """A drain of connections, and whether it is done."""

    def __init__(self, seconds: float) -> None:
        self.clock = Clock()
        self.connections: set[Any] = set()
        self.in_hand = 0
        self.draining = Draining(self.clock, self.connections, seconds, lambda: self.in_hand)
        self.done = False

    def add(self, *works: Work, stays: bool = False) -> list[Connection]:
        return [Connection(self.connections, work, stays) for work in works]

    def run(self) -> None:
        ensureDeferred(self.draining.run()).addCallback(lambda _: setattr(self, "done", True))

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)


@pytest.fixture
def drained() -> Drained:
    return Drained(30)


def test_without_connections_there_is_nothing_to_wait_for(drained: Drained) -> None:
    drained.run()
    assert drained.done
    assert drained.clock.getDelayedCalls() == []


@pytest.mark.parametrize("work", [Work.REQUEST, Work.WEBSOCKET, Work.TCP])
def test_what_may_be_at_work_has_its_time(drained: Drained, work: Work) -> None:
    (connection,) = drained.add(work)
    drained.run()
    drained.advance(29.9)
    assert (drained.done, connection.told) == (False, ["drain"])
    drained.advance(0.2)
    assert (drained.done, connection.told) == (True, ["drain", "end"])


@pytest.mark.parametrize("work", [Work.REQUEST, Work.WEBSOCKET, Work.TCP])
def test_what_ends_by_itself_is_not_ended(drained: Drained, work: Work) -> None:
    (connection,) = drained.add(work)
    drained.run()
    drained.advance(3)
    drained.connections.clear()
    drained.advance(TICK)
    assert (drained.done, connection.told) == (True, ["drain"])


def test_events_are_not_waited_for(drained: Drained) -> None:
    (connection,) = drained.add(Work.EVENTS)
    drained.run()
    assert (drained.done, connection.told) == (True, ["drain", "end"])


def test_events_go_on_for_as_long_as_a_request_does(drained: Drained) -> None:
    events, request = drained.add(Work.EVENTS, Work.REQUEST)
    drained.run()
    drained.advance(5)
    assert (drained.done, events.told) == (False, ["drain"])
    drained.connections.discard(request)
    drained.advance(TICK)
    assert (drained.done, events.told) == (True, ["drain", "end"])


def test_an_idle_connection_has_a_moment_for_a_request_that_is_on_its_way(drained: Drained) -> None:
    idle, used = drained.add(Work.IDLE, Work.IDLE)
    drained.run()
    drained.advance(QUIET - 2 * TICK)
    assert (idle.told, used.told) == ([], [])
    used.work = Work.REQUEST
    drained.advance(3 * TICK)
    assert (idle.told, used.told, drained.done) == (["drain"], [], False)
    drained.connections.discard(used)
    drained.advance(TICK)
    assert drained.done


def test_one_that_becomes_idle_is_closed_too(drained: Drained) -> None:
    (connection,) = drained.add(Work.REQUEST)
    drained.run()
    drained.advance(5)
    connection.work = Work.IDLE
    drained.advance(2 * TICK)
    assert (drained.done, connection.told) == (True, ["drain", "drain"])


@pytest.mark.parametrize(("seconds", "waits"), [(30, 29.0), (0, FAREWELL - 2 * TICK)])
def test_what_is_between_two_servers_is_waited_for(
    caplog: pytest.LogCaptureFixture, seconds: float, waits: float
) -> None:
    drained = Drained(seconds)
    drained.in_hand = 2
    (events,) = drained.add(Work.EVENTS)
    drained.run()
    drained.advance(waits)
    assert (drained.done, "2 moving prompts" in caplog.text) == (False, True)
    drained.in_hand = 0
    drained.advance(2 * TICK)
    assert (drained.done, events.told[-1]) == (True, "end")


def test_what_is_between_two_servers_is_said_when_it_is_lost(
    drained: Drained, caplog: pytest.LogCaptureFixture
) -> None:
    drained.in_hand = 1
    drained.run()
    drained.advance(31 + FAREWELL)
    assert caplog.messages == [
        "Draining: 1 moving prompt, up to 30 s.",
        "Cut off what still ran: 1 moving prompt.",
    ]
    assert drained.done


def test_without_a_time_everything_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    drained = Drained(0)
    connections = drained.add(Work.IDLE, Work.REQUEST, Work.TCP)
    drained.run()
    assert drained.done
    assert [connection.told[-1] for connection in connections] == ["end"] * 3
    assert "Draining" not in caplog.text


def test_who_does_not_take_its_farewell_is_not_waited_for(drained: Drained) -> None:
    drained.add(Work.EVENTS, stays=True)
    drained.run()
    drained.advance(FAREWELL - 2 * TICK)
    assert not drained.done
    drained.advance(3 * TICK)
    assert drained.done
    assert drained.clock.getDelayedCalls() == []


def test_told_again_it_waits_no_longer_and_told_once_more_it_says_nothing(drained: Drained) -> None:
    request, _ = drained.add(Work.REQUEST, Work.TCP, stays=True)
    drained.run()
    drained.advance(1)
    drained.draining.cut()
    drained.advance(TICK)
    assert (drained.done, request.told) == (False, ["drain", "end"])
    drained.draining.cut()
    drained.advance(TICK)
    assert drained.done


def test_without_a_time_being_told_again_is_enough() -> None:
    drained = Drained(0)
    drained.add(Work.REQUEST, stays=True)
    drained.run()
    drained.draining.cut()
    drained.advance(TICK)
    assert drained.done


@pytest.mark.parametrize(
    ("works", "begins", "ends"),
    [
        ((), None, None),
        ((Work.IDLE,), None, None),
        ((Work.REQUEST,), "Draining: 1 request, up to 30 s.", "Cut off what still ran: 1 request."),
        (
            (*[Work.REQUEST] * 3, Work.WEBSOCKET, Work.EVENTS),
            "Draining: 3 requests, 2 WebSockets, up to 30 s.",
            "Cut off what still ran: 3 requests, 1 WebSocket.",
        ),
        (
            (Work.TCP, Work.TCP),
            "Draining: 2 TCP connections, up to 30 s.",
            "Cut off what still ran: 2 TCP connections.",
        ),
        ((Work.EVENTS,), "Draining: 1 WebSocket, up to 30 s.", None),
    ],
)
def test_the_log_says_what_is_waited_for_and_what_is_cut(
    drained: Drained,
    caplog: pytest.LogCaptureFixture,
    works: tuple[Work, ...],
    begins: str | None,
    ends: str | None,
) -> None:
    drained.add(*works)
    drained.run()
    drained.advance(31)
    assert caplog.messages == [line for line in (begins, ends) if line is not None]


# With connections that are some


Stop = Callable[..., Any]


def stopping(rig: Rig, seconds: float = 30) -> list[bool]:
    """Begin to stop the proxy; the list says whether that is done."""
    done: list[bool] = []

    async def stop() -> None:
        await rig.proxy.drain(seconds).run()
        await rig.proxy.close()

    ensureDeferred(stop()).addCallback(lambda _: done.append(True))
    rig.network.run()
    return done


def test_a_request_that_runs_is_finished_and_told_that_it_is_the_last(make_rig: Any) -> None:
    rig = make_rig(ScriptedBackend())
    client = rig.ask(POST + b"body")
    done = stopping(rig)
    rig.advance(5)
    assert (done, client.ended) == ([], "")
    rig.backend.connections[0].send(OK)
    rig.advance(1)
    assert b"\r\nConnection: close\r\n" in client.received
    assert client.received.endswith(b"ok")
    assert (client.ended, done) == ("closed", [True])


def test_an_answer_that_has_begun_is_finished(make_rig: Any) -> None:
    rig = make_rig(ScriptedBackend([Step(send=b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")]))
    client = rig.ask(GET)
    done = stopping(rig)
    rig.advance(2)
    rig.backend.connections[0].send(b"def")
    rig.advance(1)
    assert client.received.endswith(b"abcdef")
    assert (client.ended, done) == ("closed", [True])


def test_an_upload_that_runs_is_finished(make_rig: Any) -> None:
    rig = make_rig(ScriptedBackend([Step(after=b"body", send=OK)]))
    client = rig.ask(POST + b"bo")
    done = stopping(rig)
    rig.advance(2)
    rig.ask(b"dy", client=client)
    rig.advance(1)
    assert client.received.endswith(b"ok")
    assert done == [True]


def test_a_request_in_the_first_moment_is_answered_on_a_connection_that_stood(make_rig: Any) -> None:
    rig = make_rig()
    used, idle = rig.ask(GET), rig.ask(GET)
    used.take()
    done = stopping(rig)
    rig.advance(0.25)
    rig.ask(GET, client=used)
    assert b"\r\nConnection: close\r\n" in used.received
    rig.advance(1)
    assert (used.ended, idle.ended, done) == ("closed", "closed", [True])


def test_a_head_that_has_begun_is_a_request(make_rig: Any) -> None:
    rig = make_rig()
    client = rig.ask(GET[:9])
    done = stopping(rig)
    rig.advance(5)
    assert done == []
    rig.ask(GET[9:], client=client)
    rig.advance(1)
    assert (b"200 OK" in client.received, done) == (True, [True])


def test_a_request_that_takes_longer_hears_503_and_its_server_is_let_go(make_rig: Any) -> None:
    rig = make_rig(ScriptedBackend())
    client = rig.ask(GET)
    done = stopping(rig, 3)
    rig.advance(3.5)
    assert client.received.startswith(b"HTTP/1.1 503 ")
    assert STOPPING.encode() in client.received
    rig.advance(1)
    assert (client.ended, done, rig.leases) == ("closed", [True], 0)


def test_an_answer_that_takes_longer_is_cut_so_that_it_shows(make_rig: Any) -> None:
    rig = make_rig(ScriptedBackend([Step(send=b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")]))
    client = rig.ask(GET)
    done = stopping(rig, 3)
    rig.advance(4)
    assert (client.received[-3:], client.ended, done) == (b"abc", "closed", [True])


def test_a_client_that_reads_slowly_has_the_time_too(make_rig: Any) -> None:
    body = b"x" * 3_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    rig = make_rig(ScriptedBackend([Step(send=answer)]), timeouts=Timeouts())
    client = rig.client()
    client.pause()
    rig.ask(GET, client=client)
    done = stopping(rig)
    rig.advance(10)
    assert done == []
    client.resume()
    rig.advance(1)
    assert (client.received.endswith(body), done) == (True, [True])


def test_nothing_is_left_of_a_proxy_that_was_drained(make_rig: Any) -> None:
    rig = make_rig(ScriptedBackend())
    rig.ask(GET)
    stopping(rig, 1)
    rig.advance(3)
    assert (rig.proxy.connections, rig.network.getDelayedCalls()) == (set(), [])
