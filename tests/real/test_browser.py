"""ComfyUI's page in a headless Chromium, through the proxy to two real ComfyUI servers."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from real_peers import installed
from real_peers.browser import ComfyUIPage, Tab, chromium
from real_peers.comfyui import ComfyUI, owner_of
from real_peers.processes import ServerProcesses
from real_peers.proxy import DIRECT, Front, StartProxy
from real_peers.vite import Vite

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.real, pytest.mark.timeout(120, func_only=True)]

RED, GREEN, BLUE = 0xFF0000, 0x00FF00, 0x0000FF


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser for the module; each tab has a profile of its own."""
    if reason := installed.why_no_browser():
        pytest.skip(reason)
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures of what was seen are kept; pytest keeps those of the last three runs."""
    return tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def pool(comfyuis: tuple[ComfyUI, ...]) -> tuple[ComfyUI, ...]:
    """The servers behind the address under test: both, or only the first when there is no proxy."""
    return comfyuis[:1] if DIRECT else comfyuis


@pytest.fixture(scope="module")
def url(front: Front, pool: tuple[ComfyUI, ...]) -> str:
    """The address under test."""
    return front(*(server.url for server in pool))


@pytest.fixture
def page(browser: "Browser", url: str, screenshots: Path) -> Iterator[ComfyUIPage]:
    """A tab with ComfyUI's page, started; at the end nothing of it may have failed."""
    yield from started_page(browser, url, screenshots)


def started_page(browser: "Browser", url: str, screenshots: Path) -> Iterator[ComfyUIPage]:
    page = ComfyUIPage(browser, url, screenshots)
    page.open()
    yield page
    page.close()
    assert page.failures == []


def run(page: ComfyUIPage, colour: int, pool: tuple[ComfyUI, ...]) -> tuple[ComfyUI, dict[str, str]]:
    """Run a workflow by the button and see its pictures; returns the server it ran on and the saved file.

    What the page received must be what lies on that server's disk.
    """
    page.open_workflow(colour)
    prompt_id = page.run()
    shown = page.shown_pictures()
    owner = owner_of(prompt_id, pool)
    assert shown.keys() == {"SaveImage", "PreviewImage"}
    for file in shown.values():
        assert page.received(file) == owner.file(file)
    return owner, shown["SaveImage"]


def test_a_workflow_run_with_the_button_shows_its_picture_and_a_reload_stays_on_the_server(
    page: ComfyUIPage, pool: tuple[ComfyUI, ...]
) -> None:
    first_owner, first = run(page, BLUE, pool)
    page.open_queue_panel()
    page.see_in_queue_panel(first)
    page.screenshot("after-the-first-run")

    page.reload()
    second_owner, second = run(page, GREEN, pool)
    page.open_queue_panel()
    page.see_in_queue_panel(second)
    page.see_in_queue_panel(first)
    page.screenshot("after-a-reload")

    assert second_owner is first_owner
    assert len(page.websockets) == 2, (
        "one WebSocket for each time the page was loaded: none was lost meanwhile"
    )


def test_two_people_get_a_server_each_and_see_their_own_pictures(
    browser: "Browser", front: Front, pool: tuple[ComfyUI, ...], screenshots: Path
) -> None:
    """Both save `browser_...png`: pictures of one name and different colours, on different servers."""
    if len(pool) < 2:
        pytest.skip("needs two servers")
    # A server that a busy machine keeps from answering a probe in time would be passed over.
    options = ("--placement", "client", "--probe", "none")
    url = front(*(server.url for server in pool), options=options)
    with (
        contextlib.contextmanager(started_page)(browser, url, screenshots) as one,
        contextlib.contextmanager(started_page)(browser, url, screenshots) as other,
    ):
        assert run(one, RED, pool)[0] is not run(other, GREEN, pool)[0]


def test_a_built_page_from_a_directory_works_with_the_api_of_the_pool(
    browser: "Browser", pool: tuple[ComfyUI, ...], proxy: StartProxy, screenshots: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "frontend"
    shutil.copytree(installed.frontend_static_folder(), folder)
    index = (folder / "index.html").read_text()
    (folder / "index.html").write_text(
        index.replace("<head>", "<head><meta name='served-by' content='directory'>")
    )
    balancer = proxy("--url", ",".join(server.url for server in pool), "--static", folder)

    with contextlib.contextmanager(started_page)(browser, balancer.url, screenshots) as page:
        assert page.page.locator("meta[name='served-by'][content='directory']").count() == 1
        run(page, BLUE, pool)
        page.screenshot("static")


def test_edits_reach_a_page_of_vite_through_its_hot_reload_websocket(
    browser: "Browser",
    comfyuis: tuple[ComfyUI, ...],
    front: Front,
    processes: ServerProcesses,
    screenshots: Path,
    tmp_path: Path,
) -> None:
    if reason := installed.why_no_vite():
        pytest.skip(reason)
    vite = Vite(processes, tmp_path)
    pool = [server.url for server in comfyuis]
    url = vite.url if DIRECT else front(*pool, options=("--frontend", vite.url))
    tab = Tab(browser, url, screenshots)

    tab.page.goto(url)
    tab.see("#words", "as first written")
    tab.see_in_console("[vite] connected")
    if not DIRECT:
        tab.see("#queue", json.dumps({"exec_info": {"queue_remaining": 0}}))
    with tab.websockets[0].expect_event("framereceived", lambda frame: '"type":"update"' in frame):
        vite.edit("as edited")
    tab.see("#words", "as edited")
    tab.screenshot("vite")

    assert [urlsplit(socket.url).netloc for socket in tab.websockets] == [urlsplit(url).netloc]
    loads = [one for one in tab.responses if one.request.is_navigation_request()]
    assert len(loads) == 1, "the page was changed in place, not loaded again"
    assert tab.failures == []
    tab.close()
    processes.stop(vite.process)
