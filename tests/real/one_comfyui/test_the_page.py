"""ComfyUI's own page in a headless Chromium, before a pool that it takes for one ComfyUI."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from real_peers import installed
from real_peers.browser import ComfyUIPage, chromium
from real_peers.comfyui import ComfyUI, output_images
from real_peers.png import first_pixel, plain_png
from real_peers.proxy import DIRECT, Front, StartProxy
from real_peers.workflows import drawn, many_large_pictures, preview_of_upload, unique

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

BLUE = 0x0000FF


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser for the module."""
    if reason := installed.why_no_browser():
        pytest.skip(reason)
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def servers(comfyuis: tuple[ComfyUI, ...]) -> tuple[ComfyUI, ...]:
    """The servers behind the address under test: both, or only the first when there is no proxy."""
    return comfyuis[:1] if DIRECT else comfyuis


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures of what was seen are kept."""
    return tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def page(
    browser: "Browser", front: Front, servers: tuple[ComfyUI, ...], screenshots: Path
) -> Iterator[ComfyUIPage]:
    """One tab for the module, as a person keeps it; at the end nothing of it may have failed."""
    url = front(*(server.url for server in servers), options=("--placement", "prompt"))
    page = ComfyUIPage(browser, url, screenshots)
    page.grow(2400)
    page.open()
    yield page
    page.close()
    assert page.failures == []


def record_of(page: ComfyUIPage, prompt_id: str) -> dict[str, Any]:
    """The history of a prompt as any script gets it at the same address."""
    record: dict[str, Any] = requests.get(f"{page.url}/history/{prompt_id}", timeout=20).json()[prompt_id]
    return record


def saved_picture(page: ComfyUIPage, prompt_id: str) -> dict[str, str]:
    """The picture that a prompt has saved."""
    [image] = [one for one in output_images(record_of(page, prompt_id)) if one["type"] == "output"]
    return image


def long_job(count: int = 24) -> dict[str, Any]:
    """Some seconds of work."""
    return drawn(many_large_pictures(prefix=unique("page"), count=count, size=1024))


def test_run_pressed_eight_times_uses_all_servers_and_all_pictures_are_seen_in_the_queue_panel(
    page: ComfyUIPage, servers: tuple[ComfyUI, ...]
) -> None:
    page.open_workflow(0)
    page.set_widget(1, "width", 3072)
    page.set_widget(1, "height", 3072)
    prompts = {}
    for colour in range(0x203040, 0x203048):
        page.set_widget(1, "color", colour)
        prompts[page.run()] = colour
    page.wait_until_idle()
    page.open_queue_panel()
    seen = set()
    for prompt_id, colour in prompts.items():
        picture = saved_picture(page, prompt_id)
        page.see_in_queue_panel(picture)
        assert first_pixel(page.received(picture)) == colour
        seen.add(tuple(picture.items()))
    page.screenshot("eight")
    assert len(seen) == 8, "each has a name of its own"
    ran = [[prompt_id for prompt_id in prompts if server.history(prompt_id)] for server in servers]
    assert all(ran), "a server had nothing to do"
    assert sum(map(len, ran)) == 8


def test_an_uploaded_picture_is_used_by_each_of_several_runs(page: ComfyUIPage) -> None:
    name = f"{unique('chosen')}.png"
    page.open_drawn(drawn(preview_of_upload("example.png")))
    page.upload_into(1, name, plain_png(BLUE))
    page.open_workflow(0x445566)
    prompts = [page.run()]
    page.open_drawn(drawn(preview_of_upload(name)))
    prompts += [page.run() for _ in range(3)]
    page.wait_until_idle()
    for prompt_id in prompts[1:]:
        [shown] = [one for one in output_images(record_of(page, prompt_id)) if one["type"] == "temp"]
        assert first_pixel(requests.get(f"{page.url}/view", params=shown, timeout=20).content) == BLUE


def test_one_of_several_runs_is_cancelled_and_the_others_end_well(page: ComfyUIPage) -> None:
    page.open_drawn(long_job(60))
    cancelled = page.run()
    page.wait_until_executing(cancelled)
    kept = page.run()
    page.cancel_current_run()
    page.wait_until_idle()
    for prompt_id, completed in ((cancelled, False), (kept, True)):
        page.wait_until_known(prompt_id)
        assert record_of(page, prompt_id)["status"]["completed"] is completed


def test_a_page_that_is_loaded_again_during_a_job_shows_its_progress_and_its_end(page: ComfyUIPage) -> None:
    page.open_drawn(long_job(48))
    prompt_id = page.run()
    page.wait_until_executing(prompt_id)
    page.reload()
    page.wait_until_known(prompt_id)
    page.wait_until_idle()
    pictures = output_images(record_of(page, prompt_id))
    assert len(pictures) == 48
    page.open_queue_panel()
    page.see_in_queue_panel(*pictures)
    page.screenshot("loaded-again")


@pytest.mark.parametrize("requeue", [True, False], ids=["run again", "told"])
def test_a_page_whose_server_dies_during_a_job_is_told_or_gets_its_pictures_from_another(
    browser: "Browser",
    comfyuis: tuple[ComfyUI, ...],
    third_comfyui: ComfyUI,
    proxy: StartProxy,
    screenshots: Path,
    requeue: bool,
) -> None:
    if not third_comfyui.process.running:
        third_comfyui.restart()
    servers = (third_comfyui, comfyuis[0])
    options = ("--placement", "prompt", *(["--requeue"] if requeue else []))
    balancer = proxy("--url", ",".join(server.url for server in servers), *options)
    page = ComfyUIPage(browser, balancer.url, screenshots)
    page.open()
    requests.post(
        f"{comfyuis[0].url}/prompt", json={"prompt": many_large_pictures(prefix="busy")}, timeout=20
    )
    page.open_drawn(long_job())
    prompt_id = page.run()
    page.wait_until_executing(prompt_id)
    third_comfyui.kill()
    page.wait_until_known(prompt_id)
    page.wait_until_idle()
    record = record_of(page, prompt_id)
    assert record["status"]["completed"] is requeue
    if requeue:
        assert len(output_images(record)) == 24
    else:
        page.see(".p-dialog, .p-toast", "server number 1 ")
    page.screenshot(f"died-{requeue}")
    page.close()
