"""The part of the soak that is about prompts: what goes in must come out, whatever happens to the servers."""

import random
import socket
import statistics
import threading
import time
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

from fault_rig.daemon import Daemon, wait_until
from fault_rig.load import NamedServer
from fault_rig.pages import Page, ask

PAGES = 8
DEAF = 3
"""Clients that never read their WebSocket."""

LAST = 120.0
"""Seconds in which all prompts must have ended after the last one came."""

SETTLED = 0.4
MAY_GROW = 4 * 1024 * 1024
PER_PROMPT = 2048
"""Octets that are remembered of a prompt which has ended: whose it was, and where its pictures are."""

IDLE = 0.1
"""The most of a core that the daemon may take when nothing is left to do."""

OPENING = (
    b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
EMPTY = {"queue_running": [], "queue_pending": []}
OPTIONS = ("--placement", "prompt", "--probe-interval", "1s", "--probe-timeout", "1s")


class PromptSoak:
    """A daemon whose servers are one, and its clients."""

    def __init__(self, directory: Path, servers: list[NamedServer], luck: random.Random) -> None:
        (directory / "prompts").mkdir()
        urls = ",".join(server.url for server in servers)
        self.daemon = Daemon(directory / "prompts", *OPTIONS, "--url", urls, quiet=False)
        self._pages = [Page(self.daemon.port, uuid4().hex) for _ in range(PAGES)]
        self._running = ExitStack()
        self._ended = threading.Event()
        self._lucks = [random.Random(luck.random()) for _ in range(PAGES)]
        self._threads: list[threading.Thread] = []
        self._samples: list[tuple[float, int, int]] = []
        self._cancelled: set[str] = set()
        self._refused: list[object] = []
        self._unended: list[str] = []
        self._idle = 1.0
        self._errors = 0

    def start(self) -> None:
        """Let the clients come."""
        for page in self._pages:
            self._running.enter_context(page)
        for page, luck in zip(self._pages, self._lucks, strict=True):
            self._threads.append(threading.Thread(target=self._work, args=(page, luck)))
        self._threads += [threading.Thread(target=self._be_deaf, args=(number,)) for number in range(DEAF)]
        for thread in self._threads:
            thread.start()

    def _work(self, page: Page, luck: random.Random) -> None:
        while not self._ended.wait(luck.uniform(0.1, 1.5)):
            try:
                status, told = page.try_to_submit(luck.uniform(0.01, 0.2))
                if status != 200:
                    self._refused.append((status, told))
                elif luck.random() < 0.15:
                    self._cancel(page, told["prompt_id"], luck)
                if luck.random() < 0.1:
                    page.come_back()
            except (OSError, HTTPException) as error:
                self._refused.append(repr(error))

    def _cancel(self, page: Page, prompt_id: str, luck: random.Random) -> None:
        self._cancelled.add(prompt_id)
        match luck.randrange(3):
            case 0:
                ask(page.port, "POST", "/queue", {"delete": [prompt_id]})
            case 1:
                ask(page.port, "POST", "/interrupt", {"prompt_id": prompt_id})
            case 2:
                ask(page.port, "POST", f"/api/jobs/{prompt_id}/cancel")

    def _be_deaf(self, number: int) -> None:
        target = f"/ws?clientId={self._pages[number].client_id}-deaf"
        while not self._ended.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.daemon.port), 5) as client:
                client.sendall(OPENING % target.encode())
                with suppress(AssertionError):
                    Page(self.daemon.port, f"{self._pages[number].client_id}-deaf").submit(0.05)
                self._ended.wait(7)

    def sample(self, at: float) -> None:
        """Note how large the daemon is."""
        self._samples.append((at, self.daemon.memory, sum(len(page.submitted) for page in self._pages)))

    def finish(self) -> None:
        """Let all prompts end, and look how the daemon rests; the servers run."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        with suppress(AssertionError):
            wait_until(
                lambda: ask(self.daemon.port, "GET", "/queue")[1] == EMPTY, lambda: "the end", LAST, 0.1
            )
            wait_until(lambda: not self._waited_for, lambda: "the ends", LAST, 0.1)
        self._unended = self._waited_for
        self._running.close()
        time.sleep(2)
        before = self._cpu()
        time.sleep(5)
        self._idle = (self._cpu() - before) / 5
        self._errors = self.daemon.log.count("Traceback")

    @property
    def _waited_for(self) -> list[str]:
        return [one for page in self._pages for one in page.waits_for if one not in self._cancelled]

    def _cpu(self) -> float:
        """Seconds that the daemon has computed."""
        fields = Path(f"/proc/{self.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def summary(self) -> dict[str, Any]:
        """All figures, and whether they are as they should be."""
        submitted = [one for page in self._pages for one in page.submitted]
        endings = {one: ends for page in self._pages for one, ends in page.endings.items()}
        twice = [one for one, ends in endings.items() if len(ends) > 1]
        end = self._samples[-1][0]
        settled = [sample for sample in self._samples if sample[0] >= end * SETTLED]
        growth = statistics.median(memory for _, memory, _ in settled[-5:]) - statistics.median(
            memory for _, memory, _ in settled[:5]
        )
        may_grow = MAY_GROW + PER_PROMPT * (settled[-1][2] - settled[0][2])
        errors = self._errors
        kinds = [ends[0] for ends in endings.values() if ends]
        return {
            "passed": not (self._unended or twice or self._refused or errors)
            and growth < may_grow
            and self._idle < IDLE,
            "submitted": len(submitted),
            "ended": len(endings),
            **{kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "cancelled": len(self._cancelled),
            "without an end": len(self._unended),
            "ended twice": len(twice),
            "refused": len(self._refused),
            "examples": [*self._refused[:3], *self._unended[:3], *twice[:3]],
            "tracebacks": errors,
            "MiB": round(self._samples[-1][1] / 2**20, 1),
            "growth": round(growth),
            "cores when idle": round(self._idle, 3),
        }
