"""GET /queue of the pool: what runs and what waits on any server.

One ComfyUI runs one prompt at a time, and some programs rely on it (``comfyui-utils`` asserts it). So
what has run for longest is what runs, and what runs beside it on other servers comes first of what waits.
``/api/jobs``, which the page reads, calls all of it ``in_progress``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from comfyproxy.comfyui.merging.documents import is_number, read, write_list
from comfyproxy.comfyui.merging.known import Known, Row, Status
from comfyproxy.comfyui.merging.ownership import Sighting, believed
from comfyproxy.comfyui.merging.showing import PLAIN, Showing
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Reply

_ROW_LENGTH = 5


@dataclass(frozen=True, slots=True)
class Queued:
    """One prompt in a server's queue."""

    backend: Backend
    status: Status
    row: Row

    @property
    def prompt_id(self) -> str:
        """The prompt's id."""
        return str(self.row[1])

    @property
    def sighting(self) -> Sighting:
        """That this server has it."""
        return Sighting(self.prompt_id, self.backend, self.status)


def read_queue(reply: Reply) -> list[Queued] | None:
    """The prompts in an answer to ``GET /queue``; ``None`` if it is none."""
    document = read(reply)
    if not isinstance(document, dict):
        return None
    return [
        Queued(reply.backend, status, row[:_ROW_LENGTH])
        for status, name in ((Status.IN_PROGRESS, "queue_running"), (Status.PENDING, "queue_pending"))
        for row in _rows(document.get(name))
    ]


def merge_queue(
    replies: Sequence[Reply],
    known: Iterable[Known] = (),
    asked: float = 0.0,
    showing: Showing = PLAIN,
) -> bytes:
    """The answer to ``GET /queue``, made of those of the servers, who were asked at the time ``asked``.

    ``known`` are the prompts of which the proxy knows. What runs is in the order in which it began as far as
    that is known, what waits in the order of its numbers.
    """
    queues = {reply.backend: queue for reply in replies if (queue := read_queue(reply)) is not None}
    found = [queued for queue in queues.values() for queued in queue]
    records = {record.prompt_id: record for record in known}
    whose = believed((queued.sighting for queued in found), records)
    rows = {Status.IN_PROGRESS: [], Status.PENDING: []}  # type: dict[Status, list[Row]]
    for queued in found:
        if whose[queued.prompt_id] is queued.backend:
            rows[queued.status].append(showing.row(queued.row))
    for record in records.values():
        if record.prompt_id not in whose and not record.status.is_ended and record.is_missing(queues, asked):
            rows[record.status].append(showing.known_row(record))
    for listed in rows.values():
        listed.sort(key=lambda row: (row[0], row[3].get("create_time", 0)))
    running, pending = rows[Status.IN_PROGRESS], rows[Status.PENDING]
    running.sort(key=lambda row: _began(records.get(row[1])))
    return b'{"queue_running":%b,"queue_pending":%b}' % (
        write_list(running[:1]),
        write_list([*running[1:], *pending]),
    )


def _began(record: Known | None) -> float:
    """When a prompt began to run, in seconds; of one that others submitted nobody knows."""
    return record.since if record is not None and record.status is Status.IN_PROGRESS else inf


def _rows(value: Any) -> Iterator[Row]:
    """The rows that have the form of one."""
    for row in value if isinstance(value, list) else ():
        match row:
            case [number, str(), dict(), dict() as extra, list(), *_] if is_number(number):
                if not is_number(extra.get("create_time", 0)):
                    del extra["create_time"]
                yield row
