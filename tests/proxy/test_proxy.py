"""What all connections share: whom to trust, what to log, and the end of it all."""

import pytest
from twisted.internet.defer import ensureDeferred

from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.config import Timeouts
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def field(rig, name: bytes) -> bytes:
    """A field of the last request that the backend got."""
    (value,) = [line for line in rig.backend.requests[-1].split(b"\r\n") if line.startswith(name + b": ")]
    return value.partition(b": ")[2]


@pytest.mark.parametrize(
    ("networks", "peer", "trusted"),
    [
        ((), "192.0.2.1", False),
        (("192.0.2.1",), "192.0.2.1", True),
        (("192.0.2.1",), "192.0.2.2", False),
        (("192.0.2.0/24", "10.0.0.0/8"), "10.9.8.7", True),
        (("192.0.2.9/24",), "192.0.2.1", True),
        (("::1",), "192.0.2.1", False),
        (("2001:db8::/32",), "2001:db8::7", True),
        (("192.0.2.0/24",), "::ffff:192.0.2.7", True),
        (("192.0.2.0/24",), "::ffff:192.0.3.7", False),
        (("192.0.2.0/24",), "unknown", False),
    ],
)
def test_who_is_trusted(make_rig, networks, peer, trusted):
    rig = make_rig(trusted=networks)
    client = rig.client("192.0.2.1")
    forwarder = rig.proxy.forwarder(peer, False)
    for connection in rig.proxy.connections:
        connection._forwarder = forwarder
    rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n", client=client)
    shown = peer.removeprefix("::ffff:").encode()
    expected = b"203.0.113.9, " + shown if trusted else shown
    assert field(rig, b"X-Forwarded-For") == expected


def test_trust_can_change_while_it_runs(rig):
    rig.proxy.trust(("192.0.2.0/24",))
    rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
    assert field(rig, b"X-Forwarded-For") == b"203.0.113.9, 192.0.2.1"


def test_networks_that_are_none_are_refused(rig):
    with pytest.raises(ValueError, match="does not appear to be"):
        rig.proxy.trust(("the office",))


def test_the_date_is_this_seconds(rig):
    rig.network.advance(1_700_000_000.5)
    assert rig.proxy.date() == b"Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
    rig.network.advance(0.4)
    assert rig.proxy.date() == b"Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
    rig.network.advance(0.2)
    assert rig.proxy.date() == b"Date: Tue, 14 Nov 2023 22:13:21 GMT\r\n"


def remove(rig, *places: int) -> None:
    addresses = [address for place, address in enumerate(rig.pool.addresses) if place not in places]
    rig.balancer.apply(diff(rig.pool.addresses, addresses))
    rig.proxy.forget_removed()
    rig.network.run()


def test_idle_connections_of_a_removed_server_are_closed_at_once(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=OK)]), ScriptedBackend([Step(send=OK)]))
    rig.ask(GET)
    rig.ask(GET)
    remove(rig, 0)
    assert [len(backend.open_connections) for backend in rig.backends] == [0, 1]


def test_idle_connections_of_a_server_that_is_to_get_nothing_are_closed(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=OK)]), ScriptedBackend([Step(send=OK)]))
    rig.ask(GET)
    for backend in rig.pool.backends:
        rig.proxy.close_idle(backend)
    rig.network.run()
    assert [len(backend.open_connections) for backend in rig.backends] == [0, 0]


def test_a_server_that_is_back_before_its_last_answer_keeps_the_connection_of_that(make_rig):
    rig = make_rig(ScriptedBackend(), ScriptedBackend())
    rig.ask(GET)
    addresses = rig.pool.addresses
    remove(rig, 0)
    rig.balancer.apply(diff(rig.pool.addresses, addresses))
    rig.proxy.forget_removed()
    rig.backends[0].connections[0].send(OK)
    rig.network.run()
    for _ in range(2):
        rig.ask(GET)
    assert [len(backend.connections) for backend in rig.backends] == [1, 1]
    remove(rig, 0, 1)


def test_what_runs_on_a_removed_server_is_finished_there(make_rig):
    rig = make_rig(ScriptedBackend(), ScriptedBackend([Step(send=OK)]))
    client = rig.ask(GET)
    remove(rig, 0)
    assert rig.leases == 1
    rig.backends[0].connections[0].send(OK)
    rig.network.run()
    assert client.received.endswith(b"ok")
    assert rig.backends[0].open_connections == []
    for _ in range(3):
        assert b"200 OK" in rig.ask(GET).received
    assert len(rig.backends[1].requests) == 3


def test_a_server_that_comes_back_is_used_again(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=OK)]))
    rig.ask(GET)
    addresses = rig.pool.addresses
    remove(rig, 0)
    rig.balancer.apply(diff((), addresses))
    assert b"200 OK" in rig.ask(GET).received


def close(rig) -> list[bool]:
    """Begin to close the proxy; the list says whether that is done."""
    done: list[bool] = []
    ensureDeferred(rig.proxy.close()).addCallback(lambda _: done.append(True))
    rig.network.run()
    return done


def test_closing_ends_whatever_goes_on(make_rig):
    rig = make_rig(ScriptedBackend())
    idle = rig.client()
    waiting = rig.ask(GET)
    sending = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbody")
    assert close(rig) == [True]
    assert [client.is_gone for client in (idle, waiting, sending)] == [True] * 3
    assert (rig.leases, rig.proxy.connections, rig.backend.open_connections) == (0, set(), [])
    assert rig.network.getDelayedCalls() == []


def test_closing_ends_idle_connections(rig):
    rig.ask(GET)
    assert close(rig) == [True]
    assert rig.backend.open_connections == []


def test_closing_writes_what_the_log_has_kept(make_rig):
    rig = make_rig(log="routing")
    rig.ask(GET)
    close(rig)
    assert rig.logged.count(b"\n") == 1


@pytest.fixture
def closing(make_rig):
    """A rig whose backend has answered and closes, but takes no more of the request that is under way."""
    rig = make_rig(ScriptedBackend(stays_open=True))
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
    (backend,) = rig.backend.connections
    backend.pause()
    rig.ask(b"x" * 300_000, client=client)
    backend.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    rig.network.run()
    assert b"200 OK" in client.received
    yield rig
    backend.resume()
    rig.network.run()
    assert backend.ended == "reset"


def test_closing_does_not_wait_for_a_server_that_takes_nothing(closing):
    assert close(closing) == [True]


def test_a_server_that_takes_nothing_is_given_up_after_a_while(closing):
    closing.advance(35)


def test_draining_finishes_what_runs_and_closes_what_is_idle(make_rig):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts())
    idle, busy = rig.client(), rig.ask(GET)
    rig.proxy.draining = True
    for connection in tuple(rig.proxy.connections):
        connection.drain()
    rig.network.run()
    assert (idle.ended, busy.ended) == ("closed", "")
    rig.backend.connections[0].send(OK)
    rig.network.run()
    assert busy.received.endswith(b"ok")
    assert b"\r\nConnection: close\r\n" in busy.received
    assert busy.ended == "closed"
