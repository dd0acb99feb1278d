"""Several simulated ComfyUI servers as one, embedded in sites of twisted.web on loopback."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.task import deferLater
from twisted.web.server import Site

from comfyproxy.comfyui.router import make_router
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.demo.first_prompt import Finished, demo_workflow, run_prompt
from comfyproxy.demo.server import SimulatedComfyUI, start_demo_servers, stop_all
from comfyproxy.web.resource import RoundRobinResource
from comfyproxy.web.streaming import StreamingSite


class Embedded:
    """A resource over a pool of simulated servers, in a site that listens."""

    def __init__(self, servers: list[SimulatedComfyUI], site: Callable[..., Site]) -> None:
        self.servers = servers
        pool = Pool("default", parse_addresses(",".join(server.url for server in servers)))
        balancer = Balancer(pool, router=make_router("prompt", pool), keep_host=False)
        self.resource = RoundRobinResource(balancer, reactor=reactor, comfyui=True)
        made = site(self.resource)
        made.noisy = False
        self.port: Any = reactor.listenTCP(0, made, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"

    async def close(self) -> None:
        """Leave nothing."""
        await maybeDeferred(self.port.stopListening)
        await self.resource.stop()
        await stop_all(self.servers)

    @property
    def ran(self) -> list[int]:
        """How many prompts each server has run."""
        return [len(server.machine.queue.history) for server in self.servers]


@pytest_twisted.async_yield_fixture(params=[Site, StreamingSite])
async def embedded(request: pytest.FixtureRequest) -> AsyncIterator[Embedded]:
    made = Embedded(await start_demo_servers(reactor, 2, speed=50), request.param)  # type: ignore[arg-type]
    yield made
    await made.close()


@pytest_twisted.ensureDeferred
async def test_prompts_of_several_clients_are_spread_and_their_pictures_come(embedded: Embedded) -> None:
    clients = [run_prompt(reactor, embedded.url, workflow=demo_workflow(seed)) for seed in range(6)]
    ends = await gatherResults(clients)
    assert all(isinstance(end, Finished) for end in ends), ends
    assert [len(end.pictures) for end in ends] == [1] * 6
    assert len({end.pictures[0].data for end in ends}) == 6
    assert sum(embedded.ran) == 6
    assert min(embedded.ran) > 0


@pytest_twisted.ensureDeferred
async def test_nothing_goes_on_when_the_resource_has_stopped(embedded: Embedded) -> None:
    await run_prompt(reactor, embedded.url, workflow=demo_workflow(1))
    assert [len(server.machine.clients) for server in embedded.servers] != [0, 0]
    await embedded.resource.stop()
    for _ in range(50):
        if not any(len(server.machine.clients) for server in embedded.servers):
            break
        await deferLater(reactor, 0.01)
    assert [len(server.machine.clients) for server in embedded.servers] == [0, 0]
