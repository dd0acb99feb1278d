"""A headless Chromium, and ComfyUI's own page in it, used as a person uses it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, quote, urlsplit

from real_peers.installed import CHROMIUM, add_browser_driver_to_path

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FileChooser, Page, Response, WebSocket

WORKFLOW = Path(__file__).resolve().parents[1] / "picture-workflow.json"

FLAGS = (
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-quic",
    # Nothing but what the page asks for: no updates, no sign-in, no look-ups at the maker's.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_STORES = "document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s"
_ACTIVE = f"{_STORES}.get('execution').activePromptId"

_UPLOAD_BUTTON = """id => {
  const node = app.graph.getNodeById(id), { scale, offset } = app.canvas.ds
  const button = node.widgets.find(w => w.name == "upload")
  return [(node.pos[0] + 40 + offset[0]) * scale, (node.pos[1] + button.last_y + 10 + offset[1]) * scale]
}"""
"""The place on the screen of the button that uploads into a node: it is painted, not an element."""

PAGE_STARTS_WITHIN = 60_000
SHOWS_WITHIN = 40_000
"""Milliseconds: for the page with its hundreds of requests, and for anything it shows after that."""


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Start the machine's Chromium."""
    add_browser_driver_to_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Tab:
    """One tab in a browser profile of its own, and what went between it and the address under test."""

    def __init__(self, browser: "Browser", url: str, screenshots: Path) -> None:
        """Open an empty tab; only requests to `url` leave it."""
        self.url = url
        self.screenshots = screenshots
        self.page: Page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        self.responses: list[Response] = []
        self.websockets: list[WebSocket] = []
        self.console: list[str] = []
        self.failures: list[str] = []
        self.page.route(lambda address: not address.startswith(url), lambda route: route.abort())
        # The banner that advertises the page's next version covers what tests look at.
        self.page.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
        self.page.on("response", self._note_response)
        self.page.on("requestfailed", self._note_failure)
        self.page.on("websocket", lambda socket: self.websockets.append(socket))
        self.page.on("console", lambda message: self.console.append(message.text))

    def screenshot(self, name: str) -> Path:
        """Keep a picture of the tab."""
        path = self.screenshots / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def see(self, selector: str, text: str) -> None:
        """Wait until this element has this text."""
        self.page.locator(selector).filter(has_text=text).wait_for(timeout=SHOWS_WITHIN)

    def see_in_console(self, text: str) -> None:
        """Wait until the page has written this to its console."""
        if not any(text in line for line in self.console):
            self.page.wait_for_event(
                "console", predicate=lambda message: text in message.text, timeout=SHOWS_WITHIN
            )

    def close(self) -> None:
        """Close the tab and forget its profile."""
        self.page.context.close()

    def _note_response(self, response: "Response") -> None:
        self.responses.append(response)
        if response.status >= 500:
            self.failures.append(f"{response.status} {response.url}")

    def _note_failure(self, request: Any) -> None:
        # A page that is left aborts its own requests.
        if request.url.startswith(self.url) and request.failure != "net::ERR_ABORTED":
            self.failures.append(f"{request.failure} {request.url}")


class ComfyUIPage(Tab):
    """ComfyUI's page: what a person does with it, and what the person sees."""

    def open(self) -> None:
        """Load the page and wait until it can be worked with."""
        self.page.goto(self.url)
        self._wait_until_started()

    def reload(self) -> None:
        """Load it again, as with F5."""
        self.page.reload()
        self._wait_until_started()

    def open_workflow(self, colour: int) -> None:
        """Open a workflow file that makes one picture of a colour, saves it and shows it."""
        workflow = json.loads(WORKFLOW.read_text())
        workflow["nodes"][0]["widgets_values"][3] = colour
        self.open_drawn(workflow)

    def open_drawn(self, workflow: Mapping[str, Any]) -> None:
        """Open a workflow file, in the format in which the page saves them."""
        file = {
            "name": "picture.json",
            "mimeType": "application/json",
            "buffer": json.dumps(workflow).encode(),
        }
        self.page.set_input_files("#comfy-file-input", files=cast(Any, [file]))
        self._wait_for(f"app.graph.nodes.length == {len(workflow['nodes'])}")

    def set_widget(self, node: int, name: str, value: object) -> None:
        """Give a widget of the node of this number another value."""
        widget = "app.graph.getNodeById(id).widgets.find(one => one.name == name)"
        code = f"([id, name, value]) => {{ {widget}.value = value }}"
        self.page.evaluate(code, [node, name, value])

    def upload_into(self, node: int, name: str, data: bytes) -> None:
        """Choose a file by the button of the node that loads pictures, and wait until it has its name."""
        chooser = self._file_chooser_of(node)
        file = {"name": name, "mimeType": "image/png", "buffer": data}
        chooser.set_files(files=cast(Any, [file]))
        self._wait_for(f"app.graph.getNodeById({node}).widgets[0].value == '{name}'")

    def _file_chooser_of(self, node: int) -> "FileChooser":
        # A graph that was just opened may move between the look and the click.
        opened: list[FileChooser] = []
        self.page.once("filechooser", lambda chooser: opened.append(chooser))
        for _ in range(9):
            self.page.mouse.click(*self.page.evaluate(_UPLOAD_BUTTON, node))
            self.page.wait_for_timeout(500)
            if opened:
                return opened[0]
        raise AssertionError("the button opens no dialog")

    def wait_until_executing(self, prompt_id: str) -> None:
        """Wait until the page says that this prompt is the one at work."""
        self._wait_for(f"{_ACTIVE} == '{prompt_id}'")

    def wait_until_ended(self, *prompt_ids: str) -> None:
        """Wait until the history at the page's address has these prompts, and the page says that it is idle.

        Between two prompts it is idle as well.
        """
        code = "async id => id in await (await fetch(`/api/history/${id}`)).json()"
        for prompt_id in prompt_ids:
            self.page.wait_for_function(code, arg=prompt_id, timeout=SHOWS_WITHIN)
        self._wait_for(f"!{_ACTIVE}")

    def cancel_current_run(self) -> None:
        """Click on the cross beside Run."""
        self.page.get_by_role("button", name="Cancel current run").click()

    def run(self) -> str:
        """Click on Run; returns the prompt id that the server gave."""
        button = self.page.get_by_test_id("queue-button").get_by_role("button", name="Run", exact=True).first
        return self._queue(button.click)

    def run_by_key(self) -> str:
        """The same with the keys for it, which are those of every page."""
        return self._queue(lambda: self.page.keyboard.press("Control+Enter"))

    def _queue(self, act: Callable[[], None]) -> str:
        with self.page.expect_response("**/api/prompt", timeout=SHOWS_WITHIN) as queued:
            act()
        prompt_id: str = queued.value.json()["prompt_id"]
        return prompt_id

    def shown_pictures(self) -> dict[str, dict[str, str]]:
        """Wait until the nodes that show pictures do; returns what each shows, as ComfyUI names files."""
        self._wait_for(
            "app.graph.nodes.filter(n => n.imgs?.length == 1 && n.imgs[0].naturalWidth).length == 2"
        )
        sources = self.page.evaluate(
            "Object.fromEntries(app.graph.nodes.filter(n => n.imgs).map(n => [n.type, n.imgs[0].src]))"
        )
        return {node: _file_named_by(source) for node, source in sources.items()}

    def open_queue_panel(self) -> None:
        """Open the panel that lists what was run."""
        self.page.get_by_role("button", name="Queue (q)").click()

    def widen_panel(self, percent: int) -> None:
        """Make the open panel so wide: the queue's has no more pictures than it can show."""
        panel = self.page.locator(".p-splitterpanel.side-bar-panel").first
        panel.evaluate("(panel, percent) => { panel.style.flex = `0 0 ${percent}%` }", percent)

    def draw_graph_at(self, x: int, y: int) -> None:
        """Move the graph to this place of the canvas, in its natural size."""
        code = "at => { app.canvas.ds.scale = 1; app.canvas.ds.offset = at; app.canvas.draw(true, true) }"
        self.page.evaluate(code, [x, y])

    def see_in_queue_panel(self, file: dict[str, str]) -> None:
        """Wait until the open panel shows this picture."""
        self.see_picture(file, "img.task-output-image")

    def see_picture(self, file: dict[str, str], selector: str = "img") -> None:
        """Wait until an element shows this picture."""
        named = f"[src*='filename={file['filename']}']{_in_subfolder(file['subfolder'])}"
        self.page.locator(f"{selector}{named}").wait_for(timeout=SHOWS_WITHIN)
        # An element whose style gives it a size is visible before its picture is.
        elements = f"[...document.querySelectorAll({json.dumps(selector + named)})]"
        self._wait_for(f"{elements}.some(element => element.naturalWidth)")

    def received(self, file: dict[str, str]) -> bytes:
        """The bytes with which the page drew this file, as soon as it has them."""

        def is_of_file(response: "Response") -> bool:
            return urlsplit(response.url).path == "/api/view" and _file_named_by(response.url) == file

        response = next(filter(is_of_file, self.responses), None)
        if response is None:
            response = self.page.wait_for_event("response", predicate=is_of_file, timeout=SHOWS_WITHIN)
        body: bytes = response.body()
        return body

    def _wait_until_started(self) -> None:
        self.page.wait_for_function("window.app?.vueAppReady", timeout=PAGE_STARTS_WITHIN)

    def _wait_for(self, condition: str) -> None:
        self.page.wait_for_function(condition, timeout=SHOWS_WITHIN)


def _file_named_by(url: str) -> dict[str, str]:
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    return {name: query.get(name, "") for name in ("filename", "subfolder", "type")}


def _in_subfolder(name: str) -> str:
    return f"[src*='subfolder={quote(name, safe='')}']" if name else ""
