"""GET /queue of the pool: what runs and what waits on any server.

One ComfyUI runs one prompt at a time, and some programs rely on it (``comfyui-utils`` asserts it). So
what has run for longest is what runs, and what runs beside it on other servers comes first of what waits.
``/api/jobs``, which the page reads, calls all of it ``in_progress``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import inf
from typing import Any

from comfyproxy.comfyui.merging.documents import is_number, read, write
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


@dataclass(frozen=True, slots=True)
class Listed:
    """One prompt as the list of all shows it: ``text`` is its row as it is sent."""

    prompt_id: str
    status: Status
    number: float
    create_time: float
    text: bytes


@dataclass(frozen=True, slots=True)
class QueuePage:
    """What a server had in its queue when it was asked, at the time ``asked``; ``digest`` is of its answer.

    A row is mostly the prompt's workflow. It is written when it is read, once: in a large pool most of
    the rows have not changed since the last time somebody asked.
    """

    backend: Backend
    listed: Sequence[Listed]
    asked: float
    digest: bytes
    is_whole: bool = True

    @property
    def size(self) -> int:
        """In octets; a page without rows takes room, too."""
        return 1 + sum(len(one.text) for one in self.listed)


def read_page(
    reply: Reply, asked: float = 0.0, showing: Showing = PLAIN, former: QueuePage | None = None
) -> QueuePage | None:
    """The answer to ``GET /queue`` for showing it; ``None`` if it is none.

    One that says the same as the ``former`` one need not be read again.
    """
    digest = blake2b(reply.body, digest_size=16).digest()
    if former is not None and former.digest == digest and reply.status == 200:
        return replace(former, asked=asked)
    queue = read_queue(reply)
    if queue is None:
        return None
    found = (_list(queued.status, showing.row(queued.row)) for queued in queue)
    return QueuePage(reply.backend, [one for one in found if one is not None], asked, digest)


def merge_queue(pages: Iterable[QueuePage], known: Iterable[Known] = (), showing: Showing = PLAIN) -> bytes:
    """The answer to ``GET /queue``, made of what the servers say and ``known``, what the proxy knows.

    What runs is in the order in which it began as far as that is known, what waits in the order of its
    numbers.
    """
    queues = {page.backend: page for page in pages}
    records = {record.prompt_id: record for record in known}
    whose = believed(
        (
            Sighting(one.prompt_id, page.backend, one.status)
            for page in queues.values()
            for one in page.listed
        ),
        records,
    )
    shown = [one for page in queues.values() for one in page.listed if whose[one.prompt_id] is page.backend]
    for record in records.values():
        if record.prompt_id not in whose and not record.status.is_ended and _is_missing(record, queues):
            one = _list(record.status, showing.known_row(record))
            shown += () if one is None else (one,)
    shown.sort(key=lambda one: (one.number, one.create_time))
    running = [one for one in shown if one.status is Status.IN_PROGRESS]
    running.sort(key=lambda one: _began(records.get(one.prompt_id)))
    pending = [one for one in shown if one.status is not Status.IN_PROGRESS]
    return b'{"queue_running":[%b],"queue_pending":[%b]}' % (
        _join(running[:1]),
        _join([*running[1:], *pending]),
    )


def _list(status: Status, row: Row) -> Listed | None:
    """``row``, unless it is nested too deeply to be written: that does not cost the others."""
    text = write(row)
    return None if text is None else Listed(row[1], status, row[0], row[3].get("create_time", 0), text)


def _is_missing(record: Known, queues: Mapping[Backend, QueuePage]) -> bool:
    page = queues.get(record.backend) if record.backend is not None else None
    return record.is_missing(queues, 0.0 if page is None else page.asked)


def _join(listed: Iterable[Listed]) -> bytes:
    return b",".join(one.text for one in listed)


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
