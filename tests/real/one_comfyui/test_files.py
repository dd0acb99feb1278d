"""Files and settings, which each ComfyUI keeps to itself, before a pool that has them once."""

import asyncio
import json

import aiohttp
import pytest
import requests
from real_peers.comfyui import ScriptClient, output_images, script_client
from real_peers.png import first_pixel, plain_png
from real_peers.pools import Pool
from real_peers.workflows import Workflow, picture, preview_of_upload, unique

pytestmark = [pytest.mark.real, pytest.mark.timeout(60, func_only=True)]

RED, GREEN, BLUE = 0xFF0000, 0x00FF00, 0x0000FF


async def run(client: ScriptClient, workflow: Workflow) -> bytes:
    """Run a workflow that makes one picture, and fetch that."""
    prompt_id = await client.queue(workflow)
    await client.events_of(prompt_id)
    [image] = output_images(await client.history(prompt_id))
    return await client.view(image)


async def run_everywhere(pool: Pool, workflow: Workflow) -> list[bytes]:
    """Run it on every server: behind jobs that keep all of them busy at the same time."""

    async def run_behind(number: int) -> bytes:
        async with script_client(pool.url, keeps_cookies=False) as client:
            await client.queue(pool.long(0.3))
            return await run(client, workflow)

    return await asyncio.gather(*(run_behind(number) for number in range(2 * len(pool.servers))))


def check_colour(pool: Pool, received: list[bytes], colour: int) -> None:
    """Simulated servers draw another picture, so there it is enough that each is one."""
    for one in received:
        assert pool.is_simulated or first_pixel(one) == colour, f"{first_pixel(one):06x}"


async def test_a_picture_that_was_uploaded_once_can_be_loaded_on_every_server(pool: Pool) -> None:
    name = f"{unique('upload')}.png"
    async with script_client(pool.url, keeps_cookies=False) as client:
        uploaded = await client.upload(name, plain_png(RED))
        assert uploaded == {"name": name, "subfolder": "", "type": "input"}
    check_colour(pool, await run_everywhere(pool, preview_of_upload(name)), RED)
    served = requests.get(f"{pool.url}/view", params={"filename": name, "type": "input"}, timeout=20)
    assert served.content == plain_png(RED)


async def test_an_upload_that_overwrites_is_what_every_server_loads_from_then_on(pool: Pool) -> None:
    name = f"{unique('overwritten')}.png"
    async with script_client(pool.url, keeps_cookies=False) as client:
        for colour in (RED, GREEN):
            assert (await client.upload(name, plain_png(colour), overwrite="true"))["name"] == name
            check_colour(pool, await run_everywhere(pool, preview_of_upload(name)), colour)
        served = await client.view({"filename": name, "type": "input", "subfolder": ""})
        assert served == plain_png(GREEN)


async def test_other_bytes_under_a_taken_name_get_another_and_the_same_bytes_do_not(pool: Pool) -> None:
    stem = unique("taken")
    names = []
    for colour in (RED, GREEN, RED, GREEN):
        async with script_client(pool.url, keeps_cookies=False) as client:
            names.append((await client.upload(f"{stem}.png", plain_png(colour)))["name"])
    assert names == [f"{stem}.png", f"{stem} (1).png"] * 2
    check_colour(pool, await run_everywhere(pool, preview_of_upload(f"{stem} (1).png")), GREEN)


async def test_an_upload_is_offered_by_the_node_that_loads_pictures(pool: Pool) -> None:
    name = f"{unique('offered')}.png"
    async with script_client(pool.url, keeps_cookies=False) as client:
        await client.get("/object_info/LoadImage")
        await client.upload(name, plain_png(BLUE))
        for path in ("/object_info/LoadImage", "/object_info"):
            offered = (await client.get(path))["LoadImage"]["input"]["required"]["image"]
            assert name in (offered[0] if isinstance(offered[0], list) else offered[1]["options"])


async def test_a_saved_picture_can_be_loaded_again_on_every_server(pool: Pool) -> None:
    async with script_client(pool.url, keeps_cookies=False) as client:
        prompt_id = await client.queue(picture(BLUE, prefix=unique("again")))
        await client.events_of(prompt_id)
        [image] = output_images(await client.history(prompt_id))
    again = preview_of_upload(f"{image['filename']} [output]")
    check_colour(pool, await run_everywhere(pool, again), BLUE)


async def test_a_mask_that_was_painted_on_a_picture_can_be_loaded_on_every_server(pool: Pool) -> None:
    """As the page's mask editor saves it: into `clipspace`, with the picture that it belongs to."""
    name, mask = f"{unique('painted')}.png", f"{unique('clipspace-mask')}.png"
    async with script_client(pool.url, keeps_cookies=False) as client:
        await client.upload(name, plain_png(GREEN))
        reference = json.dumps({"filename": name, "type": "input", "subfolder": ""})
        form = aiohttp.FormData({"type": "input", "subfolder": "clipspace", "original_ref": reference})
        form.add_field("image", plain_png(0xFFFFFF), filename=mask, content_type="image/png")
        async with client.session.post(f"{pool.url}/upload/mask", data=form) as response:
            assert await response.json() == {"name": mask, "subfolder": "clipspace", "type": "input"}
    check_colour(pool, await run_everywhere(pool, preview_of_upload(f"clipspace/{mask} [input]")), GREEN)


async def test_a_picture_is_served_with_ranges_heads_and_revalidation(pool: Pool) -> None:
    async with script_client(pool.url, keeps_cookies=False) as client:
        prompt_id = await client.queue(picture(RED, prefix=unique("view")))
        await client.events_of(prompt_id)
        [image] = output_images(await client.history(prompt_id))
        whole = await client.view(image)
        session, view = client.session, f"{pool.url}/view"
        async with session.get(view, params=image, headers={"Range": "bytes=8-23"}) as response:
            assert response.status == 206
            assert await response.read() == whole[8:24]
        async with session.head(view, params=image) as response:
            assert (response.status, response.content_length) == (200, len(whole))
            etag = response.headers["ETag"]
        async with session.get(view, params=image, headers={"If-None-Match": etag}) as response:
            assert response.status == 304
        async with session.get(view, params={**image, "filename": "nobody_has_it.png"}) as response:
            assert response.status == 404


async def test_settings_and_user_files_are_there_for_whoever_asks_next(pool: Pool) -> None:
    name, setting = unique("saved"), unique("Trial.Setting")
    path = f"/userdata/workflows%2F{name}.json"
    async with script_client(pool.url, keeps_cookies=False) as client:
        await client.post(path, {"nodes": [1]})
        await client.post(f"/settings/{setting}", 7)
    for _ in range(len(pool.servers) + 1):
        async with script_client(pool.url, keeps_cookies=False) as client:
            assert await client.get(path) == {"nodes": [1]}
            assert f"{name}.json" in await client.get("/userdata?dir=workflows")
            assert await client.get(f"/settings/{setting}") == 7
            assert (await client.get("/settings"))[setting] == 7
    async with script_client(pool.url, keeps_cookies=False) as client:
        await client.post(f"/userdata/workflows%2F{name}.json/move/workflows%2F{name}-moved.json")
        assert await client.get(f"/userdata/workflows%2F{name}-moved.json") == {"nodes": [1]}
