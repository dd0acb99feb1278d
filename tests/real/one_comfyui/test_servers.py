"""Servers that die, come back, lack something or finish early, while the clients of a pool work on."""

import asyncio
import time
from collections.abc import Callable, Iterable

import pytest
import requests
from real_peers.comfyui import ComfyUI, began, output_images, script_client
from real_peers.pools import Pool, Server
from real_peers.proxy import StartProxy
from real_peers.screen import Screen, start, until_running, watch
from real_peers.simulated import SimulatedServer
from real_peers.workflows import sampled_picture

pytestmark = [pytest.mark.real, pytest.mark.timeout(60, func_only=True)]

StartSimulated = Callable[..., tuple[SimulatedServer, ...]]


@pytest.fixture(scope="module")
def started(start_simulated: StartSimulated) -> tuple[SimulatedServer, ...]:
    """Three servers, one of them without /api/jobs."""
    return (*start_simulated(2), *start_simulated(1, "--no-jobs-api"))


@pytest.fixture
def simulated(started: tuple[SimulatedServer, ...]) -> tuple[SimulatedServer, ...]:
    """Three servers that are there, whichever a test before has killed."""
    for server in started:
        if not server.process.running:
            server.restart()
    return started


def pool_of(start: StartProxy, servers: Iterable[Server], *options: str) -> Pool:
    """These servers behind a proxy of the test's own."""
    some = tuple(servers)
    balancer = start("--url", ",".join(one.url for one in some), "--placement", "prompt", *options)
    return Pool(balancer.url, some)


def runs_on(prompt_id: str, servers: Iterable[SimulatedServer]) -> SimulatedServer:
    """The server that runs this prompt at this moment."""
    for server in servers:
        queue = requests.get(f"{server.url}/queue", timeout=10).json()
        if prompt_id in [row[1] for row in queue["queue_running"]]:
            return server
    raise AssertionError(f"{prompt_id} runs nowhere")


async def test_what_ran_on_a_server_that_dies_runs_again_elsewhere_if_asked_for(
    simulated: tuple[SimulatedServer, ...], proxy: StartProxy
) -> None:
    pool = pool_of(proxy, simulated, "--requeue")
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen = Screen()
        prompts = [await start(client, screen, pool.endless())]
        prompts += [await client.queue(pool.endless()) for _ in range(5)]
        victim = runs_on(prompts[0], simulated)
        victim.kill()
        with pool.released():
            await watch(client, screen, *prompts)
        assert screen.ended == dict.fromkeys(prompts, "execution_success")
        history = await client.get("/history")
        for prompt_id in prompts:
            [image] = output_images(history[prompt_id])
            pool.check(prompt_id, 0, await client.view(image))


async def test_what_ran_on_a_server_that_dies_ends_with_an_error_that_names_it(
    simulated: tuple[SimulatedServer, ...], proxy: StartProxy
) -> None:
    pool = pool_of(proxy, simulated)
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen, errors = Screen(), []
        lost = await start(client, screen, pool.endless())
        others = [await client.queue(pool.endless()) for _ in range(5)]
        victim = runs_on(lost, simulated)
        victim.kill()
        with pool.released():
            while not {lost, *others} <= set(screen.idle):
                event = await client.next_event()
                screen.see(event)
                if event["type"] == "execution_error":
                    errors.append(event["data"])
        assert screen.ended == {lost: "execution_error"} | dict.fromkeys(others, "execution_success")
        [error] = errors
        assert error["prompt_id"] == lost
        assert f"server number {simulated.index(victim) + 1} " in error["exception_message"]
        record = await client.history(lost)
        assert record["status"]["status_str"] == "error"
        [job] = (await client.get("/api/jobs?status=failed&limit=10"))["jobs"]
        assert (job["id"], job["status"]) == (lost, "failed")


async def test_a_server_that_comes_back_gets_work_again(
    simulated: tuple[SimulatedServer, ...], proxy: StartProxy
) -> None:
    pool = pool_of(proxy, simulated[:2], "--probe-interval", "300ms")
    simulated[0].kill()
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen = Screen()
        prompt_id = await start(client, screen, pool.long(0.3))
        await watch(client, screen, prompt_id)
        await asyncio.to_thread(simulated[0].restart)
        deadline = time.monotonic() + 30
        while not simulated[0].history(prompt_id):
            assert time.monotonic() < deadline, "the server is back, and gets nothing"
            prompts = [await client.queue(pool.long(0.2)) for _ in "ab"]
            await watch(client, screen, *prompts)
            prompt_id = next((one for one in prompts if simulated[0].history(one)), prompts[0])
        assert set(screen.ended.values()) == {"execution_success"}


async def test_lists_are_answered_while_a_server_is_dead_and_show_what_the_others_have(
    simulated: tuple[SimulatedServer, ...], proxy: StartProxy
) -> None:
    pool = pool_of(proxy, simulated, "--requeue")
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen = Screen()
        prompts = [await client.queue(pool.long(0.2)) for _ in range(6)]
        await watch(client, screen, *prompts)
        survivors = [one for one in prompts if pool.owner(one) is not simulated[1]]
        simulated[1].kill()
        for path in ("/queue", "/history", "/prompt", "/object_info", "/system_stats", "/api/jobs?limit=20"):
            answer = await client.get(path)
            assert answer
        history = await client.get("/history")
        assert set(survivors) <= history.keys()


async def test_a_server_that_is_done_takes_over_what_waits_behind_a_long_job(
    simulated: tuple[SimulatedServer, ...], proxy: StartProxy
) -> None:
    pool = pool_of(proxy, simulated[:2])
    async with script_client(pool.url, keeps_cookies=False) as client:
        long = await start(client, Screen(), pool.endless())
        short = [await client.queue(pool.long(0.1)) for _ in range(6)]
        history = await client.histories(short)
        assert long not in history, "they waited for the long one"
        assert len({pool.owner(one).url for one in short}) == 1
        await client.post("/interrupt", {"prompt_id": long})


async def test_one_prompt_of_another_client_does_not_wait_for_all_of_a_large_batch(
    simulated: tuple[SimulatedServer, ...], proxy: StartProxy
) -> None:
    pool = pool_of(proxy, simulated[:2])
    async with script_client(pool.url) as greedy, script_client(pool.url) as modest:
        for _ in pool.servers:
            await greedy.queue(pool.endless())
        await until_running(greedy, len(pool.servers))
        batch = [await greedy.queue(pool.long(0.2)) for _ in range(16)]
        single = await modest.queue(pool.long(0.2))
        with pool.released():
            history = await modest.histories([single, *batch])
        # The other server goes through its share of the batch at a pace of its own.
        beside = [one for one in batch if pool.owner(one) is pool.owner(single)]
        before = [one for one in beside if began(history[one]) < began(history[single])]
        assert len(before) < len(beside) / 2, f"{len(before)} of {len(beside)} went before it"


async def test_a_prompt_goes_to_a_server_that_has_its_nodes(
    start_simulated: StartSimulated, proxy: StartProxy
) -> None:
    (poor,) = start_simulated(1, "--without", "DemoSampler")
    (rich,) = start_simulated(1)
    pool = pool_of(proxy, (poor, rich))
    async with script_client(pool.url, keeps_cookies=False) as client:
        prompts = [await client.queue(pool.long(0.1)) for _ in range(4)]
        await client.histories(prompts)
        assert all(pool.owner(one) is rich for one in prompts)
        assert "DemoSampler" in await client.get("/object_info")

    lonely = pool_of(proxy, (poor,))
    body = {"prompt": sampled_picture(prefix="never", seconds=1)}
    refused = requests.post(f"{lonely.url}/prompt", json=body, timeout=20)
    assert refused.status_code == 400
    assert refused.json().keys() == {"error", "node_errors"}
    assert "DemoSampler" in refused.text


async def test_a_real_comfyui_that_dies_takes_no_prompt_with_it(
    comfyuis: tuple[ComfyUI, ...], third_comfyui: ComfyUI, singles: dict[int, bytes], proxy: StartProxy
) -> None:
    servers = (comfyuis[0], third_comfyui)
    balancer = proxy("--url", ",".join(one.url for one in servers), "--placement", "prompt", "--requeue")
    pool = Pool(balancer.url, servers, singles)
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen = Screen()
        first, second = [await client.queue(pool.endless()) for _ in range(2)]
        # What a server has finished is gone with it, so the pictures are to wait.
        await until_running(client, 2)
        pictures = {await client.queue(pool.picture(colour)): colour for colour in (0xCC0000, 0x00CC00)}
        third_comfyui.kill()
        with pool.released():
            await watch(client, screen, first, second, *pictures)
        assert screen.ended == dict.fromkeys((first, second, *pictures), "execution_success")
        for prompt_id, colour in pictures.items():
            [image] = output_images(await client.history(prompt_id))
            pool.check(prompt_id, colour, await client.view(image))
    third_comfyui.start_again()
