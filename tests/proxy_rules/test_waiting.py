"""Who waits when every server has as much in flight as it may, for how long, and who is served first."""

from dataclasses import replace

import pytest

from comfyproxy.core.balancing.backend import AdminState
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.routes import RouteTable
from comfyproxy.core.balancing.routing import Default, Pin
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK


def get(name: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"GET /" + name + b" HTTP/1.1", b"Host: a", *fields, b"", b""))


def server(number: int, max_conns: int = 1) -> Address:
    return Address("http", f"10.0.0.{number}", 8188, max_conns=max_conns)


class Pinning:
    """Pins requests to ``/pinned`` and ``/bound`` (strictly) to the backend it is told."""

    drop = frozenset()
    message_key = None
    backend = None

    def route(self, head, body, now):
        if head.path not in (b"/pinned", b"/bound"):
            return Default()
        return Pin(self.backend, strict=head.path == b"/bound")

    def place(self, head, body, backend, now):
        return None

    def cookies(self, value):
        return value


@pytest.fixture
def full(make_rig):
    """Makes rigs of servers that take one request each, all of which have one."""

    def make(count=1, **settings):
        rig = make_rig(
            *[ScriptedBackend() for _ in range(count)],
            **{"addresses": [server(number) for number in range(1, count + 1)]} | settings,
        )
        for number in range(count):
            rig.ask(get(b"first%d" % number))
        return rig

    return make


def asked(rig) -> list[bytes]:
    """What the servers were asked, by the order of connections."""
    return [
        request.start
        for number, backend in enumerate(rig.backends)
        if backend is not None
        for request in rig.requests(number)
    ]


def answer_next(rig, number=0):
    """Let a server answer what it was asked last."""
    rig.backends[number].connections[-1].send(OK)
    rig.network.run()


def test_a_request_waits_for_room_and_is_served_then(full):
    rig = full()
    client = rig.ask(get(b"second"))
    assert (client.received, len(rig.balancer.waiting)) == (b"", 1)
    answer_next(rig)
    answer_next(rig)
    assert rig.answer(client).status == 200
    assert len(rig.balancer.waiting) == 0


def test_who_came_first_is_served_first(full):
    rig = full(count=2)
    for number in range(5):
        rig.ask(get(b"waits%d" % number))
    for number in (0, 1, 1, 0, 1):
        answer_next(rig, number)
    order = [request.start for request in (*rig.requests(0), *rig.requests(1))]
    assert order == [
        b"GET /first0",
        b"GET /waits0",
        b"GET /waits3",
        b"GET /first1",
        b"GET /waits1",
        b"GET /waits2",
        b"GET /waits4",
    ]
    assert rig.leases == 2


def test_nobody_who_comes_later_takes_the_room(full):
    rig = full()
    early = rig.ask(get(b"early"))
    # The answer and the late request arrive in the same turn.
    late = rig.client()
    rig.backend.connections[0].send(OK)
    late.send(get(b"late"))
    rig.network.run()
    assert [request.start for request in rig.requests()] == [b"GET /first0", b"GET /early"]
    answer_next(rig)
    answer_next(rig)
    assert [rig.answer(client).status for client in (early, late)] == [200, 200]


@pytest.mark.parametrize(("seconds", "advice"), [(30, b"30"), (0.5, b"1"), (600, b"60")])
def test_too_long_a_wait_is_503_that_says_when_to_try_again(full, seconds, advice):
    rig = full(timeouts=Timeouts(queue=seconds))
    client = rig.ask(get(b"second"))
    rig.advance(seconds - 0.1, step=1)
    assert client.received == b""
    rig.advance(1)
    answer = rig.answer(client)
    assert (answer.status, answer.value(b"retry-after")) == (503, advice)
    assert b"No server of the pool 'default' had room within %g seconds." % seconds in answer.body
    assert (len(rig.balancer.waiting), rig.leases) == (0, 1)


def test_without_a_timeout_it_waits_for_ever(full):
    rig = full(timeouts=Timeouts(queue=0, response=0))
    client = rig.ask(get(b"second"))
    rig.advance(100_000, step=1000)
    assert client.received == b""
    answer_next(rig)
    answer_next(rig)
    assert rig.answer(client).status == 200


def test_what_gets_no_room_is_counted_and_told_now_and_then(full, caplog):
    rig = full(timeouts=Timeouts(queue=5))
    for _ in range(3):
        rig.ask(get(b"waits"))
    rig.advance(6)
    assert rig.proxy.admission.refused["queue"] == 3
    lines = [record.getMessage() for record in caplog.records if "room" in record.getMessage()]
    assert lines == ["No server of the pool 'default' had room within 5 seconds."]


@pytest.mark.parametrize("limit", [0, 2])
def test_no_more_wait_than_may(full, limit):
    rig = full()
    rig.balancer.waiting.limit = limit
    waiting = [rig.ask(get(b"waits")) for _ in range(limit)]
    answer = rig.answer(rig.ask(get(b"too-many")))
    assert (answer.status, answer.value(b"retry-after")) == (503, b"30")
    assert b"The pool 'default' is full" in answer.body
    assert [client.received for client in waiting] == [b""] * limit
    rig.answer(rig.ask(get(b"too-many-again")))


def test_a_client_that_leaves_gives_up_its_place(full):
    rig = full()
    leaving, staying = rig.ask(get(b"leaves")), rig.ask(get(b"stays"))
    leaving.close()
    rig.network.run()
    assert len(rig.balancer.waiting) == 1
    answer_next(rig)
    answer_next(rig)
    assert rig.answer(staying).status == 200
    assert b"GET /leaves" not in asked(rig)


def test_a_server_that_a_reload_adds_takes_who_waits(full):
    rig = full()
    clients = [rig.ask(get(b"waits")) for _ in range(2)]
    rig.network.listenTCP(8188, added := ScriptedBackend([Step(send=OK)]), interface="10.0.0.2")
    rig.balancer.apply(diff(rig.pool.addresses, [server(1), server(2)]))
    rig.network.run()
    assert [rig.answer(client).status for client in clients] == [200, 200]
    assert len(added.requests) == 2


@pytest.mark.parametrize("max_conns", [3, 0])
def test_room_that_a_reload_makes_is_given_to_who_waits(full, max_conns):
    rig = full()
    for _ in range(4):
        rig.ask(get(b"waits"))
    rig.balancer.apply(diff(rig.pool.addresses, [server(1, max_conns)]))
    rig.network.run()
    assert rig.leases == (max_conns or 5)
    assert len(rig.balancer.waiting) == 5 - rig.leases


def test_a_reload_that_leaves_no_server_ends_the_wait(full):
    rig = full()
    client = rig.ask(get(b"waits"))
    rig.balancer.apply(diff(rig.pool.addresses, ()))
    rig.network.run()
    answer = rig.answer(client)
    assert (answer.status, answer.value(b"retry-after")) == (503, None)
    assert b"has no servers" in answer.body


def test_a_body_waits_for_a_server_to_have_room_and_no_more_of_it_is_read(full):
    rig = full()
    client = rig.ask(b"PUT /waits HTTP/1.1\r\nHost: a\r\nContent-Length: 300003\r\n\r\n")
    rig.ask(b"x" * 100_000, client=client)
    assert rig.held < 150_000
    client.send(b"x" * 200_000 + b"end")
    rig.network.run()
    assert rig.held < 150_000
    answer_next(rig)
    (_, request) = rig.requests()
    assert (request.complete, request.body) == (True, b"x" * 300_000 + b"end")
    answer_next(rig)
    assert rig.answer(client).status == 200


def test_what_belongs_to_one_server_waits_for_that_one(full):
    rig = full(count=2, router=(router := Pinning()))
    router.backend = rig.pool.backends[0]
    pinned = rig.ask(get(b"pinned"))
    answer_next(rig, 1)
    assert pinned.received == b""
    other = rig.ask(get(b"free"))
    assert len(rig.requests(1)) == 2
    answer_next(rig, 0)
    answer_next(rig, 0)
    answer_next(rig, 1)
    assert [rig.answer(client).status for client in (pinned, other)] == [200, 200]


def test_what_waits_for_its_server_is_told_so_in_the_end(full):
    rig = full(router=(router := Pinning()), timeouts=Timeouts(queue=5))
    router.backend = rig.pool.backends[0]
    client = rig.ask(get(b"bound"))
    rig.advance(6)
    answer = rig.answer(client)
    assert (answer.status, answer.value(b"retry-after")) == (503, b"5")
    assert b"The server that this belongs to had no room within 5 seconds." in answer.body


def test_who_waits_for_a_server_that_is_taken_out_of_use_goes_elsewhere_if_that_will_do(full):
    rig = full(count=2, router=(router := Pinning()))
    backend = router.backend = rig.pool.backends[0]
    pinned, bound = rig.ask(get(b"pinned")), rig.ask(get(b"bound"))
    rig.pool.set_admin(backend, AdminState.MAINT, rig.network.seconds())
    rig.network.run()
    answer = rig.answer(bound)
    assert (answer.status, b"out of use" in answer.body) == (503, True)
    assert pinned.received == b""
    answer_next(rig, 1)
    answer_next(rig, 1)
    assert rig.answer(pinned).status == 200


def test_a_server_that_fails_meanwhile_is_not_waited_for_anew_from_the_beginning(make_rig):
    """However often a request has to wait, it has the time of its route only once."""
    rig = make_rig(
        ScriptedBackend(),
        ScriptedBackend(),
        addresses=[server(1), server(2)],
        timeouts=Timeouts(queue=20, connect=5),
    )
    for number in range(2):
        rig.ask(get(b"first%d" % number))
    client = rig.ask(get(b"waits"))
    rig.advance(15)
    rig.network.ports.pop(("10.0.0.1", 8188))
    rig.backends[0].connections[0].send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    rig.network.run()
    assert (client.received, len(rig.balancer.waiting)) == (b"", 1)
    rig.advance(4)
    assert client.received == b""
    rig.advance(2)
    answer = rig.answer(client)
    assert (answer.status, b"within 20 seconds" in answer.body) == (503, True)


def test_what_was_lost_before_it_had_to_wait_is_told_as_lost_in_the_end(make_rig):
    rig = make_rig(
        ScriptedBackend([Step(end="close")]),
        ScriptedBackend(),
        addresses=[server(1), server(2)],
        timeouts=Timeouts(queue=5),
    )
    lease = rig.balancer.lease(rig.pool.backends[1])
    client = rig.ask(get(b"waits"))
    assert (client.received, len(rig.balancer.waiting)) == (b"", 1)
    rig.advance(6)
    assert rig.answer(client).status == 502
    lease.release()


def test_what_was_answered_with_a_failure_gets_that_in_the_end(make_rig):
    """The other server had room when it was chosen to be asked; whoever is quicker has it then."""
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
    rig = make_rig(
        ScriptedBackend([Step(send=busy)]),
        ScriptedBackend(),
        addresses=[server(1), server(2)],
        timeouts=Timeouts(queue=5),
    )
    (route,) = rig.proxy.routes.routes
    rig.proxy.routes = RouteTable([replace(route, retry_on=frozenset((503,)))])
    leases = []
    rig.balancer.has_more = lambda tried: leases.append(rig.balancer.lease(rig.pool.backends[1])) or True
    client = rig.ask(get(b"waits"))
    assert client.received == b""
    rig.advance(6)
    answer = rig.answer(client)
    assert (answer.status, answer.body) == (503, b"busy")
    leases[0].release()


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@pytest.mark.parametrize("comfyui", [True, False])
def test_a_websocket_takes_room_for_as_long_as_it_lasts_but_not_comfyuis(make_rig, comfyui):
    rig = make_rig(
        ScriptedBackend([Step(send=SWITCHED)], [Step(send=OK)]), addresses=[server(1)], comfyui=comfyui
    )
    socket = rig.ask(HANDSHAKE)
    assert socket.received.startswith(b"HTTP/1.1 101 ")
    client = rig.ask(get(b"prompt"))
    assert (client.received != b"", rig.leases) == (comfyui, 1)
    socket.reset()
    rig.network.run()
    assert rig.answer(client).status == 200
    assert rig.leases == 0


def test_room_that_comfyuis_websocket_leaves_goes_to_who_waits(make_rig):
    rig = make_rig(ScriptedBackend((), [Step(send=OK)]), addresses=[server(1)], comfyui=True)
    socket = rig.ask(HANDSHAKE)
    client = rig.ask(get(b"prompt"))
    assert client.received == b""
    rig.backend.connections[0].send(SWITCHED)
    rig.network.run()
    assert rig.answer(client).status == 200
    socket.reset()


def test_a_proxy_that_stops_leaves_nobody_in_the_line(full):
    rig = full()
    client = rig.ask(get(b"waits"))
    assert rig.close() == []
    assert client.is_gone
    assert len(rig.balancer.waiting) == 0
