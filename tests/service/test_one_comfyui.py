"""The real proxy on loopback before simulated servers that are to be one ComfyUI (``--placement prompt``)."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from comfyproxy.demo.first_prompt import Failed, Finished, Queued, demo_workflow, run_prompt
from comfyproxy.demo.server import SimulatedComfyUI, start_demo_servers, stop_all

StartService = Callable[..., Any]
Get = Callable[..., "Deferred[bytes]"]


@pytest_twisted.async_yield_fixture
async def gpus() -> AsyncIterator[list[SimulatedComfyUI]]:
    """Three of them, whose prompts run eight times as fast as they say."""
    servers = await start_demo_servers(global_reactor, 3, speed=8.0)
    yield servers
    await stop_all(servers)


def in_front_of(start_service: StartService, gpus: list[SimulatedComfyUI], **options: Any) -> Any:
    return start_service(url=[",".join(one.url for one in gpus)], placement="prompt", **options)


def url_of(service: Any) -> str:
    return f"http://127.0.0.1:{service.addresses[0].port}"


async def wait(seconds: float) -> None:
    await deferLater(global_reactor, seconds, lambda: None)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await wait(0.02)
    pytest.fail("it does not come about")


def runs_of(url: str, count: int, seconds: float = 4.0) -> tuple[list[Any], "Deferred[list[Any]]"]:
    """Clients that each run one prompt; what they report, and their ends."""
    reports: list[Any] = []
    runs = [
        run_prompt(global_reactor, url, reports.append, demo_workflow(seed, 4, seconds))
        for seed in range(count)
    ]
    return reports, gatherResults(runs)


async def test_prompts_of_several_clients_work_on_all_servers(
    start_service: StartService, gpus: list[SimulatedComfyUI], get: Get
) -> None:
    service = in_front_of(start_service, gpus)
    _, ends = runs_of(url_of(service), 6)
    finished = await ends
    assert all(isinstance(one, Finished) for one in finished)
    assert {picture.server for one in finished for picture in one.pictures} == {"gpu-1", "gpu-2", "gpu-3"}
    history = json.loads(await get(service, "/history"))
    assert set(history) == {one.prompt_id for one in finished}
    assert json.loads(await get(service, "/queue")) == {"queue_running": [], "queue_pending": []}
    assert json.loads(await get(service, "/api/jobs"))["pagination"]["total"] == 6


async def test_what_waits_on_a_server_that_dies_is_run_by_the_others(
    start_service: StartService, gpus: list[SimulatedComfyUI]
) -> None:
    service = in_front_of(start_service, gpus, requeue=True)
    reports, ends = runs_of(url_of(service), 6, 16.0)
    await until(lambda: sum(isinstance(one, Queued) for one in reports) == 6)
    await until(lambda: gpus[0].machine.queue.running is not None)
    await gpus[0].stop()
    finished = await ends
    assert all(isinstance(one, Finished) for one in finished), finished
    assert {picture.server for one in finished for picture in one.pictures} == {"gpu-2", "gpu-3"}


async def test_without_requeue_what_ran_there_ends_with_an_error(
    start_service: StartService, gpus: list[SimulatedComfyUI]
) -> None:
    service = in_front_of(start_service, gpus)
    reports, ends = runs_of(url_of(service), 3, 24.0)
    await until(lambda: sum(isinstance(one, Queued) for one in reports) == 3)
    await until(lambda: gpus[0].machine.queue.running is not None)
    await gpus[0].stop()
    failed = [one for one in await ends if isinstance(one, Failed)]
    assert len(failed) == 1
    assert "number 1" in failed[0].reason


async def test_a_restarted_proxy_goes_on_with_what_runs(
    start_service: StartService, gpus: list[SimulatedComfyUI], get: Get
) -> None:
    first = in_front_of(start_service, gpus, drain_timeout="0")
    reports, ends = runs_of(url_of(first), 4, 24.0)
    await until(lambda: sum(isinstance(one, Queued) for one in reports) == 4)
    ids = {one.prompt_id for one in reports if isinstance(one, Queued)}
    await first.stopService()
    await ends
    second = in_front_of(start_service, gpus)
    await wait(0.5)
    queue = json.loads(await get(second, "/queue"))
    assert {row[1] for row in queue["queue_running"] + queue["queue_pending"]} == ids
    for _ in range(100):
        history = json.loads(await get(second, "/history"))
        if set(history) == ids:
            break
        await wait(0.1)
    assert set(history) == ids
    assert json.loads(await get(second, "/prompt")) == {"exec_info": {"queue_remaining": 0}}


async def test_two_proxies_answer_for_each_others_prompts(
    start_service: StartService, gpus: list[SimulatedComfyUI], get: Get
) -> None:
    one, other = (in_front_of(start_service, gpus) for _ in range(2))
    _, ends = runs_of(url_of(one), 3)
    finished = await ends
    for run in finished:
        told = json.loads(await get(other, f"/history/{run.prompt_id}"))
        assert list(told) == [run.prompt_id]


async def test_a_reload_keeps_the_prompts_that_run(
    start_service: StartService, gpus: list[SimulatedComfyUI]
) -> None:
    service = in_front_of(start_service, gpus)
    reports, ends = runs_of(url_of(service), 3, 8.0)
    await until(lambda: sum(isinstance(one, Queued) for one in reports) == 3)
    service.reload()
    assert all(isinstance(one, Finished) for one in await ends)
