"""Clients of ComfyUI's API as PyPI has them, unmodified; both post a prompt first and listen afterwards."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from real_peers import installed
from real_peers.pools import Pool
from real_peers.workflows import Workflow, preview_of_upload

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(60, func_only=True),
    pytest.mark.skipif(
        installed.why_no_api_clients() is not None, reason=str(installed.why_no_api_clients())
    ),
]


@pytest.fixture(scope="module", autouse=True)
def api_clients() -> None:
    """The clients can be imported."""
    installed.add_api_clients_to_path()


def with_titles(workflow: Workflow) -> Workflow:
    """As the page exports it: each node with a title, its class; comfy-api-simplified goes by these."""
    return {name: {**node, "_meta": {"title": node["class_type"]}} for name, node in workflow.items()}


def numbered(workflow: Workflow) -> Workflow:
    """The same with numbers for its nodes: comfyui-utils takes no other names."""
    numbers = {name: str(number) for number, name in enumerate(workflow, 1)}

    def renamed(value: Any) -> Any:
        return [numbers[value[0]], value[1]] if isinstance(value, list) else value

    return {
        numbers[name]: {**node, "inputs": {key: renamed(value) for key, value in node["inputs"].items()}}
        for name, node in workflow.items()
    }


async def run_with_comfyui_utils(pool: Pool, workflow: Workflow) -> tuple[dict[str, Any], bytes]:
    """Submit, wait and fetch with comfyui-utils; the output that it reports, and the picture."""
    from comfyui_utils import comfy

    outputs: list[dict[str, Any]] = []
    pictures: list[bytes] = []

    class Callbacks(comfy.Callbacks):
        async def queue_position(self, position: str) -> None: ...

        async def in_progress(self, node_id: int, progress: int, total: int) -> None: ...

        async def completed(self, reported: dict[str, Any], cached: bool) -> None:
            outputs.append(reported)

    async def keep(file: io.BytesIO) -> None:
        pictures.append(file.getvalue())

    api = comfy.ComfyAPI(pool.url.removeprefix("http://"))
    await api.submit(workflow, Callbacks())
    [output] = outputs
    await api.fetch(output["images"][0], keep)
    return output, pictures[0]


async def test_comfyui_utils_gets_one_picture_after_the_other(pool: Pool, colours: tuple[int, ...]) -> None:
    received = set()
    for colour in colours[:4]:
        output, data = await run_with_comfyui_utils(pool, numbered(pool.picture(colour)))
        assert output["images"][0]["type"] == "output"
        received.add(data)
    assert len(received) == 4


async def test_comfyui_utils_gets_its_pictures_several_at_once(pool: Pool) -> None:
    """At each `status` it reads the queue, and takes more than one row of what runs for an error."""
    if pool.is_simulated:
        pytest.skip("it takes previews for an error")
    runs = [run_with_comfyui_utils(pool, numbered(pool.long(0.3))) for _ in range(4)]
    received = await asyncio.gather(*runs)
    assert all(data.startswith(b"\x89PNG") for _, data in received)


async def test_comfy_api_simplified_gets_its_pictures_several_at_once(
    pool: Pool, colours: tuple[int, ...]
) -> None:
    from comfy_api_simplified import ComfyApiWrapper

    def run(colour: int) -> bytes:
        api = ComfyApiWrapper(pool.url)
        [received] = api.queue_and_wait_images(with_titles(pool.picture(colour)), "SaveImage").values()
        return received

    received = await asyncio.gather(*(asyncio.to_thread(run, colour) for colour in colours[:4]))
    assert len(set(received)) == 4


async def test_comfy_api_simplified_waits_for_a_long_job(pool: Pool) -> None:
    """It takes a `status` with nothing remaining for the end: one that counts too little ends it early."""
    if pool.is_simulated:
        pytest.skip("it takes previews for pictures")
    from comfy_api_simplified import ComfyApiWrapper

    def run() -> dict[str, bytes]:
        pictures: dict[str, bytes] = ComfyApiWrapper(pool.url).queue_and_wait_images(
            with_titles(pool.long(0.8)), "SaveImage"
        )
        return pictures

    runs = await asyncio.gather(asyncio.to_thread(run), asyncio.to_thread(run))
    assert all(len(pictures) == 1 for pictures in runs)


async def test_comfy_api_simplified_uploads_once_and_uses_it_in_several_prompts(
    pool: Pool, colours: tuple[int, ...], tmp_path: Path
) -> None:
    from comfy_api_simplified import ComfyApiWrapper

    def run() -> None:
        api = ComfyApiWrapper(pool.url)
        [drawn] = api.queue_and_wait_images(with_titles(pool.picture(colours[0])), "SaveImage").values()
        path = tmp_path / "drawn.png"
        path.write_bytes(drawn)
        uploaded = api.upload_image(path, subfolder="trials")
        workflow = with_titles(preview_of_upload(f"{uploaded['subfolder']}/{uploaded['name']}"))
        for _ in range(2 * len(pool.servers)):
            [shown] = api.queue_and_wait_images(workflow, "PreviewImage").values()
            assert shown.startswith(b"\x89PNG")

    await asyncio.to_thread(run)
