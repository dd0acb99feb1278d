"""A real Vite dev server with a small page of its own, whose words can be edited while it runs."""

from pathlib import Path

from real_peers.installed import VITE
from real_peers.processes import ServerProcess, ServerProcesses, free_port

PAGE = """\
<!doctype html>
<title>A page in the making</title>
<p id="words"></p>
<p id="queue"></p>
<script type="module" src="/main.js"></script>
"""

MAIN = """\
import { words } from "/words.js";

const show = (id, text) => { document.getElementById(id).textContent = text; };
show("words", words);
import.meta.hot.accept("/words.js", (edited) => show("words", edited.words));

const answer = await fetch("/api/prompt");
if (answer.headers.get("Content-Type")?.startsWith("application/json")) show("queue", await answer.text());
"""


class Vite:
    """A running dev server."""

    def __init__(self, processes: ServerProcesses, directory: Path) -> None:
        """Start it on a page in `directory` and wait until it listens."""
        self._words = directory / "words.js"
        (directory / "index.html").write_text(PAGE)
        (directory / "main.js").write_text(MAIN)
        self.edit("as first written")
        self.port = free_port()
        self.process: ServerProcess = processes.start(
            "vite",
            ["node", VITE, "--host", "127.0.0.1", "--port", str(self.port), "--strictPort"],
            cwd=directory,
        )
        self.process.wait_for_port(self.port)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def edit(self, words: str) -> None:
        """Change the page's words in its source."""
        self._words.write_text(f"export const words = {words!r};\n")
