"""What the proxy itself knows of prompts, and the rows of ComfyUI's lists made of it.

A server that does not answer for a moment still has its prompts; a prompt on its way from one server to
another is in no queue; one that died with its server is in no history. One big ComfyUI would list them all.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from comfyproxy.comfyui.wire import Document, read_object
from comfyproxy.core.balancing.backend import Backend

Row = list[Any]
"""A prompt in ``GET /queue``: its number, its id, its graph, its extra data, its output nodes."""

SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
"""Members of a submission's extra data that no answer repeats (``execution.py``)."""

INTERRUPTED = "execution_interrupted"
"""The event that tells a prompt that was cancelled from one that failed; both end in an error."""


class Status(StrEnum):
    """What becomes of a prompt, in the words of ``/api/jobs``."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_ended(self) -> bool:
        """Whether nothing will happen to it any more: it is in the history and not in the queue."""
        return self not in (Status.PENDING, Status.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Known:
    """One prompt of the proxy's ledger.

    ``backend`` is who has it; ``None`` if nobody has: it is on its way from one server to another, or
    it ended together with its server. ``since`` is when status and backend became these, in seconds of the
    clock that tells operations the time. ``create_time`` is in milliseconds since the epoch. ``submission``
    gives the body that it was submitted with, or nothing. ``messages`` are its events as the history
    keeps them: type and data, ``execution_start`` first.
    """

    prompt_id: str
    status: Status
    number: float
    create_time: int
    backend: Backend | None = None
    since: float = 0.0
    submission: Callable[[], bytes] = bytes
    messages: tuple[tuple[str, Document], ...] = ()

    def is_missing(self, answered: Collection[Backend], asked: float) -> bool:
        """Whether it belongs in a list although no answer names it.

        ``answered`` are those who answered what was asked at the time ``asked``. An answer can be older than
        what is known, and then says nothing against it.
        """
        if self.backend is None or self.backend not in answered:
            return True
        return not self.status.is_ended and self.since >= asked


def known_row(known: Known, is_output: Callable[[str], bool]) -> Row:
    """``known`` as ``GET /queue`` shows it; ``is_output`` says of a node class whether it makes outputs."""
    submission = read_object(known.submission()) or {}
    graph, extra = submission.get("prompt"), submission.get("extra_data")
    graph = graph if isinstance(graph, dict) else {}
    extra = dict(extra) if isinstance(extra, dict) else {}
    for secret in SECRETS:
        extra.pop(secret, None)
    if "client_id" in submission:
        extra["client_id"] = submission["client_id"]
    extra["create_time"] = known.create_time
    targets = submission.get("partial_execution_targets")
    outputs = [
        node_id
        for node_id, node in graph.items()
        if isinstance(node, dict)
        and isinstance(kind := node.get("class_type"), str)
        and is_output(kind)
        and (not isinstance(targets, list) or node_id in targets)
    ]
    return [known.number, known.prompt_id, graph, extra, outputs]
