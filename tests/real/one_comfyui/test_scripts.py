"""Scripts that were written for one ComfyUI, before a pool of them.

They keep no cookies: nothing but ids, and the address that they all share, tells them apart.
"""

import asyncio
import json
import time
import urllib.parse
import urllib.request
import uuid
from collections import Counter
from typing import Any

import aiohttp
import pytest
import requests
import websockets.sync.client
from real_peers.comfyui import began, output_images, script_client
from real_peers.pools import Pool
from real_peers.proxy import DIRECT, websocket_url
from real_peers.screen import Screen, start, until_running, watch
from real_peers.workflows import unique

pytestmark = [pytest.mark.real, pytest.mark.timeout(60, func_only=True)]


def run_official_script(pool: Pool, colour: int) -> tuple[str, bytes]:
    """ComfyUI's own websockets_api_example.py: a prompt_id of its own, a WebSocket, history, view."""

    def open_url(path: str, data: bytes | None = None) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(f"{pool.url}{path}", data=data), timeout=30) as it:
            body: bytes = it.read()
            return body

    client_id, prompt_id = str(uuid.uuid4()), str(uuid.uuid4())
    with websockets.sync.client.connect(f"{websocket_url(pool.url)}/ws?clientId={client_id}") as socket:
        body = {"prompt": pool.picture(colour), "client_id": client_id, "prompt_id": prompt_id}
        open_url("/prompt", json.dumps(body).encode())
        while True:
            message = socket.recv(timeout=30)
            event = json.loads(message) if isinstance(message, str) else {"type": "binary"}
            if event["type"] == "executing" and event["data"] == {"node": None, "prompt_id": prompt_id}:
                break
    history = json.loads(open_url(f"/history/{prompt_id}"))[prompt_id]
    [image] = output_images(history)
    return prompt_id, open_url(f"/view?{urllib.parse.urlencode(image)}")


async def test_several_official_scripts_at_once_get_the_pictures_that_one_comfyui_makes(
    pool: Pool, colours: tuple[int, ...]
) -> None:
    """All of them save `one_...png`: every server has files of the same names."""

    async def run_twice(colour: int, other: int) -> None:
        for one in (colour, other):
            prompt_id, received = await asyncio.to_thread(run_official_script, pool, one)
            pool.check(prompt_id, one, received)

    await asyncio.gather(*(run_twice(*pair) for pair in zip(colours[:4], colours[4:], strict=True)))


async def test_eight_prompts_of_one_client_are_shown_one_after_the_other_each_with_its_picture(
    pool: Pool, colours: tuple[int, ...]
) -> None:
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen = Screen()
        prompts = {await client.queue(pool.picture(colour)): colour for colour in colours}
        await watch(client, screen, *prompts)
        while screen.queue_remaining:
            screen.see(await client.next_event())

        assert screen.ended == dict.fromkeys(prompts, "execution_success")
        assert screen.greetings == 0, "the first status, which the client has read already, is the only one"
        history = await client.get("/history")
        for prompt_id, colour in prompts.items():
            [image] = output_images(history[prompt_id])
            assert screen.pictures[prompt_id] == [image]
            [same] = output_images(await client.history(prompt_id))
            pool.check(prompt_id, colour, await client.view(same))


async def test_long_jobs_run_on_all_servers_at_the_same_time_and_the_lists_show_all_of_them(
    pool: Pool,
) -> None:
    count = len(pool.servers)
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen = Screen()
        await start(client, screen, pool.endless())
        await asyncio.gather(*(client.queue(pool.endless()) for _ in range(2 * count - 1)))
        running, waiting = await until_running(client, count)
        queue = await client.get("/queue")
        rows = queue["queue_running"] + queue["queue_pending"]
        prompt_ids = {row[1] for row in rows}
        assert len(rows) == len(prompt_ids)
        assert all(row[3]["client_id"] == client.client_id for row in rows)
        assert (await client.get("/prompt"))["exec_info"]["queue_remaining"] in (len(rows), len(rows) - 1)

        for prompt_id in waiting:
            await client.post("/queue", {"delete": [prompt_id]})
        for prompt_id in running:
            await client.post("/interrupt", {"prompt_id": prompt_id})
        await watch(client, screen, *running)
        while screen.queue_remaining:
            screen.see(await client.next_event())
        assert await client.get("/queue") == {"queue_running": [], "queue_pending": []}


async def test_a_prompt_without_a_client_id_is_found_in_the_history_by_whoever_asks(
    pool: Pool, colours: tuple[int, ...]
) -> None:
    def run(colour: int) -> None:
        asked = requests.post(f"{pool.url}/prompt", json={"prompt": pool.picture(colour)}, timeout=20)
        prompt_id = asked.json()["prompt_id"]
        deadline = time.monotonic() + 30
        while not (history := requests.get(f"{pool.url}/history/{prompt_id}", timeout=20).json()):
            assert time.monotonic() < deadline, f"{prompt_id} comes into no history"
            time.sleep(0.02)
        [image] = output_images(history[prompt_id])
        pool.check(prompt_id, colour, requests.get(f"{pool.url}/view", params=image, timeout=20).content)

    for colour in colours[:4]:
        await asyncio.to_thread(run, colour)


async def test_a_waiting_prompt_is_taken_from_the_queue_and_never_runs(pool: Pool) -> None:
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen = Screen()
        running = [await start(client, screen, pool.endless())]
        running += [await client.queue(pool.endless()) for _ in pool.servers[1:]]
        await until_running(client, len(running))
        waiting = await client.queue(pool.long())
        await client.post("/queue", {"delete": [waiting]})
        for prompt_id in running:
            await client.post("/interrupt", {"prompt_id": prompt_id})
        await watch(client, screen, *running)
        queue = await client.get("/queue")
        assert [row[1] for rows in queue.values() for row in rows] == [], f"{running=} {waiting=}"
        assert await client.get(f"/history/{waiting}") == {}
        assert waiting not in screen.ended


async def test_an_interrupt_without_an_id_stops_what_the_client_runs_and_nothing_else(pool: Pool) -> None:
    if len(pool.servers) < 2:
        pytest.skip("one server runs one prompt at a time")
    async with script_client(pool.url) as impatient, script_client(pool.url) as patient:
        screens = Screen(), Screen()
        interrupted = await start(impatient, screens[0], pool.endless())
        undisturbed = await start(patient, screens[1], pool.long())
        await impatient.post("/interrupt")
        await watch(impatient, screens[0], interrupted)
        await watch(patient, screens[1], undisturbed)
        assert screens[0].ended == {interrupted: "execution_interrupted"}
        assert screens[1].ended == {undisturbed: "execution_success"}


async def test_clearing_the_queue_leaves_the_prompts_of_others(pool: Pool) -> None:
    if DIRECT:
        pytest.skip("one ComfyUI clears everybody's")
    async with script_client(pool.url) as one, script_client(pool.url) as other:
        screens = Screen(), Screen()
        running = [await start(one, screens[0], pool.endless())]
        running += [await one.queue(pool.endless()) for _ in pool.servers[1:]]
        await until_running(one, len(running))
        kept = await other.queue(pool.long(0.3))
        cleared = await one.queue(pool.long())
        await one.post("/queue", {"clear": True})
        waiting = {row[1] for row in (await one.get("/queue"))["queue_pending"]}
        assert cleared not in waiting
        for prompt_id in running:
            await one.post("/interrupt", {"prompt_id": prompt_id})
        await watch(one, screens[0], *running)
        await watch(other, screens[1], kept)
        assert screens[1].ended == {kept: "execution_success"}
        assert await one.get(f"/history/{cleared}") == {}


async def test_what_is_put_in_front_runs_before_what_waits(pool: Pool) -> None:
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen = Screen()
        running = [await start(client, screen, pool.endless())]
        running += [await client.queue(pool.endless()) for _ in pool.servers[1:]]
        await until_running(client, len(running))
        last = await client.queue(pool.long(0.3))
        first = await client.queue(pool.long(0.3), front=True)
        await client.post("/interrupt", {"prompt_id": running[0]})
        await watch(client, screen, first, last)
        with pool.released():
            await watch(client, screen, *running)
        assert screen.ended[first] == screen.ended[last] == "execution_success"
        history = await client.get("/history")
        assert began(history[first]) < began(history[last])


async def test_a_client_that_comes_back_during_its_job_gets_the_rest_of_its_events(pool: Pool) -> None:
    client_id = uuid.uuid4().hex
    screen = Screen()
    async with script_client(pool.url, client_id=client_id, keeps_cookies=False) as client:
        prompt_id = await start(client, screen, pool.endless())
    async with script_client(pool.url, client_id=client_id, keeps_cookies=False) as client:
        at_once = await client.events_until("executing")
        assert at_once[-1]["data"]["node"], "the node of the job that runs"
        for event in at_once:
            screen.see(event)
        with pool.released():
            await watch(client, screen, prompt_id)
        assert screen.ended == {prompt_id: "execution_success"}
        assert output_images(await client.history(prompt_id))


async def test_previews_are_those_of_the_job_that_is_shown(pool: Pool) -> None:
    async with script_client(pool.url, keeps_cookies=False) as client:
        await client.socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        screen, previewed = Screen(is_page=True), Counter[str]()
        prompts = [await client.queue(pool.long(0.5, previews=True)) for _ in range(len(pool.servers) + 1)]
        while not set(prompts) <= set(screen.idle):
            message = await client.socket.receive(timeout=30)
            if message.type is aiohttp.WSMsgType.TEXT:
                screen.see(json.loads(message.data))
                continue
            assert message.data[:4] == b"\0\0\0\4", "previews come as the client has flagged them"
            length = int.from_bytes(message.data[4:8], "big")
            prompt_id = json.loads(message.data[8 : 8 + length])["prompt_id"]
            assert prompt_id == screen.active
            previewed[prompt_id] += 1
        assert previewed.keys() <= set(prompts)
        assert prompts[0] in previewed


async def test_an_invalid_workflow_is_answered_as_comfyui_answers_it(pool: Pool) -> None:
    workflow = {"1": {"class_type": unique("NoSuchNode"), "inputs": {}}}
    through, straight = (
        requests.post(f"{url}/prompt", json={"prompt": workflow}, timeout=20)
        for url in (pool.url, pool.servers[0].url)
    )
    assert through.status_code == straight.status_code == 400
    assert through.json().keys() == straight.json().keys() == {"error", "node_errors"}
    assert through.json()["error"].keys() == straight.json()["error"].keys()
    assert workflow["1"]["class_type"] in through.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": {}},
        # Of several that are missing each server tells in another order.
        {"prompt": {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a"}}}},
    ],
    ids=["no prompt", "no nodes", "an input is missing"],
)
async def test_a_bad_body_is_answered_as_comfyui_answers_it(pool: Pool, body: dict[str, Any]) -> None:
    through, straight = (
        requests.post(f"{url}/prompt", json=body, timeout=20) for url in (pool.url, pool.servers[0].url)
    )
    assert through.status_code == straight.status_code == 400
    assert through.json() == straight.json()
