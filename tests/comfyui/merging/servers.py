"""Servers and what they say, for the tests of what is made of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation, Reply
from comfyproxy.core.balancing.routing import Respond
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.core.http.http1 import parse_response_head

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "comfyui"

START = 1_700_000_000_000
"""A time of creation, in milliseconds."""


def vector(name: str) -> Any:
    """What a real ComfyUI said."""
    return json.loads((VECTORS / name).read_text())


def servers(urls: str = "http://server[1-3]:8188") -> list[Backend]:
    """The servers of a pool."""
    return [Backend(address, index) for index, address in enumerate(parse_addresses(urls))]


A, B, C = servers()


def reply(
    backend: Backend, document: Any = None, *, body: bytes | None = None, status: int = 200, fields: str = ""
) -> Reply:
    """An answer of JSON, or of ``body``."""
    head = parse_response_head(f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode(), b"GET")
    return Reply(backend, head, json.dumps(document).encode() if body is None else body)


def silence(backend: Backend) -> Reply:
    """No answer."""
    return Reply(backend, why="refused", was_sent=False)


def row(prompt_id: str, number: float = 0, created: int | None = START, **extra: Any) -> list[Any]:
    """A row of the queue."""
    if created is not None:
        extra["create_time"] = created
    return [number, prompt_id, {"1": {"class_type": "SaveImage", "inputs": {}}}, extra, ["1"]]


def queue(running: Sequence[Any] = (), pending: Sequence[Any] = ()) -> dict[str, Any]:
    """What ``GET /queue`` answers."""
    return {"queue_running": list(running), "queue_pending": list(pending)}


def entry(
    prompt_id: str, ended: int = 1000, *, created: int | None = None, kind: str = "success", **extra: Any
) -> dict[str, Any]:
    """An entry of the history of a prompt that ended ``ended`` milliseconds after `START`."""
    created = START + ended - 500 if created is None else created
    start, end = START + ended - 100, START + ended
    return {
        "prompt": row(prompt_id, created=created, **extra),
        "outputs": {"1": {"images": [{"filename": f"{prompt_id}.png", "subfolder": "", "type": "output"}]}},
        "status": {
            "status_str": "success" if kind == "success" else "error",
            "completed": kind == "success",
            "messages": [
                ["execution_start", {"prompt_id": prompt_id, "timestamp": start}],
                [f"execution_{kind}", {"prompt_id": prompt_id, "timestamp": end}],
            ],
        },
        "meta": {},
    }


def history(*entries: dict[str, Any]) -> dict[str, Any]:
    """What ``GET /history`` answers."""
    return {one["prompt"][1]: one for one in entries}


def job(prompt_id: str, status: str = "completed", created: float = START, **more: Any) -> dict[str, Any]:
    """A job as a list of jobs has it."""
    return {
        "id": prompt_id,
        "status": status,
        "priority": 0,
        "create_time": created,
        "outputs_count": 0,
        **more,
    }


def jobs(*listed: Any, total: Any = None) -> dict[str, Any]:
    """What ``GET /api/jobs`` answers."""
    total = len(listed) if total is None else total
    pagination = {"offset": 0, "limit": None, "total": total, "has_more": False}
    return {"jobs": list(listed), "pagination": pagination}


class Answers:
    """Answers the steps of an operation by ``(server, target without query)``, and keeps what was asked."""

    def __init__(self, answers: dict[tuple[Backend, str], Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[Backend, str]] = []
        self.rounds: list[int] = []

    def run(self, operation: Operation) -> Any:
        """What ``operation`` returns."""
        try:
            step = next(operation)
            while True:
                assert isinstance(step, tuple)
                self.rounds.append(len(step))
                step = operation.send(tuple(self._answer(ask) for ask in step))
        except StopIteration as end:
            return end.value

    def json(self, operation: Operation) -> Any:
        """The JSON of the answer of 200 that ``operation`` decides on."""
        decision = self.run(operation)
        assert isinstance(decision, Respond)
        assert decision.status == 200
        return json.loads(decision.body)

    def _answer(self, ask: Any) -> Reply:
        assert isinstance(ask, Ask)
        assert ask.method == b"GET"
        target = ask.target.decode()
        self.asked.append((ask.backend, target))
        given = self.answers.get(
            (ask.backend, target), self.answers.get((ask.backend, target.partition("?")[0]))
        )
        if given is None:
            return reply(ask.backend, body=b"404: Not Found", status=404)
        return given if isinstance(given, Reply) else reply(ask.backend, given)
