"""How what servers say of a prompt is shown to clients: as a single server would say it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from comfyproxy.comfyui.callers import CALLER_KEY
from comfyproxy.comfyui.merging.documents import is_number
from comfyproxy.comfyui.merging.known import INTERRUPTED, Known, Row, Status, known_row
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend

MOMENT = 1000
"""Milliseconds that a prompt takes to its server, or that the server's clock is wrong, which nobody minds."""


def _never(_name: str) -> bool:
    return False


def _as_it_is(outputs: Any, _backend: Backend) -> Any:
    return outputs


def _unknown(_prompt_id: str) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Showing:
    """``is_output`` says of a node class whether it makes outputs, ``mark`` gives what a prompt made on a
    server names that nothing on another server has, and ``is_nobody`` says of a client id that it is the
    proxy's own: the prompt was submitted without one. ``created`` gives the time when the prompt of an id was
    created, in milliseconds since the epoch, and 0 where it is not known; servers say when it came to them.
    """

    is_output: Callable[[str], bool] = _never
    mark: Callable[[Any, Backend], Any] = _as_it_is
    is_nobody: Callable[[str], bool] = _never
    created: Callable[[str], int] = _unknown

    def row(self, row: Row) -> Row:
        """``row`` of a queue or a history."""
        return [*row[:3], self._extra(row[3], row[1]), *row[4:]]

    def known_row(self, known: Known) -> Row:
        """The row of a prompt that no server tells of."""
        return self.row(known_row(known, self.is_output))

    def entry(self, entry: Document, backend: Backend) -> Document:
        """``entry`` of the history of ``backend``."""
        return entry | {
            "prompt": self.row(entry["prompt"]),
            "outputs": self.mark(entry["outputs"], backend),
        }

    def known_entry(self, known: Known) -> Document:
        """The entry of a prompt that has ended and is in no history."""
        is_completed = known.status is Status.COMPLETED
        messages = [[event, data] for event, data in known.messages]
        if known.status is Status.CANCELLED and all(event != INTERRUPTED for event, _ in known.messages):
            messages.append([INTERRUPTED, {"prompt_id": known.prompt_id}])
        status = {
            "status_str": "success" if is_completed else "error",
            "completed": is_completed,
            "messages": messages,
        }
        return {"prompt": self.known_row(known), "outputs": {}, "status": status, "meta": {}}

    def job(self, job: Document, backend: Backend) -> Document:
        """``job`` of ``backend``, from its list or in full."""
        changed: Document = {}
        if (created := self.create_time(job["id"], job["create_time"])) != job["create_time"]:
            changed["create_time"] = created
        for name in ("preview_output", "outputs"):
            if name in job:
                changed[name] = self.mark(job[name], backend)
        workflow = job.get("workflow")
        extra = workflow.get("extra_data") if isinstance(workflow, dict) else None
        if isinstance(workflow, dict) and isinstance(extra, dict):
            changed["workflow"] = workflow | {"extra_data": self._extra(extra, job["id"])}
        return job | changed

    def create_time(self, prompt_id: str, said: float) -> float:
        """When that prompt was created, of which its server ``said`` when it came to it."""
        created = self.created(prompt_id)
        return created if created and abs(said - created) > MOMENT else said

    def _extra(self, extra: Document, prompt_id: str) -> Document:
        client = extra.get("client_id")
        hidden = {CALLER_KEY}
        if isinstance(client, str) and self.is_nobody(client):
            hidden.add("client_id")
        if not hidden.isdisjoint(extra):
            extra = {name: value for name, value in extra.items() if name not in hidden}
        said = extra.get("create_time")
        created = self.create_time(prompt_id, said if is_number(said) else 0)
        return extra | {"create_time": created} if created != said and created else extra


PLAIN = Showing()
"""As the servers say it."""
