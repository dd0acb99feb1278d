"""Asking a server what became of one prompt."""

from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import quote

from comfyproxy.comfyui.merging.documents import read
from comfyproxy.comfyui.merging.known import Status
from comfyproxy.comfyui.merging.queue import read_queue
from comfyproxy.comfyui.wire import Document, read_object
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation, Reply


class Place(Enum):
    """Where on a server a prompt is. UNKNOWN: it did not say."""

    PENDING = "pending"
    RUNNING = "running"
    HISTORY = "history"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Found:
    """What a server said of a prompt; ``entry`` is that of its history, ``why`` the reason if it said
    nothing."""

    place: Place
    entry: Document | None = None
    why: str = ""


def look_up(backend: Backend, prompt_id: str) -> Operation:
    """Find a prompt on ``backend``; returns `Found`.

    First the queue is asked for, then the history: a prompt goes from one to the other and never back, so
    what is in neither was in neither all the time.
    """
    reply: Reply = yield Ask(backend, b"GET", b"/queue")
    queue = read_queue(reply)
    if queue is None:
        return Found(Place.UNKNOWN, why=reply.why or f"it answered {reply.status}")
    for row in queue:
        if row.prompt_id == prompt_id:
            return Found(Place.RUNNING if row.status is Status.IN_PROGRESS else Place.PENDING)
    return (yield from look_up_history(backend, prompt_id))


def look_up_history(backend: Backend, prompt_id: str) -> Operation:
    """Find a prompt that is in no queue in the history of ``backend``; returns `Found`."""
    reply: Reply = yield Ask(backend, b"GET", history_target(prompt_id))
    return read_history(reply, prompt_id)


def history_target(prompt_id: str) -> bytes:
    """What to ask for."""
    return b"/history/" + quote(prompt_id, safe="", errors="replace").encode()


def read_history(reply: Reply, prompt_id: str) -> Found:
    """What an answer to `history_target` says."""
    document = read(reply)
    if not isinstance(document, dict):
        return Found(Place.UNKNOWN, why=reply.why or f"it answered {reply.status}")
    entry = document.get(prompt_id)
    return Found(Place.HISTORY, entry) if isinstance(entry, dict) else Found(Place.ABSENT)


def is_completed(entry: Document | None) -> bool:
    """Whether a prompt of the history ran to its end."""
    status: Any = entry.get("status") if entry is not None else None
    return isinstance(status, dict) and status.get("completed") is True


def cancelled(reply: Reply) -> bool | None:
    """What an answer to ``POST /api/jobs/{id}/cancel`` says; ``None`` where the server has no such route."""
    document = read_object(reply.body) if reply.status == 200 else None
    told = document.get("cancelled") if document is not None else None
    return told if isinstance(told, bool) else None
