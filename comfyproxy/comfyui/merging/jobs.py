"""GET /api/jobs of the pool: what waits, runs and has ended on any server, filtered, sorted, a page of it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from comfyproxy.comfyui.merging.documents import (
    BadQuery,
    integer,
    is_number,
    read,
    read_query,
    write,
    write_list,
)
from comfyproxy.comfyui.merging.history import Ended
from comfyproxy.comfyui.merging.job_rows import (
    ended_job,
    ended_job_in_full,
    queued_job,
    queued_job_in_full,
)
from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.merging.ownership import Sighting, believed
from comfyproxy.comfyui.merging.queue import Queued
from comfyproxy.comfyui.merging.showing import PLAIN, Showing
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Reply

MIN_SPARE, MAX_SPARE = 32, 256
"""How many more jobs than wanted each server is asked for: of a prompt that was moved the proxy knows when it
was created, and its server does not, so some come later in the list than their server thinks."""

NOT_FOUND = b'{"error": "Job not found"}'
"""ComfyUI's words, with 404; a server that has no jobs at all answers 404 with others."""

_STATUSES = frozenset(Status)


@dataclass(frozen=True, slots=True)
class JobsQuery:
    """What ``GET /api/jobs`` was asked for; no ``limit`` is all of them."""

    statuses: frozenset[Status] = _STATUSES
    workflow_id: str = ""
    by_duration: bool = False
    descending: bool = True
    limit: int | None = None
    offset: int = 0

    @classmethod
    def parse(cls, query: bytes) -> "JobsQuery":
        """From the query of the request; `BadQuery` with ComfyUI's own words for what it refuses."""
        parameters = read_query(query)
        limit = integer(parameters, "limit")
        if limit is not None and limit <= 0:
            raise BadQuery("limit must be a positive integer")
        return cls(
            statuses=_statuses(parameters.get("status", "")),
            workflow_id=parameters.get("workflow_id", ""),
            by_duration=_one_of(parameters, "sort_by", "created_at", "execution_duration"),
            descending=not _one_of(parameters, "sort_order", "desc", "asc"),
            limit=limit,
            offset=max(0, integer(parameters, "offset") or 0),
        )

    @property
    def wants_queued(self) -> bool:
        """Whether prompts that wait or run may be in the answer."""
        return any(not status.is_ended for status in self.statuses)

    @property
    def wants_ended(self) -> bool:
        """Whether prompts that have ended may be in the answer."""
        return any(status.is_ended for status in self.statuses)

    def target(self, spare: int = 0) -> bytes:
        """What to ask each server for: as much as may be in the pool's answer, and ``spare`` more."""
        parameters = {
            "sort_by": "execution_duration" if self.by_duration else "created_at",
            "sort_order": "desc" if self.descending else "asc",
        }
        if self.statuses != _STATUSES:
            parameters["status"] = ",".join(sorted(self.statuses))
        if self.workflow_id:
            parameters["workflow_id"] = self.workflow_id
        if self.limit is not None:
            parameters |= {"offset": "0", "limit": str(self.offset + self.limit + spare)}
        return b"/api/jobs?" + urlencode(parameters, quote_via=quote, errors="replace").encode()

    def wants(self, job: Document) -> bool:
        """Whether ``job`` passes the filters."""
        return job["status"] in self.statuses and self.workflow_id in ("", job.get("workflow_id"))


@dataclass(frozen=True, slots=True)
class JobsPage:
    """What one server says: some of its jobs, and how many it has that pass the filters.

    Where it ``is_whole``, the server has no others that belong in the same place.
    """

    backend: Backend
    jobs: list[Document]
    total: int
    is_whole: bool = True

    @property
    def size(self) -> int:
        """In jobs; a page without any takes room, too."""
        return len(self.jobs) + 1


def read_jobs(reply: Reply) -> JobsPage | None:
    """The jobs in an answer to ``GET /api/jobs``; ``None`` if it is none.

    Without those that have not what the page needs: it drops the whole list for one of them.
    """
    document = read(reply)
    listed = document.get("jobs") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        return None
    jobs = [job for job in listed if _is_job(job)]
    pagination = document.get("pagination")
    total = pagination.get("total") if isinstance(pagination, dict) else None
    said = total - len(listed) + len(jobs) if isinstance(total, int) else 0
    return JobsPage(reply.backend, jobs, max(said, len(jobs)))


def make_jobs(
    backend: Backend, queue: Iterable[Queued] | None, history: Iterable[Ended] | None, query: JobsQuery
) -> JobsPage:
    """The same for a server that has no jobs, from its queue, and its history, which is younger.

    ``None`` is one that was not asked for, or not had.
    """
    ended = {one.prompt_id: ended_job(one.prompt_id, one.entry) for one in history or ()}
    waiting = [queued_job(one.row, one.status) for one in queue or () if one.prompt_id not in ended]
    jobs = [job for job in (*waiting, *ended.values()) if query.wants(job)]
    is_whole = not (query.wants_queued and queue is None) and not (query.wants_ended and history is None)
    return JobsPage(backend, jobs, len(jobs), is_whole)


def merge_jobs(
    pages: Sequence[JobsPage],
    query: JobsQuery,
    known: Iterable[Known] = (),
    asked: float = 0.0,
    showing: Showing = PLAIN,
) -> bytes:
    """The answer to ``GET /api/jobs``, made of ``pages`` of the servers, who were asked at ``asked``."""
    records = {record.prompt_id: record for record in known}
    whose = believed((sighting for page in pages for sighting in _sightings(page)), records)
    total = 0
    found: list[tuple[float, Document, Backend | None]] = []
    for page in pages:
        own = [job for job in page.jobs if whose[job["id"]] is page.backend]
        total += page.total - (len(page.jobs) - len(own))
        found += [(_rank(job, query, showing), job, page.backend) for job in own]
    answered = {page.backend for page in pages if page.is_whole}
    for record in records.values():
        if record.prompt_id not in whose and record.is_missing(answered, asked):
            job = known_job(record, showing)
            if query.wants(job):
                total += 1
                found.append((_rank(job, query, showing), job, None))
    found.sort(key=lambda one: one[0], reverse=query.descending)
    stop = None if query.limit is None else query.offset + query.limit
    shown = [
        job if backend is None else showing.job(job, backend)
        for _, job, backend in found[query.offset : stop]
    ]
    return _page(shown, total, query)


def known_job(known: Known, showing: Showing = PLAIN) -> Document:
    """The job of a prompt that no server tells of."""
    if known.status.is_ended:
        return ended_job(known.prompt_id, showing.known_entry(known))
    return queued_job(showing.known_row(known), known.status)


def known_job_in_full(known: Known, showing: Showing = PLAIN) -> Document:
    """As ``GET /api/jobs/{id}`` has it."""
    if known.status.is_ended:
        return ended_job_in_full(known.prompt_id, showing.known_entry(known))
    return queued_job_in_full(showing.known_row(known), known.status)


def job_in_full(
    prompt_id: str,
    found: Sequence[tuple[Backend, Document]],
    known: Mapping[str, Known],
    showing: Showing = PLAIN,
) -> bytes | None:
    """The answer to ``GET /api/jobs/{id}``, of what servers have ``found``; ``None`` for no such job."""
    record = known.get(prompt_id)
    jobs = [(backend, job) for backend, job in found if _is_job(job) and job["id"] == prompt_id]
    whose = believed((Sighting(prompt_id, backend, job["status"]) for backend, job in jobs), known)
    for backend, job in jobs:
        if whose[prompt_id] is backend:
            return write(showing.job(job, backend))
    return None if record is None else write(known_job_in_full(record, showing))


def _page(shown: Sequence[Document], total: int, query: JobsQuery) -> bytes:
    pagination = {
        "offset": query.offset,
        # The page takes no list without one; ComfyUI answers null to those who gave none.
        "limit": max(1, total) if query.limit is None else query.limit,
        "total": total,
        "has_more": query.offset + len(shown) < total,
    }
    return b'{"jobs":%b,"pagination":%b}' % (write_list(shown), json.dumps(pagination).encode())


def _rank(job: Document, query: JobsQuery, showing: Showing) -> float:
    """What the list is sorted by."""
    if query.by_duration:
        return _duration(job)
    return showing.create_time(job["id"], job["create_time"])


def _sightings(page: JobsPage) -> Iterator[Sighting]:
    return (Sighting(job["id"], page.backend, job["status"]) for job in page.jobs)


def _is_job(job: Any) -> bool:
    return (
        isinstance(job, dict)
        and isinstance(job.get("id"), str)
        and isinstance(job.get("status"), str)
        and job["status"] in _STATUSES
        and is_number(job.get("create_time"))
    )


def _duration(job: Document) -> float:
    start, end = job.get("execution_start_time"), job.get("execution_end_time")
    return end - start if start and end and is_number(start) and is_number(end) else 0


def _statuses(text: str) -> frozenset[Status]:
    named = [part.strip().lower() for part in text.split(",") if part.strip()]
    if unknown := [name for name in named if name not in _STATUSES]:
        raise BadQuery(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(Status)}")
    return frozenset(map(Status, named)) or _STATUSES


def _one_of(parameters: Mapping[str, str], name: str, usual: str, other: str) -> bool:
    """Whether ``name`` is ``other``."""
    value = parameters.get(name, usual).lower()
    if value not in (usual, other):
        first, second = sorted((usual, other))
        raise BadQuery(f"{name} must be '{first}' or '{second}'")
    return value == other
