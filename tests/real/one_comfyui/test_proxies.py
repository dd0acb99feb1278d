"""A proxy that ends and starts again, and two proxies over one pool, which share nothing."""

import asyncio
import uuid
from collections.abc import Callable

import pytest
from real_peers.comfyui import output_images, script_client
from real_peers.pools import Pool
from real_peers.proxy import Proxy, StartProxy
from real_peers.screen import Screen, start, until_running, until_shown, watch
from real_peers.simulated import SimulatedServer

pytestmark = [pytest.mark.real, pytest.mark.timeout(60, func_only=True)]


@pytest.fixture(scope="module")
def servers(start_simulated: Callable[..., tuple[SimulatedServer, ...]]) -> tuple[SimulatedServer, ...]:
    """Two servers, one of them without /api/jobs."""
    return (*start_simulated(1), *start_simulated(1, "--no-jobs-api"))


@pytest.fixture
def arguments(servers: tuple[SimulatedServer, ...]) -> tuple[str, ...]:
    """What a proxy before them is started with."""
    return ("--url", ",".join(server.url for server in servers), "--placement", "prompt")


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_a_proxy_that_starts_again_finds_its_prompts_and_tells_their_client(
    servers: tuple[SimulatedServer, ...], arguments: tuple[str, ...], proxy: StartProxy, kill: bool
) -> None:
    balancer: Proxy = proxy(*arguments, "--drain-timeout", "1s")
    pool, client_id = Pool(balancer.url, servers), uuid.uuid4().hex
    async with script_client(pool.url, client_id=client_id, keeps_cookies=False) as client:
        first = await start(client, Screen(), pool.endless())
        # None of them ends meanwhile: a proxy that is killed while it moves a prompt loses that one.
        others = [await client.queue(pool.endless()) for _ in range(4)]
        await until_running(client, 2)
        await asyncio.to_thread(balancer.restart, kill=kill)
    async with script_client(pool.url, client_id=client_id, keeps_cookies=False) as client:
        queue = await client.get("/queue")
        known = {row[1] for row in queue["queue_running"] + queue["queue_pending"]}
        assert known == {first, *others}
        await client.post("/interrupt", {"prompt_id": first})
        await client.histories([first])
        screen = Screen()
        with pool.released():
            await watch(client, screen, first, *others)
        assert screen.ended == {first: "execution_interrupted"} | dict.fromkeys(others, "execution_success")
        history = await client.get("/history")
        for prompt_id in others:
            [image] = output_images(history[prompt_id])
            pool.check(prompt_id, 0, await client.view(image))


async def test_either_of_two_proxies_answers_for_the_prompts_of_the_other(
    servers: tuple[SimulatedServer, ...], arguments: tuple[str, ...], proxy: StartProxy
) -> None:
    one, other = proxy(*arguments), proxy(*arguments)
    pool = Pool(one.url, servers)
    async with (
        script_client(one.url, keeps_cookies=False) as asks,
        script_client(other.url, keeps_cookies=False) as answers,
    ):
        screen = Screen()
        first = await start(asks, screen, pool.endless())
        prompts = [first] + [await asks.queue(pool.endless()) for _ in range(3)]
        running, waiting = await until_running(answers, 2)
        assert running | waiting == set(prompts)

        await answers.post("/queue", {"delete": [*waiting]})
        [stopped] = running - {first}
        await answers.post("/interrupt", {"prompt_id": stopped})
        await watch(asks, screen, stopped)
        with pool.released():
            await watch(asks, screen, first)
        assert screen.ended == {first: "execution_success", stopped: "execution_interrupted"}
        [image] = output_images(await answers.history(first))
        pool.check(first, 0, await answers.view(image))


async def test_a_client_that_comes_back_through_the_other_proxy_gets_the_rest_of_its_events(
    servers: tuple[SimulatedServer, ...], arguments: tuple[str, ...], proxy: StartProxy
) -> None:
    one, other = proxy(*arguments), proxy(*arguments)
    pool, client_id, screen = Pool(one.url, servers), uuid.uuid4().hex, Screen()
    async with script_client(one.url, client_id=client_id, keeps_cookies=False) as client:
        prompt_id = await start(client, screen, pool.endless())
    async with script_client(other.url, client_id=client_id, keeps_cookies=False) as client:
        await until_shown(client, screen, prompt_id)
        with pool.released():
            await watch(client, screen, prompt_id)
        another = await client.queue(pool.long(0.3))
        await watch(client, screen, another)
        assert screen.ended == {prompt_id: "execution_success", another: "execution_success"}
    async with script_client(one.url, client_id=client_id, keeps_cookies=False) as client:
        back = await client.queue(pool.long(0.3))
        await watch(client, screen, back)
        assert screen.ended[back] == "execution_success"


async def test_clients_of_two_proxies_share_the_servers(
    servers: tuple[SimulatedServer, ...], arguments: tuple[str, ...], proxy: StartProxy
) -> None:
    one, other = proxy(*arguments), proxy(*arguments)
    pool = Pool(one.url, servers)
    async with script_client(one.url) as mine, script_client(other.url) as theirs:
        screens = Screen(), Screen()
        first = await start(mine, screens[0], pool.endless())
        second = await start(theirs, screens[1], pool.endless())
        with pool.released():
            await asyncio.gather(watch(mine, screens[0], first), watch(theirs, screens[1], second))
        assert pool.owner(first) is not pool.owner(second), "one waited while a server had nothing to do"
