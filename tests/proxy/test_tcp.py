"""Rule 30, and what else plain TCP needs: the next server for one that refuses, ends as they come, time."""

from dataclasses import replace
from typing import Any

import pytest

from comfyproxy.core.balancing.backend import Outcome
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.routes import RouteTable
from comfyproxy.core.balancing.selection.balance import Balance
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.tcp import TCPListener
from comfyproxy.testing import Rig, ScriptedBackend, Step
from comfyproxy.testing.rig import proxy_for


def tcp(network: Any, balancer: Any, **settings: Any) -> tuple[Any, Any]:
    """The front for plain TCP."""
    proxy = proxy_for(network, balancer, **settings)
    return proxy, TCPListener(proxy)


@pytest.fixture
def make(make_rig):
    """Makes rigs with that front."""

    def make(*backends: Any, **settings: Any) -> Rig:
        settings.setdefault(
            "addresses",
            [Address("tcp", f"10.0.0.{number}", 5432) for number in range(1, len(backends) + 1)],
        )
        return make_rig(*backends, front=tcp, **settings)

    return make


@pytest.fixture
def joined(make):
    """A rig, and a client and its server that both stay open when the other has finished."""
    rig = make(ScriptedBackend(stays_open=True))
    client = rig.client()
    client.stays_open = True
    yield rig, client, rig.backend.connections[0]
    for peer in (client, *rig.backend.connections):
        if not peer.is_gone:
            peer.reset()
    rig.network.run()


SIDES = pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])


def test_rule_30_a_server_may_speak_first(make):
    rig = make(ScriptedBackend([Step(after=b"", send=b"220 hello\r\n")]))
    assert rig.client().received == b"220 hello\r\n"


def test_rule_30_each_connection_goes_to_the_next_server(make):
    rig = make(*[ScriptedBackend([Step(after=b"", send=b"%d" % number)]) for number in (1, 2, 3)])
    assert b"".join(rig.client().received for _ in range(6)) == b"123123"
    assert rig.leases == 6


@SIDES
def test_rule_30_a_half_close_passes(joined, side):
    rig, *ends = joined
    first, second = ends[side], ends[1 - side]
    first.send(b"question")
    first.finish()
    rig.network.run()
    assert (second.received, second.ended) == (b"question", "closed")
    second.send(b"answer")
    second.finish()
    rig.network.run()
    assert (first.received, first.ended) == (b"answer", "closed")
    assert (rig.leases, rig.proxy.connections) == (0, set())


@SIDES
def test_rule_30_a_reset_is_a_reset(joined, side):
    rig, *ends = joined
    ends[side].reset()
    rig.network.run()
    assert ends[1 - side].ended == "reset"
    assert (rig.leases, rig.proxy.connections) == (0, set())


@SIDES
def test_rule_30_silence_ends_it(make, side):
    rig = make(ScriptedBackend(), timeouts=Timeouts(idle=600))
    client = rig.client()
    ends = client, rig.backend.connections[0]
    rig.advance(500, step=5)
    ends[side].send(b".")
    rig.advance(500, step=5)
    assert client.ended == ""
    rig.advance(150, step=5)
    assert [end.ended for end in ends] == ["closed", "closed"]
    assert rig.leases == 0


def test_rule_30_a_server_that_refuses_means_the_next(make):
    rig = make(None, None, ScriptedBackend([Step(after=b"", send=b"here")]))
    assert rig.client().received == b"here"
    assert rig.leases == 1


def test_rule_30_a_server_that_does_not_answer_the_call_means_the_next(make):
    rig = make(ScriptedBackend(), ScriptedBackend(), timeouts=Timeouts(connect=5))
    rig.network.silent.add("10.0.0.1")
    client = rig.client()
    rig.ask(b"early", client=client)
    rig.advance(6)
    assert rig.backends[1].connections[0].received == b"early"


def test_rule_30_no_server_left_is_a_reset_and_a_line_in_the_log(make, caplog):
    rig = make(None, None)
    assert rig.client().ended == "reset"
    assert rig.leases == 0
    assert "no server that can be reached" in caplog.text


def test_rule_30_an_empty_pool_is_a_reset(make):
    rig = make(ScriptedBackend())
    rig.balancer.apply(diff(rig.pool.addresses, ()))
    assert rig.client().ended == "reset"


def test_rule_30_a_client_is_not_read_before_its_server_is_there(make):
    rig = make(ScriptedBackend(), timeouts=Timeouts(connect=5))
    rig.network.silent.add("10.0.0.1")
    client = rig.client()
    rig.ask(b"x" * 1_000_000, client=client)
    assert rig.held == 0
    rig.advance(6)
    assert client.ended == "reset"


def test_rule_30_a_client_that_leaves_meanwhile_costs_no_more_than_that(make):
    rig = make(ScriptedBackend(), ScriptedBackend(), timeouts=Timeouts(connect=5))
    rig.network.silent.add("10.0.0.1")
    client = rig.client()
    client.reset()
    rig.advance(6)
    assert (rig.leases, rig.proxy.connections) == (0, set())
    assert [connection.ended for connection in rig.backends[1].connections] in ([], ["reset"], ["closed"])


@pytest.mark.parametrize("direction", [0, 1], ids=["up", "down"])
def test_rule_30_who_does_not_read_stops_who_sends(joined, direction):
    rig, *ends = joined
    sender, receiver = ends[direction], ends[1 - direction]
    receiver.pause()
    sender.send(b"x" * 5_000_000)
    rig.network.run()
    assert 64 * 1024 < rig.held <= 128 * 1024
    receiver.resume()
    rig.network.run()
    assert len(receiver.received) == 5_000_000


def test_a_server_that_has_as_many_as_it_may_gets_no_more(make):
    rig = make(
        ScriptedBackend(),
        ScriptedBackend(),
        addresses=[Address("tcp", "10.0.0.1", 1, max_conns=1), Address("tcp", "10.0.0.2", 1)],
    )
    for _ in range(4):
        rig.client()
    assert [len(backend.connections) for backend in rig.backends] == [1, 3]


def test_the_console_line_is_there_for_connections_too(make):
    rig = make(ScriptedBackend(), log="routing")
    rig.client()
    rig.advance(1)
    assert rig.logged == b"[LoadBalancer] Routing request to tcp://10.0.0.1:5432 (0/1)\n"


def test_closing_the_proxy_closes_what_runs(make):
    rig = make(ScriptedBackend())
    client = rig.client()
    rig.proxy.connections.copy().pop().drain()
    assert client.ended == ""
    assert rig.close() == []
    assert client.is_gone


@pytest.fixture
def full(make):
    """A rig whose only server takes one client, and has it; and that client."""
    rig = make(ScriptedBackend(), addresses=[Address("tcp", "10.0.0.1", 5432, max_conns=1)])
    return rig, rig.client()


def test_who_finds_every_server_full_waits_and_is_served_in_turn(full):
    rig, first = full
    second, third = rig.client(), rig.client()
    rig.ask(b"third", client=third)
    rig.ask(b"second", client=second)
    assert len(rig.backend.connections) == 1
    first.close()
    rig.network.run()
    assert [connection.received for connection in rig.backend.connections] == [b"", b"second"]
    second.close()
    rig.network.run()
    assert rig.backend.connections[2].received == b"third"
    assert (rig.leases, len(rig.balancer.waiting)) == (1, 0)


def test_who_waits_is_not_read(full):
    rig, _ = full
    rig.ask(b"x" * 1_000_000, client=rig.client())
    assert rig.held == 0


def test_who_waited_too_long_is_reset_and_the_log_says_why(make, caplog):
    rig = make(
        ScriptedBackend(),
        addresses=[Address("tcp", "10.0.0.1", 5432, max_conns=1)],
        timeouts=Timeouts(queue=5),
    )
    rig.client()
    client = rig.client()
    rig.advance(4)
    assert client.ended == ""
    rig.advance(2)
    assert client.ended == "reset"
    assert "had room within 5 seconds" in caplog.text
    assert len(rig.balancer.waiting) == 0


def test_past_the_length_of_the_line_it_is_a_reset_at_once(full):
    rig, _ = full
    rig.balancer.waiting.limit = 1
    assert rig.client().ended == ""
    assert rig.client().ended == "reset"


def test_who_left_meanwhile_is_passed_over(full):
    rig, first = full
    gone, staying = rig.client(), rig.client()
    gone.reset()
    rig.network.run()
    first.close()
    rig.network.run()
    rig.ask(b"here", client=staying)
    assert [connection.received for connection in rig.backend.connections] == [b"", b"here"]
    assert (rig.leases, len(rig.balancer.waiting)) == (1, 0)


def test_who_said_all_it_has_to_say_is_served_all_the_same(full):
    rig, first = full
    client = rig.client()
    client.stays_open = True
    client.send(b"question")
    client.finish()
    rig.network.run()
    first.close()
    rig.network.run()
    connection = rig.backend.connections[1]
    assert (connection.received, connection.ended) == (b"question", "closed")


def test_no_more_servers_are_tried_than_the_route_allows(make):
    rig = make(None, None, ScriptedBackend())
    (route,) = rig.proxy.routes.routes
    rig.proxy.routes = RouteTable([replace(route, retries=1)])
    assert rig.client().ended == "reset"
    rig.proxy.routes = RouteTable([replace(route, retries=2)])
    assert rig.client().ended == ""


def test_without_a_route_there_is_nothing_to_connect_to(make):
    rig = make(ScriptedBackend())
    rig.proxy.routes = RouteTable(())
    assert rig.client().ended == "reset"


def test_a_policy_that_goes_by_keys_has_the_clients_address(make):
    rig = make(ScriptedBackend(), ScriptedBackend(), ScriptedBackend())
    rig.balancer.balance_by(Balance("ip-hash"))
    for _ in range(5):
        rig.client("192.0.2.7")
    assert sorted(len(backend.connections) for backend in rig.backends) == [0, 0, 5]


def test_how_it_ended_is_told_with_the_time_that_connecting_took(make, monkeypatch):
    given = [Address("tcp", f"10.0.0.{number}", 5432, max_conns=9) for number in (1, 2, 3)]
    rig = make(ScriptedBackend(), ScriptedBackend(), None, addresses=given, timeouts=Timeouts(connect=5))
    seen = []

    def released(lease: Any, outcome: Outcome, seconds: float) -> None:
        seen.append((lease.backend.index, outcome, int(seconds)))

    monkeypatch.setattr(rig.balancer, "released", released)
    rig.network.silent.add("10.0.0.1")
    client = rig.client()
    rig.advance(6)
    client.close()
    rig.network.run()
    assert seen == [(0, Outcome.REFUSED, 5), (1, Outcome.ANSWERED, 0)]
    rig.client()
    assert seen[2] == (2, Outcome.REFUSED, 0)
    rig.advance(6)
