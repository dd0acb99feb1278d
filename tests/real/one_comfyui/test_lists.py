"""What one ComfyUI lists, before a pool that lists what all of its servers do, in the same shapes."""

import uuid
from typing import Any

import pytest
import requests
from real_peers.comfyui import script_client
from real_peers.pools import Pool, without_marks
from real_peers.proxy import DIRECT
from real_peers.screen import Screen, start, watch

pytestmark = [pytest.mark.real, pytest.mark.timeout(60, func_only=True)]


def get(pool: Pool, path: str, expected: int = 200, **query: Any) -> Any:
    """The JSON of an answer; nothing says who asks."""
    response = requests.get(f"{pool.url}{path}", params=query, timeout=20)
    assert response.status_code == expected, response.text
    return response.json()


@pytest.fixture(scope="module")
def ended(pool: Pool, colours: tuple[int, ...], event_loop_runner: Any) -> list[str]:
    """Prompts that have come to their end one after the other, the oldest first."""

    async def run() -> list[str]:
        async with script_client(pool.url, keeps_cookies=False) as client:
            screen, prompts = Screen(), []
            for colour in colours[:5]:
                prompts.append(await client.queue(pool.picture(colour)))
                await watch(client, screen, prompts[-1])
            return prompts

    prompts: list[str] = event_loop_runner.run(run())
    return prompts


def test_the_history_is_that_of_all_servers_in_the_order_of_their_ends(pool: Pool, ended: list[str]) -> None:
    assert [one for one in get(pool, "/history") if one in ended] == ended
    assert list(get(pool, "/history", max_items=3)) == ended[-3:]
    assert list(get(pool, "/history", max_items=2, offset=0)) == list(get(pool, "/history"))[:2]
    for prompt_id in ended:
        record = without_marks(get(pool, f"/history/{prompt_id}")[prompt_id])
        straight = pool.owner(prompt_id).history(prompt_id)[prompt_id]
        # One that was moved while it waited is as old as its submission.
        assert record["prompt"][3].pop("create_time") <= straight["prompt"][3]["create_time"]
        assert record["prompt"][3].items() <= straight["prompt"][3].items()
        record["prompt"][3] = straight["prompt"][3] = {}
        assert record == straight


def test_what_nobody_knows_is_an_empty_history_and_not_an_error(pool: Pool) -> None:
    assert get(pool, f"/history/{uuid.uuid4()}") == {}


def test_a_deleted_entry_is_gone_from_the_history_and_the_others_are_not(
    pool: Pool, ended: list[str]
) -> None:
    response = requests.post(f"{pool.url}/history", json={"delete": [ended[0]]}, timeout=20)
    assert response.status_code == 200
    left = [one for one in get(pool, "/history") if one in ended]
    assert left == ended[1:]


def test_the_nodes_are_those_of_the_servers(pool: Pool) -> None:
    through, straight = (
        requests.get(f"{url}/object_info", timeout=20).json() for url in (pool.url, pool.servers[0].url)
    )
    assert list(through) == list(straight)
    assert through["EmptyImage"] == straight["EmptyImage"]
    assert get(pool, "/object_info/SaveImage")["SaveImage"] == straight["SaveImage"]
    assert get(pool, "/object_info/NoSuchNode") == {}


def test_the_devices_are_those_of_all_servers(pool: Pool) -> None:
    through = get(pool, "/system_stats")
    straight = [requests.get(f"{server.url}/system_stats", timeout=20).json() for server in pool.servers]
    assert through["system"].keys() == straight[0]["system"].keys()
    assert len(through["devices"]) == sum(len(one["devices"]) for one in straight)
    for device in through["devices"]:
        assert device.keys() == straight[0]["devices"][0].keys()


@pytest.mark.parametrize(
    "path", ["/features", "/embeddings", "/models", "/models/checkpoints", "/extensions", "/i18n", "/users"]
)
def test_what_is_the_same_everywhere_is_answered_by_any_server(pool: Pool, path: str) -> None:
    straight = requests.get(f"{pool.servers[0].url}{path}", timeout=20)
    through = requests.get(f"{pool.url}{path}", timeout=20)
    assert (through.status_code, through.json()) == (straight.status_code, straight.json())


def test_a_path_that_nobody_knows_is_not_found(pool: Pool) -> None:
    straight = requests.get(f"{pool.servers[0].url}/no/such/path", timeout=20)
    assert requests.get(f"{pool.url}/no/such/path", timeout=20).status_code == straight.status_code


def test_freeing_memory_is_accepted(pool: Pool) -> None:
    body = {"unload_models": True, "free_memory": True}
    assert requests.post(f"{pool.url}/free", json=body, timeout=20).status_code == 200


async def test_jobs_are_listed_filtered_and_cut_into_pages(pool: Pool, ended: list[str]) -> None:
    """Servers that are too old for it have the list made for them."""
    if DIRECT and requests.get(f"{pool.url}/api/jobs", timeout=20).status_code == 404:
        pytest.skip("this server has no /api/jobs, and there is no proxy to make one")
    async with script_client(pool.url, keeps_cookies=False) as client:
        screen = Screen()
        running = [await start(client, screen, pool.endless())]
        jobs = get(pool, "/api/jobs", status="in_progress,pending", limit=200, offset=0)
        assert [job["id"] for job in jobs["jobs"]] == running
        assert jobs["pagination"] == {"offset": 0, "limit": 200, "total": 1, "has_more": False}
        assert jobs["jobs"][0]["status"] == "in_progress"
        assert get(pool, f"/api/jobs/{running[0]}")["workflow"]["prompt"]

        cancelled = await client.post(f"/api/jobs/{running[0]}/cancel")
        assert cancelled == {"cancelled": True}
        await watch(client, screen, *running)
    newest_first = [running[0], *reversed(ended[1:])]
    page = get(pool, "/api/jobs", status="completed,failed,cancelled", limit=3, offset=0)
    assert [job["id"] for job in page["jobs"]] == newest_first[:3]
    assert [job["status"] for job in page["jobs"]] == ["cancelled", "completed", "completed"]
    assert page["pagination"]["has_more"] is True
    second = get(pool, "/api/jobs", status="completed,failed,cancelled", limit=2, offset=3)
    assert [job["id"] for job in second["jobs"]] == newest_first[3:5]
    job = page["jobs"][1]
    assert job["preview_output"]["filename"].endswith(".png")
    assert job["outputs_count"] == 1
    assert job["execution_end_time"] >= job["execution_start_time"]
    assert get(pool, f"/api/jobs/{uuid.uuid4()}", expected=404) == {"error": "Job not found"}
