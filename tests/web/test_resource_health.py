"""`RoundRobinResource` checks its servers if it is told to."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.web.server import Site

from comfyproxy.core.balancing.outliers import EjectionRules
from comfyproxy.core.balancing.pool import HealthRules
from comfyproxy.core.balancing.probing import HttpProbe
from comfyproxy.proxy.probes import ProbePlan
from comfyproxy.testing import MemoryNetwork, RawClient, ScriptedBackend, Step
from comfyproxy.web.resource import RoundRobinResource
from tests.web.messages import GET, OK


class Farm:
    """Two servers, and a site with a resource before them, all in memory."""

    def __init__(self, pool: Any = "http://10.0.0.[1-2]:8188", **options: Any) -> None:
        self.network = MemoryNetwork()
        self.servers = [ScriptedBackend([Step(send=OK)]) for _ in range(2)]
        for number, server in enumerate(self.servers, 1):
            self.network.listenTCP(8188, server, interface=f"10.0.0.{number}")
        self.resource = RoundRobinResource(pool, reactor=self.network, **options)
        site = Site(self.resource, reactor=self.network)
        site.noisy = False
        self.port = self.network.listenTCP(8080, site)
        self.pass_time(1)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.network.advance(0.25)

    def kill(self, number: int) -> None:
        del self.network.ports[f"10.0.0.{number}", 8188]
        for connection in self.servers[number - 1].open_connections:
            connection.reset()
        self.network.run()

    def ask(self, times: int) -> None:
        for _ in range(times):
            client = self.network.connect(RawClient(), "127.0.0.1", 8080)
            client.send(GET)
            self.network.run()
            assert client.received.startswith(b"HTTP/1.1 200 ")
            client.close()
            self.network.run()

    def served(self) -> list[int]:
        """The requests that each server got since this was last asked, without the checks."""
        counts = [sum(b"probe" not in request for request in server.requests) for server in self.servers]
        for server in self.servers:
            server.requests.clear()
        return counts


@pytest.fixture
def make_farm() -> Iterator[Callable[..., Farm]]:
    farms: list[Farm] = []

    def make(*arguments: Any, **options: Any) -> Farm:
        farms.append(Farm(*arguments, **options))
        return farms[-1]

    yield make
    for farm in farms:
        farm.resource.stop()
        farm.port.stopListening()
        farm.pass_time(2)
        assert farm.network.getDelayedCalls() == []
        assert [server.open_connections for server in farm.servers] == [[], []]


class TestHealth:
    def test_servers_are_checked_if_it_is_said_how(self, make_farm: Any) -> None:
        farm = make_farm(probe=ProbePlan(HttpProbe("/health")))
        assert [len(server.requests) for server in farm.servers] == [1, 1]
        farm.kill(1)
        farm.pass_time(8)
        farm.ask(4)
        assert farm.served() == [0, 4]
        (dead, _) = farm.resource.balancer.pool.backends
        assert dead.health.is_down

    def test_new_servers_are_checked_from_then_on_and_others_no_more(self, make_farm: Any) -> None:
        farm = make_farm("http://10.0.0.1:8188", probe=ProbePlan(HttpProbe("/health")))
        farm.resource.reload("http://10.0.0.2:8188")
        farm.pass_time(0.25)
        assert [len(server.requests) for server in farm.servers] == [1, 1]
        farm.pass_time(20)
        assert len(farm.servers[0].requests) == 1

    def test_requests_that_fail_count_if_it_is_said_how(self, make_farm: Any) -> None:
        farm = make_farm(health=HealthRules(ejection=EjectionRules(failures=2, seconds=10.0)))
        farm.kill(1)
        farm.ask(6)
        first = farm.resource.balancer.pool.backends[0]
        assert not first.usable
        farm.network.listenTCP(8188, farm.servers[0], interface="10.0.0.1")
        farm.served()
        farm.pass_time(10.5)
        farm.ask(4)
        assert farm.served() == [2, 2]

    def test_nothing_of_it_is_done_unasked(self, make_farm: Any) -> None:
        farm = make_farm()
        farm.kill(1)
        farm.ask(12)
        farm.pass_time(60)
        assert farm.resource.balancer.pool.backends[0].usable
        assert len(farm.servers[1].requests) == 12
