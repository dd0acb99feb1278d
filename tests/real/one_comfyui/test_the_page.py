"""ComfyUI's own page in a headless Chromium, before a pool that it takes for one ComfyUI."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from real_peers import installed
from real_peers.browser import ComfyUIPage, chromium
from real_peers.comfyui import ComfyUI, output_images
from real_peers.png import first_pixel, plain_png
from real_peers.pools import released
from real_peers.proxy import DIRECT, Front, StartProxy
from real_peers.workflows import ENDLESS, drawn, preview_of_upload, unique, waiting_picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.real, pytest.mark.timeout(240, func_only=True)]

BLUE = 0x0000FF

RAINBOW = (0xD62728, 0xFF7F0E, 0xF2C80F, 0x2CA02C, 0x17BECF, 0x1F77B4, 0x9467BD, 0xE377C2)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser for the module."""
    if reason := installed.why_no_browser():
        pytest.skip(reason)
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def servers(third_comfyui: ComfyUI, comfyuis: tuple[ComfyUI, ...]) -> tuple[ComfyUI, ...]:
    """The servers behind the address under test: three, or only the first when there is no proxy.

    All are there: a proxy that starts before one of them leaves that one out until its next check.
    """
    found = comfyuis[:1] if DIRECT else (*comfyuis, third_comfyui)
    for server in found:
        server.wait()
    return found


@pytest.fixture(autouse=True)
def all_there(servers: tuple[ComfyUI, ...]) -> None:
    """Servers that are there, whichever a test before has killed."""
    for server in servers:
        if not server.process.running:
            server.start_again()
        server.wait()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures of what was seen are kept."""
    return tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def page(
    browser: "Browser", front: Front, servers: tuple[ComfyUI, ...], screenshots: Path
) -> Iterator[ComfyUIPage]:
    """One tab for the module, as a person keeps it; at the end nothing of it may have failed."""
    url = front(*(server.url for server in servers), options=("--placement", "prompt", "--requeue"))
    page = ComfyUIPage(browser, url, screenshots)
    page.open()
    open_wide_queue_panel(page)
    yield page
    page.close()
    assert page.failures == []


def open_wide_queue_panel(page: ComfyUIPage) -> None:
    """Show the queue, and make room in it for nine pictures."""
    page.open_queue_panel()
    page.widen_panel(60)


def record_of(page: ComfyUIPage, prompt_id: str) -> dict[str, Any]:
    """The history of a prompt as any script gets it at the same address."""
    record: dict[str, Any] = requests.get(f"{page.url}/api/history/{prompt_id}", timeout=20).json()[prompt_id]
    return record


def picture_of(page: ComfyUIPage, prompt_id: str, kind: str = "output") -> dict[str, str]:
    """The one picture of a kind that a prompt has made."""
    [image] = [one for one in output_images(record_of(page, prompt_id)) if one["type"] == kind]
    return image


def open_job(page: ComfyUIPage, seconds: float, colour: int = BLUE) -> None:
    """Open a workflow that takes this long and makes a picture."""
    page.open_drawn(drawn(waiting_picture(colour, prefix="page", seconds=seconds)))


def release(page: ComfyUIPage, servers: Sequence[ComfyUI], *prompts: str) -> None:
    """Let the prompts on these servers come to their ends, and wait until the page knows of them."""
    with released(servers):
        page.wait_until_ended(*prompts)


def ran(prompts: Sequence[str], server: ComfyUI) -> list[str]:
    """Those of the prompts that have come to their end on this server."""
    return [prompt_id for prompt_id in prompts if server.history(prompt_id)]


def test_run_pressed_eight_times_uses_all_servers_and_all_pictures_are_seen_in_the_queue_panel(
    page: ComfyUIPage, servers: tuple[ComfyUI, ...]
) -> None:
    open_job(page, ENDLESS)
    prompts = {}
    for colour in RAINBOW:
        page.set_widget(1, "color", colour)
        prompts[page.run()] = colour
    release(page, servers, *prompts)
    pictures = {prompt_id: picture_of(page, prompt_id) for prompt_id in prompts}
    for prompt_id, colour in prompts.items():
        page.see_in_queue_panel(pictures[prompt_id])
        assert first_pixel(page.received(pictures[prompt_id])) == colour
    page.draw_graph_at(860, 180)
    page.screenshot("eight")
    assert len({tuple(one.items()) for one in pictures.values()}) == 8, "each has a name of its own"
    shares = [ran([*prompts], server) for server in servers]
    assert all(shares), "a server had nothing to do"
    assert sum(map(len, shares)) == 8


def test_the_newest_page_lists_jobs_of_servers_that_are_older_than_it(
    browser: "Browser", proxy: StartProxy, servers: tuple[ComfyUI, ...], screenshots: Path
) -> None:
    """It asks for `/api/jobs` alone, which these servers do not have: the pool makes it of their lists."""
    if reason := installed.why_no_newest_frontend():
        pytest.skip(reason)
    urls = ",".join(server.url for server in servers)
    balancer = proxy(
        "--url", urls, "--placement", "prompt", "--static", installed.newest_frontend_static_folder()
    )
    with closing(ComfyUIPage(browser, balancer.url, screenshots)) as page:
        page.open()
        open_job(page, ENDLESS)
        prompts = {}
        for colour in RAINBOW:
            page.set_widget(1, "color", colour)
            prompts[page.run_by_key()] = colour
        page.see("button", f"{len(RAINBOW)} active")
        release(page, servers, *prompts)
        page.page.get_by_role("button", name="0 active").click()
        for prompt_id, colour in prompts.items():
            picture = picture_of(page, prompt_id)
            page.see_picture(picture)
            assert first_pixel(page.received(picture)) == colour
        page.screenshot("newest")
        assert all(ran([*prompts], server) for server in servers), "a server had nothing to do"
    assert page.failures == []


def test_an_uploaded_picture_is_used_by_each_of_several_runs(
    page: ComfyUIPage, servers: tuple[ComfyUI, ...]
) -> None:
    name = f"{unique('chosen')}.png"
    waits = waiting_picture(0, prefix="page", seconds=ENDLESS)
    page.open_drawn(drawn(preview_of_upload("example.png") | waits))
    page.draw_graph_at(860, 180)
    page.upload_into(1, name, plain_png(BLUE))
    prompts = [page.run() for _ in range(len(servers) + 1)]
    release(page, servers, *prompts)
    assert all(ran(prompts, server) for server in servers), "a server had nothing to do"
    for prompt_id in prompts:
        shown = picture_of(page, prompt_id, "temp")
        assert first_pixel(requests.get(f"{page.url}/view", params=shown, timeout=20).content) == BLUE


def test_one_of_several_runs_is_cancelled_and_the_others_end_well(page: ComfyUIPage) -> None:
    open_job(page, ENDLESS)
    cancelled = page.run()
    page.wait_until_executing(cancelled)
    page.set_widget(1, "seconds", 0.3)
    kept = page.run()
    page.cancel_current_run()
    page.wait_until_ended(cancelled, kept)
    assert record_of(page, cancelled)["status"]["completed"] is False
    assert record_of(page, kept)["status"]["completed"] is True


def test_a_page_that_is_loaded_again_during_a_job_shows_its_progress_and_its_end(
    page: ComfyUIPage, servers: tuple[ComfyUI, ...]
) -> None:
    open_job(page, ENDLESS)
    prompt_id = page.run()
    page.wait_until_executing(prompt_id)
    page.reload()
    open_wide_queue_panel(page)
    page.wait_until_executing(prompt_id)
    release(page, servers, prompt_id)
    page.see_in_queue_panel(picture_of(page, prompt_id))
    page.screenshot("loaded-again")


def run_while_one_dies(page: ComfyUIPage, survivors: Sequence[ComfyUI], victim: ComfyUI) -> tuple[str, ...]:
    """Run as many jobs as there are servers and kill one; the prompts, first the one that ran there."""
    open_job(page, ENDLESS)
    prompts = {page.run() for _ in (*survivors, victim)}
    on_victim: list[Any] = []
    while not on_victim:
        on_victim = requests.get(f"{victim.url}/queue", timeout=20).json()["queue_running"]
    victim.kill()
    release(page, survivors, *prompts)
    victim.start_again()
    [lost] = [row[1] for row in on_victim]
    return (lost, *(prompts - {lost}))


def test_a_page_whose_server_dies_during_a_job_gets_its_picture_from_another(
    page: ComfyUIPage, comfyuis: tuple[ComfyUI, ...], third_comfyui: ComfyUI
) -> None:
    if DIRECT:
        pytest.skip("needs other servers")
    prompts = run_while_one_dies(page, comfyuis, third_comfyui)
    for prompt_id in prompts:
        assert record_of(page, prompt_id)["status"]["completed"] is True
        page.see_in_queue_panel(picture_of(page, prompt_id))
    page.screenshot("died-and-run-again")


def test_a_page_whose_server_dies_during_a_job_is_told_which_one_it_was(
    browser: "Browser",
    comfyuis: tuple[ComfyUI, ...],
    third_comfyui: ComfyUI,
    proxy: StartProxy,
    screenshots: Path,
) -> None:
    servers = (third_comfyui, comfyuis[0])
    balancer = proxy("--url", ",".join(server.url for server in servers), "--placement", "prompt")
    with closing(ComfyUIPage(browser, balancer.url, screenshots)) as page:
        page.open()
        lost, kept = run_while_one_dies(page, comfyuis[:1], third_comfyui)
        page.see(".p-dialog, .p-toast", "server number 1 ")
        page.screenshot("died-and-told")
        assert record_of(page, lost)["status"]["completed"] is False
        assert record_of(page, kept)["status"]["completed"] is True
