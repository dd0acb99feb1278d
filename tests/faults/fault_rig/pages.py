"""Pages of ComfyUI as threads: each has a WebSocket that it keeps opening, and counts what it hears."""

import json
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from comfyproxy.demo.first_prompt import demo_workflow
from fault_rig.daemon import wait_until
from fault_rig.peers import PATIENCE

SPEED = 20
"""How much faster than life the simulated servers are."""

ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
FLAGS = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})


def ask(port: int, method: str, target: str, body: Any = None, timeout: float = PATIENCE) -> tuple[int, Any]:
    """The status and the JSON of an answer (its octets where it is none); ``body`` is octets or a value."""
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    fields = {} if data is None else {"Content-Type": "application/json"}
    try:
        connection.request(method, target, data, fields)
        answer = connection.getresponse()
        payload = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(payload)
    except ValueError:
        return answer.status, payload


class Page:
    """One page; ``starts`` and ``endings`` are what it heard of each prompt, ``codes`` how sockets closed.

    ``submitted`` are the ids of its prompts that were taken.
    """

    def __init__(self, port: int, client_id: str) -> None:
        self.port = port
        self.client_id = client_id
        self.submitted: list[str] = []
        self.starts: Counter[str] = Counter()
        self.endings: defaultdict[str, list[str]] = defaultdict(list)
        self.through: Counter[str] = Counter()
        self.codes: list[int | None] = []
        self.greetings = 0
        self.messages = 0
        self._ended = threading.Event()
        self._leaves = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_greeting(0)
        return self

    def __exit__(self, *ignored: object) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for_greeting(self, after: int) -> None:
        """Wait until one more socket than ``after`` has been greeted."""
        wait_until(lambda: self.greetings > after, lambda: f"a WebSocket of {self.client_id}")

    def come_back(self) -> None:
        """Leave, and connect again under the same id."""
        self._leaves.set()

    def submit(self, seconds: float = 0.05, **members: Any) -> str:
        """Queue a prompt that takes so long; returns its id."""
        status, told = self.try_to_submit(seconds, **members)
        assert status == 200, (status, told)
        prompt_id: str = told["prompt_id"]
        return prompt_id

    def try_to_submit(self, seconds: float = 0.05, **members: Any) -> tuple[int, Any]:
        """The same, whatever comes of it."""
        prompt = demo_workflow(seconds=seconds * SPEED, steps=2)
        status, told = ask(
            self.port, "POST", "/prompt", {"prompt": prompt, "client_id": self.client_id, **members}
        )
        if status == 200:
            self.submitted.append(told["prompt_id"])
        return status, told

    def wait_for_start(self, prompt_id: str) -> None:
        """Wait until it is told that the prompt runs."""
        wait_until(lambda: self.starts[prompt_id], lambda: f"the start of {prompt_id}: {self}")

    def wait_for_ends(self, seconds: float = PATIENCE) -> None:
        """Wait until every prompt that was taken has ended, as it was told."""
        wait_until(lambda: not self.waits_for, lambda: f"the ends of {self.waits_for}: {self}", seconds)

    @property
    def waits_for(self) -> list[str]:
        """The prompts whose last event has not come."""
        return [one for one in self.submitted if not self.through[one]]

    def assert_one_ending_each(self) -> None:
        """Each prompt ended once, in one way."""
        wrong = {one: self.endings[one] for one in self.submitted if len(self.endings[one]) != 1}
        assert not wrong, wrong
        assert set(self.endings) <= set(self.submitted), set(self.endings) - set(self.submitted)

    def __repr__(self) -> str:
        return f"<Page {self.client_id} {dict(self.endings)} starts={dict(self.starts)} codes={self.codes}>"

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                self._be_connected()
            except ConnectionClosed as closed:
                self.codes.append(closed.rcvd.code if closed.rcvd else None)
                self._ended.wait(0.1)
            except (WebSocketException, OSError):
                self._ended.wait(0.1)

    def _be_connected(self) -> None:
        url = f"ws://127.0.0.1:{self.port}/ws?clientId={self.client_id}"
        # With a bound for what waits to be taken, nothing more is read while it says goodbye.
        with connect(url, max_size=None, max_queue=None, ping_interval=None, close_timeout=1) as socket:
            socket.send(FLAGS)
            self._leaves.clear()
            while not (self._ended.is_set() or self._leaves.is_set()):
                with suppress(TimeoutError):
                    self._take(socket.recv(timeout=0.2))
            # What was on its way when it left it has been told.
            socket.close()
            while True:
                self._take(socket.recv(timeout=0))

    def _take(self, message: str | bytes) -> None:
        self.messages += 1
        if isinstance(message, str):
            self._hear(json.loads(message))

    def _hear(self, event: dict[str, Any]) -> None:
        kind, data = event["type"], event["data"]
        if kind == "status":
            self.greetings += "sid" in data
        elif kind == "execution_start":
            self.starts[data["prompt_id"]] += 1
        elif kind in ENDINGS:
            self.endings[data["prompt_id"]].append(kind)
        elif kind == "executing" and data.get("node") is None:
            self.through[data.get("prompt_id")] += 1


LISTS = ("/queue", "/history", "/api/jobs", "/prompt", "/object_info", "/system_stats", "/features")


class Lists:
    """Somebody who looks at all lists all the time; ``wrong`` is what was answered with 5xx or not at all."""

    def __init__(self, port: int, pause: float = 0.05) -> None:
        self._port = port
        self._pause = pause
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.wrong: list[tuple[str, object]] = []
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *ignored: object) -> None:
        self._ended.set()
        self._thread.join()
        if kind is None:
            assert not self.wrong, self.wrong[:5]
            assert self.count

    def _look(self) -> None:
        while not self._ended.wait(self._pause):
            target = LISTS[self.count % len(LISTS)]
            began = time.monotonic()
            try:
                status, _ = ask(self._port, "GET", target)
                if status != 200:
                    self.wrong.append((target, status))
            except (OSError, HTTPException) as error:
                self.wrong.append((target, f"{error!r} after {time.monotonic() - began:.1f} s"))
            self.count += 1


def runs_of(journal: Path) -> Counter[str]:
    """How often each prompt began to run, on whichever server."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return Counter(line.split(" ", 1)[1] for line in lines)


def misbehave(server_port: int, path: str, how: str) -> None:
    """Have a simulated server answer ``path`` as ``how`` says."""
    assert ask(server_port, "GET", f"/misbehave?path={path}&how={how.replace(' ', '%20')}")[0] == 200


def behave(server_port: int) -> None:
    """Have it answer as it should."""
    assert ask(server_port, "GET", "/misbehave")[0] == 200
