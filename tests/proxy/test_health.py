"""The watch over a pool: its clock, its log, and whom it tells."""

from collections.abc import Iterator
from typing import Any

import pytest

from comfyproxy.core.balancing.backend import AdminState, Backend, Outcome
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.outliers import EjectionRules
from comfyproxy.core.balancing.pool import HealthRules, Pool
from comfyproxy.core.balancing.probing import HttpProbe
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.health import HealthWatch
from comfyproxy.proxy.probes import ProbePlan, Slots
from comfyproxy.testing import MemoryNetwork, ScriptedBackend, Step

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RULES = HealthRules(ejection=EjectionRules(failures=2, seconds=10.0), slow_start=20.0)
PLAN = ProbePlan(HttpProbe("/"), interval=5.0)


class Watched:
    def __init__(self, rules: HealthRules = RULES) -> None:
        self.network = MemoryNetwork()
        self.server = ScriptedBackend([Step(send=OK)])
        self.network.listenTCP(8188, self.server, interface="10.0.0.1")
        addresses = [Address("http", f"10.0.0.{number}", 8188) for number in (1, 2)]
        self.pool = Pool("gpus", addresses, rules=rules)
        self.gone: list[Backend] = []
        self.balancer = Balancer(self.pool, clock=self.network.seconds)
        self.watch = HealthWatch(self.network, self.balancer, Slots(), self.gone.append)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.network.advance(0.25)


@pytest.fixture
def watched() -> Iterator[Watched]:
    one = Watched()
    yield one
    one.watch.stop()
    one.network.run()
    assert one.network.getDelayedCalls() == []
    assert one.network.getReaders() == []


def logged(caplog: Any) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "twisted"]


def test_changes_are_logged_once_each_(watched: Watched, caplog: Any) -> None:
    watched.watch.follow(HealthRules(probed=True), PLAN)
    watched.pass_time(30)
    assert logged(caplog) == [("WARNING", "http://10.0.0.2:8188 is DOWN: connection refused (3 checks)")]
    assert watched.gone == [watched.pool.backends[1]]
    watched.network.listenTCP(8188, watched.server, interface="10.0.0.2")
    watched.pass_time(30)
    assert logged(caplog)[1:] == [
        ("INFO", "http://10.0.0.2:8188 is UP: GET / was answered with 200 (2 checks)")
    ]


def test_servers_that_the_first_check_finds_up_are_not_worth_a_line(caplog: Any) -> None:
    watched = Watched(HealthRules(probed=True))
    watched.watch.follow(HealthRules(probed=True), PLAN)
    watched.pass_time(1)
    assert logged(caplog) == [("WARNING", "http://10.0.0.2:8188 is DOWN: connection refused (1 check)")]
    assert [backend.usable for backend in watched.pool.backends] == [True, False]
    watched.watch.stop()


def test_panic_is_logged(watched: Watched, caplog: Any) -> None:
    watched.network.ports.clear()
    watched.watch.follow(HealthRules(probed=True), PLAN)
    watched.pass_time(30)
    assert logged(caplog)[-1] == (
        "WARNING",
        "Pool gpus: 0 of 2 servers up, so all of them get requests",
    )


def test_ejected_server_is_checked_at_once_and_taken_back_in_time(watched: Watched, caplog: Any) -> None:
    watched.watch.follow(RULES, PLAN)
    watched.network.listenTCP(8188, ScriptedBackend([Step(send=OK)]), interface="10.0.0.2")
    watched.pass_time(1)
    first = watched.pool.backends[0]
    for _ in range(2):
        watched.pool.noted(first, Outcome.LOST, watched.network.seconds())
    watched.pass_time(0.25)
    assert len(watched.server.requests) == 2
    watched.pass_time(9.5)
    assert not first.usable
    watched.pass_time(0.25)
    assert (first.usable, first.weight) == (True, 0.1)
    assert logged(caplog) == [
        ("WARNING", "http://10.0.0.1:8188 is left out for 10 s: its answers broke off (2 requests in a row)"),
        ("INFO", "http://10.0.0.1:8188 is tried again"),
    ]
    watched.pass_time(20)
    assert first.weight == 1.0


def test_operators_wish_is_logged_and_maintenance_lets_connections_go(watched: Watched, caplog: Any) -> None:
    watched.watch.follow(RULES, PLAN)
    watched.pass_time(0.25)
    first = watched.pool.backends[0]
    watched.pool.set_admin(first, AdminState.DRAIN, 1.0)
    assert watched.gone == []
    watched.pool.set_admin(first, AdminState.MAINT, 2.0)
    assert watched.gone == [first]
    watched.server.requests.clear()
    watched.pool.set_admin(first, AdminState.READY, 3.0)
    watched.network.run()
    assert len(watched.server.requests) == 1
    assert [line.rpartition(" ")[2] for _, line in logged(caplog)] == ["DRAIN", "MAINT", "READY"]


def test_watch_that_ended_hears_nothing(watched: Watched, caplog: Any) -> None:
    watched.watch.follow(RULES, None)
    watched.watch.stop()
    watched.pool.set_admin(watched.pool.backends[0], AdminState.MAINT, 1.0)
    assert (logged(caplog), watched.gone) == ([], [])


def test_watch_without_anybody_to_tell_does_without() -> None:
    network = MemoryNetwork()
    pool = Pool("gpus", [Address("http", "10.0.0.1", 8188)])
    watch = HealthWatch(network, Balancer(pool, clock=network.seconds), Slots())
    watch.follow(RULES, None)
    pool.set_admin(pool.backends[0], AdminState.MAINT, 1.0)
    watch.stop()
