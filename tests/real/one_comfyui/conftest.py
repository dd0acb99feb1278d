"""Pools that must behave as one ComfyUI: three real servers, and three simulated ones of either age.

With COMFYPROXY_REAL_DIRECT=1 a pool is its first server, and what the tests ask for is what that one does.
"""

import asyncio
from collections.abc import Callable

import pytest
from real_peers import installed
from real_peers.comfyui import ComfyUI, ScriptClient, output_images, script_client
from real_peers.pools import PREFIX, Pool
from real_peers.processes import ServerProcesses
from real_peers.proxy import DIRECT, Front
from real_peers.simulated import SimulatedServer
from real_peers.workflows import picture

COLOURS = (0xCC0000, 0x00CC00, 0x0000CC, 0xCCCC00, 0xCC00CC, 0x00CCCC, 0xCCCCCC, 0x3366CC)
"""The colours that `Pool.check` knows."""

PLACEMENT = ("--placement", "prompt")

REAL = "real"
SIMULATED = ("simulated", "simulated, without /api/jobs")


@pytest.fixture(scope="session")
def colours() -> tuple[int, ...]:
    """The colours that `Pool.check` knows."""
    return COLOURS


@pytest.fixture(scope="session")
def third_comfyui(
    processes: ServerProcesses, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> ComfyUI:
    """One more real ComfyUI, for the tests that need three or want to lose one."""
    if reason := installed.why_no_comfyui():
        pytest.skip(reason)
    server = ComfyUI(processes, tmp_path_factory.mktemp("comfyui-third") / "c")
    # The others start at the same time, if they are not there yet.
    request.getfixturevalue("comfyuis")
    server.wait()
    return server


@pytest.fixture(scope="session")
def singles(comfyuis: tuple[ComfyUI, ...], event_loop_runner: asyncio.Runner) -> dict[int, bytes]:
    """The pictures that one ComfyUI makes, by colour: asked of it directly."""

    async def make() -> dict[int, bytes]:
        async with script_client(comfyuis[0].url) as client:
            return {colour: await _picture(client, colour) for colour in COLOURS}

    async def _picture(client: ScriptClient, colour: int) -> bytes:
        prompt_id = await client.queue(picture(colour, prefix=PREFIX))
        await client.events_of(prompt_id)
        [image] = output_images(await client.history(prompt_id))
        return await client.view(image)

    return event_loop_runner.run(make())


@pytest.fixture(scope="session")
def start_simulated(processes: ServerProcesses) -> Callable[..., tuple[SimulatedServer, ...]]:
    """Starts simulated servers: `start_simulated(3, "--no-jobs-api")`; they end with the session."""

    def start(count: int, *options: str) -> tuple[SimulatedServer, ...]:
        servers = tuple(SimulatedServer(processes, f"gpu-{number + 1}", *options) for number in range(count))
        for server in servers:
            server.wait()
        return servers

    return start


@pytest.fixture(scope="session")
def servers_of(
    request: pytest.FixtureRequest, start_simulated: Callable[..., tuple[SimulatedServer, ...]]
) -> Callable[[str], tuple[ComfyUI, ...] | tuple[SimulatedServer, ...]]:
    """The servers of a kind of pool, started once."""
    started: dict[str, tuple[SimulatedServer, ...]] = {}

    def servers(kind: str) -> tuple[ComfyUI, ...] | tuple[SimulatedServer, ...]:
        if kind == REAL:
            third = () if DIRECT else (request.getfixturevalue("third_comfyui"),)
            two: tuple[ComfyUI, ...] = request.getfixturevalue("comfyuis")
            return (*two, *third)
        if kind not in started:
            options = ("--no-jobs-api",) if "without" in kind else ()
            started[kind] = start_simulated(1 if DIRECT else 3, *options)
        return started[kind]

    return servers


@pytest.fixture(scope="module", params=[REAL, *SIMULATED])
def pool(
    request: pytest.FixtureRequest, front: Front, servers_of: Callable[[str], tuple[ComfyUI, ...]]
) -> Pool:
    """Servers behind one address, in each of the kinds."""
    servers = servers_of(request.param)
    url = front(*(server.url for server in servers), options=PLACEMENT)
    singles = request.getfixturevalue("singles") if request.param == REAL else None
    return Pool(url, servers[:1] if DIRECT else servers, singles)
