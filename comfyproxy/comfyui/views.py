"""What waits, runs and has ended in a pool of ComfyUI servers, shown as one: operations behind these routes.

Each asks the servers, waits for those that answer, and responds with what `comfyproxy.comfyui.merging` makes
of it. Whatever happens to a server, the answer is a list: the page takes an error for an empty one.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from typing import Any
from urllib.parse import quote

from comfyproxy.comfyui.merging.documents import BadQuery, read, write
from comfyproxy.comfyui.merging.history import Ended, HistoryQuery, history_of, merge_history, read_history
from comfyproxy.comfyui.merging.job_rows import ended_job_in_full, queued_job_in_full
from comfyproxy.comfyui.merging.jobs import (
    MAX_SPARE,
    MIN_SPARE,
    NOT_FOUND,
    JobsPage,
    JobsQuery,
    job_in_full,
    make_jobs,
    merge_jobs,
    read_jobs,
)
from comfyproxy.comfyui.merging.kept_pages import KeptPages, P, Version
from comfyproxy.comfyui.merging.known import Known
from comfyproxy.comfyui.merging.numbering import EndNumbers
from comfyproxy.comfyui.merging.queue import Queued, QueuePage, merge_queue, read_page, read_queue
from comfyproxy.comfyui.merging.queue_length import queue_info, sum_remaining
from comfyproxy.comfyui.merging.recent import Recent
from comfyproxy.comfyui.merging.showing import PLAIN, Showing
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Latch, Operation, Reply, Step, Wait
from comfyproxy.core.balancing.routing import Respond

TIMEOUT = 5.0
"""Seconds for a list: a server that loads a model may take some of them, and the others' rows wait for it."""

RETRY_JOBS = 60.0
"""Seconds after which a server that had no ``/api/jobs`` is asked for it again: it may be a new one."""

MAX_JOBS = 100_000
"""Jobs that are kept, of all servers, at most: some 200 MB. The page asks for 300 of each server."""

MAX_QUEUED = 64 * 1024 * 1024
"""Octets of queues that are kept, of all servers, at most."""

MIN_TAIL = 256
"""Entries of a history to begin with, where only the latest of them are wanted."""

Replies = tuple[Reply, ...]
Steps = Generator[Step, Any, Any]


class _Flight:
    """Servers are being asked, by one for all who want to know."""

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.landed = Latch()


class Views:
    """The lists of one pool.

    ``known`` gives what the proxy knows of prompts at the moment, and ``told`` is told, where a client asks
    for one prompt, what it made, on which server, and the extra data of its submission. ``is_watched`` says
    of a server that `changed` is called for whatever happens there. Of the operations ``backends`` are the
    servers to ask and ``query`` is that of the request, without its question mark.
    """

    def __init__(
        self,
        known: Callable[[], Iterable[Known]],
        showing: Showing = PLAIN,
        told: Callable[[Any, Backend, Document], None] = lambda _outputs, _backend, _extra: None,
        is_watched: Callable[[Backend], bool] = lambda _backend: False,
    ) -> None:
        self._known = known
        self._showing = showing
        self._told = told
        self._recent = Recent()
        self._numbers = EndNumbers()
        self._kept_jobs = KeptPages[JobsPage](is_watched, MAX_JOBS)
        self._kept_queues = KeptPages[QueuePage](is_watched, MAX_QUEUED)
        self._flights: dict[tuple[Hashable, int], _Flight] = {}
        self._without_jobs: dict[Backend, float] = {}

    def changed(self, backend: Backend | None = None) -> None:
        """Something happened to a prompt on ``backend``, or on any server."""
        self._recent.changed()
        self._kept_jobs.changed(backend)
        self._kept_queues.changed(backend)

    def queue(self, backends: Sequence[Backend], now: float) -> Operation:
        """GET /queue."""

        def fetch() -> Steps:
            pages = yield from self._queues(backends, now)
            return merge_queue(pages, self._known(), self._showing)

        return self._answer(("queue",), fetch, now)

    def remaining(self, backends: Sequence[Backend], now: float) -> Operation:
        """GET /prompt, counting the prompts of all."""

        def fetch() -> Steps:
            replies = yield from _ask_all(backends, b"/prompt")
            return queue_info(sum_remaining(replies, self._known()))

        return self._answer(("prompt",), fetch, now)

    def history(self, backends: Sequence[Backend], query: bytes, now: float) -> Operation:
        """GET /history."""
        try:
            wanted = HistoryQuery.parse(query)
        except BadQuery as error:
            return _refuse(error)

        def fetch() -> Steps:
            replies = yield from self._histories(backends, wanted)
            return merge_history(replies, wanted, self._known(), self._showing, self._numbers)

        return self._answer(("history", wanted), fetch, now)

    def history_of(self, backends: Sequence[Backend], prompt_id: str) -> Operation:
        """GET /history/{prompt_id}; ``backends`` is who has it, if that is known, else all."""

        replies = yield from _ask_all(backends, b"/history/" + _segment(prompt_id))
        for reply in replies:
            for ended in read_history(reply) or ():
                self._told(ended.entry["outputs"], reply.backend, ended.entry["prompt"][3])
        return Respond(200, history_of(prompt_id, replies, self._records(), self._showing))

    def jobs(self, backends: Sequence[Backend], query: bytes, now: float) -> Operation:
        """GET /api/jobs."""
        try:
            wanted = JobsQuery.parse(query)
        except BadQuery as error:
            return _refuse(error)

        def fetch() -> Steps:
            pages = yield from self._pages(backends, wanted, now)
            return merge_jobs(pages, wanted, self._known(), now, self._showing)

        return self._answer(("jobs", wanted), fetch, now)

    def job(self, backends: Sequence[Backend], prompt_id: str, now: float) -> Operation:
        """GET /api/jobs/{id}; ``backends`` is who has it, if that is known, else all."""
        modern, old = self._by_age(backends, now)
        replies: Replies = yield from _ask_all(modern, b"/api/jobs/" + _segment(prompt_id))
        found = [(reply.backend, job) for reply in replies if isinstance(job := read(reply), dict)]
        old += self._note_age(replies, now)
        found += yield from _make_in_full(old, prompt_id)
        for backend, job in found:
            self._tell(backend, job)
        body = job_in_full(prompt_id, found, self._records(), self._showing)
        return Respond(404, NOT_FOUND) if body is None else Respond(200, body)

    def _answer(self, key: Hashable, fetch: Callable[[], Steps], now: float) -> Operation:
        """Respond with what is recent of ``key``, or else what ``fetch`` brings, to all who ask."""
        version = self._recent.version
        body = self._recent.get(key, now)
        while body is None and (flight := self._flights.get((key, version))) is not None:
            yield Wait(flight.landed)
            body = flight.body
        if body is None:
            flight = self._flights[key, version] = _Flight()
            try:
                flight.body = body = yield from fetch()
                self._recent.put(key, body, version, now)
            finally:
                del self._flights[key, version]
                flight.landed.open()
        return Respond(200, body)

    def _tell(self, backend: Backend, job: Document) -> None:
        workflow = job.get("workflow")
        extra = workflow.get("extra_data") if isinstance(workflow, dict) else None
        if "outputs" in job and isinstance(extra, dict):
            self._told(job["outputs"], backend, extra)

    def _records(self) -> dict[str, Known]:
        return {record.prompt_id: record for record in self._known()}

    def _histories(self, backends: Sequence[Backend], wanted: HistoryQuery) -> Steps:
        """The answers of all to ``wanted``; of a history that is too long to be read, its latest entries."""
        replies = list((yield from _ask_all(backends, wanted.target)))
        size = min(MIN_TAIL, wanted.max_items or MIN_TAIL)
        while size > 0 and (long := [reply.backend for reply in replies if reply.was_too_long]):
            replies = [reply for reply in replies if not reply.was_too_long]
            replies += yield from _ask_all(long, HistoryQuery(size).target)
            size //= 4
        return replies

    def _by_age(self, backends: Sequence[Backend], now: float) -> tuple[list[Backend], list[Backend]]:
        """Those who may have ``/api/jobs``, and those who have not."""
        self._without_jobs = {one: until for one, until in self._without_jobs.items() if now < until}
        modern = [backend for backend in backends if backend not in self._without_jobs]
        return modern, [backend for backend in backends if backend in self._without_jobs]

    def _note_age(self, replies: Replies, now: float) -> list[Backend]:
        """Those who answered as a server does that does not know the route."""
        old = [reply.backend for reply in replies if reply.status in (404, 405) and not _is_refusal(reply)]
        self._without_jobs.update(dict.fromkeys(old, now + RETRY_JOBS))
        return old

    def _queues(self, backends: Sequence[Backend], now: float) -> Steps:
        """What each server has in its queue; only those are asked that have not just been asked."""
        kept = self._kept_queues
        pages, versions = _look_up(kept, backends, b"/queue", now)
        replies: Replies = yield from _ask_all(list(versions), b"/queue")
        for reply in replies:
            former = kept.former(reply.backend, b"/queue")
            page = read_page(reply, now, self._showing, former)
            if page is not None:
                kept.put(page, b"/queue", versions[page.backend], now)
                pages.append(page)
        return pages

    def _pages(self, backends: Sequence[Backend], wanted: JobsQuery, now: float) -> Steps:
        """What each server says; only those are asked that have not just been asked the same."""
        target = wanted.target(_spare(sum(1 for _ in self._known())))
        found, versions = _look_up(self._kept_jobs, backends, target, now)
        others = list(versions)
        modern, old = self._by_age(others, now)
        replies: Replies = yield from _ask_all(modern, target)
        pages = [page for reply in replies if (page := read_jobs(reply)) is not None]
        old += self._note_age(replies, now)
        if old:
            pages += yield from self._make_pages(old, wanted)
        for page in pages:
            self._kept_jobs.put(page, target, versions[page.backend], now)
        return [*found, *pages]

    def _make_pages(self, backends: Sequence[Backend], wanted: JobsQuery) -> Steps:
        """The jobs of servers without ``/api/jobs``.

        The history is asked for after the queue: what ends between the two is in one of them at least.
        """
        queues: dict[Backend, list[Queued]] = {}
        histories: dict[Backend, list[Ended]] = {}
        if wanted.wants_queued:
            for reply in (yield from _ask_all(backends, b"/queue")):
                if (queue := read_queue(reply)) is not None:
                    queues[reply.backend] = queue
        if wanted.wants_ended:
            histories = yield from self._tails(backends, wanted)
        return [
            make_jobs(backend, queues.get(backend), histories.get(backend), wanted)
            for backend in backends
            if backend in queues or backend in histories
        ]

    def _tails(self, backends: Sequence[Backend], wanted: JobsQuery) -> Steps:
        """As much of each server's history as it takes to fill the page and know whether there is more."""
        if wanted.limit is None or wanted.by_duration or not wanted.descending:
            return _by_backend((yield from self._histories(backends, HistoryQuery())))
        enough = wanted.offset + wanted.limit
        size = max(MIN_TAIL, 2 * enough)
        histories: dict[Backend, list[Ended]] = {}
        while backends:
            tails = _by_backend((yield from self._histories(backends, HistoryQuery(size))))
            histories |= tails
            backends = [
                backend
                for backend, tail in tails.items()
                if len(tail) >= size and len(make_jobs(backend, None, tail, wanted).jobs) <= enough
            ]
            size *= 4
        return histories


def _make_in_full(backends: Sequence[Backend], prompt_id: str) -> Steps:
    """The jobs of that id of servers without ``/api/jobs``."""
    found: list[tuple[Backend, Document]] = []
    for reply in (yield from _ask_all(backends, b"/queue")):
        for queued in read_queue(reply) or ():
            if queued.prompt_id == prompt_id:
                found.append((reply.backend, queued_job_in_full(queued.row, queued.status)))
    for reply in (yield from _ask_all(backends, b"/history/" + _segment(prompt_id))):
        for ended in read_history(reply) or ():
            if ended.prompt_id == prompt_id:
                found.append((reply.backend, ended_job_in_full(prompt_id, ended.entry)))
    return found


def _segment(prompt_id: str) -> bytes:
    return quote(prompt_id, safe="", errors="replace").encode()


def _ask_all(backends: Sequence[Backend], target: bytes) -> Steps:
    if not backends:
        return ()
    replies: Replies = yield tuple(Ask(backend, b"GET", target, timeout=TIMEOUT) for backend in backends)
    return replies


def _look_up(
    kept: KeptPages[P], backends: Sequence[Backend], target: bytes, now: float
) -> tuple[list[P], dict[Backend, Version]]:
    """The pages that still count, and with their versions the others of ``backends``, who are to be asked."""
    kept.keep_only(frozenset(backends))
    found = {one: page for one in backends if (page := kept.get(one, target, now)) is not None}
    return list(found.values()), {one: kept.version(one) for one in backends if one not in found}


def _by_backend(replies: Iterable[Reply]) -> dict[Backend, list[Ended]]:
    return {reply.backend: found for reply in replies if (found := read_history(reply)) is not None}


def _spare(moved: int) -> int:
    """How many more jobs to ask for where so many may have moved: the same for about as many."""
    spare = MIN_SPARE
    while spare < min(moved + MIN_SPARE, MAX_SPARE):
        spare *= 2
    return spare


def _is_refusal(reply: Reply) -> bool:
    """Whether a 404 is ComfyUI's for a job, and not that of a server which knows no jobs."""
    return reply.body.lstrip().startswith(b"{")


def _refuse(error: BadQuery) -> Operation:
    yield from ()
    return Respond(400, write({"error": str(error)}) or b"{}")
