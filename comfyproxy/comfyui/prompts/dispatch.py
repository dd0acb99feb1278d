"""What all that is done about the prompts of one pool shares: where they are, and who hears of them."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from heapq import nsmallest
from os import urandom
from typing import Any

from comfyproxy.comfyui.callers import Callers
from comfyproxy.comfyui.fanin.session import ClientSession
from comfyproxy.comfyui.identity import Random, fingerprint_in, mint_client_id
from comfyproxy.comfyui.installed import Installed
from comfyproxy.comfyui.merging.documents import is_number
from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.merging.showing import Showing
from comfyproxy.comfyui.ownership import Ownership
from comfyproxy.comfyui.prompts.catalogs import Catalogs
from comfyproxy.comfyui.prompts.endings import Endings
from comfyproxy.comfyui.prompts.ledger import Ledger, Phase, Prompt, unpack
from comfyproxy.comfyui.prompts.observing import Observer
from comfyproxy.comfyui.prompts.servers import Server
from comfyproxy.comfyui.replication import Replication
from comfyproxy.comfyui.scheduling.scheduler import Scheduler
from comfyproxy.comfyui.views import Views
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.operations import Reply, Session
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.config import ComfyUIConfig

OBSERVER = "0b5e7ed00000"
"""The fingerprint in the client ids of observers: every proxy knows them for what they are."""

MAX_IDLE = 1000
"""Sessions that are kept for clients which may come back. Whoever makes up a client id for each request has
no use for them."""

SESSIONS_INTERVAL = 1.0
"""Seconds between two looks at all sessions: every event makes work, and they may be a thousand."""

_FINISHED = frozenset(("execution_success", "execution_error", "execution_interrupted"))


def is_observer(client_id: str) -> bool:
    """Whether that is the client id of a proxy's observer, ours or another one's."""
    return fingerprint_in(client_id) == OBSERVER


def _nothing() -> None:
    """Nobody carries the work out yet."""


class Dispatch:
    """The prompts of one pool, with the sessions of their clients and what is known of its servers.

    ``now`` is the latest time that anybody told it, in seconds since the epoch. ``wake`` has the work in the
    background looked at.
    """

    def __init__(
        self, pool: Pool, callers: Callers, options: ComfyUIConfig, random: Random = urandom
    ) -> None:
        self.pool = pool
        self.callers = callers
        self.options = options
        self.random = random
        self.now = 0.0
        self.wake: Callable[[], None] = _nothing
        self.ledger = Ledger()
        self.scheduler = Scheduler()
        self.installed = Installed(self._note_installed)
        self.catalogs = Catalogs(self.installed.note)
        self.ownership = Ownership(pool, callers)
        self.replication = Replication(pool, self.ownership, eager=options.replicate_uploads)
        showing = Showing(self.installed.is_output, self.ownership.mark, is_observer, self.ledger.created)
        self.views = Views(self.known, showing, self._note_outputs, self._is_watched)
        self.endings = Endings()
        self.servers: dict[Backend, Server] = {}
        self.observer = Observer(mint_client_id(OBSERVER, random), self._worth_observing, self)
        self.stranded: dict[str, float] = {}
        """Prompts that no server has, and when to look for one again."""
        self._clients: dict[str, ClientSession] = {}
        self._finished: dict[str, bool] = {}
        self._sessions_due = 0.0

    @property
    def sessions(self) -> Collection[Session]:
        """All sessions whose connections are to be kept."""
        return (self.observer, *self._clients.values())

    def _worth_observing(self) -> Collection[Backend]:
        """The servers that may get prompts, also those that are down: it is noticed when they are back. Of
        the others those that have some still."""
        ready = [backend for backend in self.pool.backends if backend.admin is AdminState.READY]
        out_of_use = [one for one in self.servers if one.removed or one.admin is not AdminState.READY]
        return (*ready, *filter(self.ledger.on, out_of_use))

    def server(self, backend: Backend) -> Server:
        """What is known of ``backend``."""
        server = self.servers.get(backend)
        if server is None:
            server = self.servers[backend] = Server(backend)
        return server

    def forget_removed(self) -> None:
        """Forget the servers that are in the pool no more and have none of our prompts."""
        for backend in tuple(self.servers):
            if backend.removed and not self.ledger.on(backend):
                del self.servers[backend]
                self.catalogs.forget(backend)
                self.scheduler.forget(backend)

    def candidates(self) -> list[Backend]:
        """The servers that may be given new work; a backup only where no other can."""
        usable = [
            backend for backend in self.pool.backends if backend.usable and not self.server(backend).is_gone
        ]
        usable = [backend for backend in usable if not self.server(backend).may_be_down] or usable
        return [backend for backend in usable if not backend.address.backup] or usable

    def unchecked(self) -> list[Backend]:
        """The servers of which nothing is known yet: any of them may have what no candidate has."""
        ready = [backend for backend in self.pool.backends if backend.admin is AdminState.READY]
        return [one for one in ready if not (one.health.known or self.server(one).may_be_down)]

    def answering(self) -> list[Backend]:
        """The servers that are worth asking for what they have."""
        return [
            backend
            for backend in self.pool.backends
            if backend.takes_pins and not self.server(backend).is_gone
        ]

    # The sessions of clients

    def session(self, client_id: str) -> ClientSession:
        """The session of a client, made if there is none."""
        session = self._clients.get(client_id)
        if session is None:
            home = self.callers.affinity(self.callers.owner(client_id))
            session = self._clients[client_id] = ClientSession(
                client_id,
                home,
                self.now,
                note=self._overheard,
                unsure=self._unsure,
                queued=partial(self.queued, client_id),
                mark=self.ownership.mark,
                is_void=self.ledger.is_doubted,
            )
            for prompt in self.ledger.of(client_id):
                session.adds(prompt.backend, prompt.prompt_id, self.now)
                if prompt.phase is Phase.RUNNING:
                    session.runs(prompt.prompt_id, self.now)
        return session

    def find_session(self, client_id: str) -> ClientSession | None:
        """The session of a client, if there is one."""
        return self._clients.get(client_id)

    def watcher(self, prompt: Prompt) -> Session:
        """Who hears of ``prompt``: the session of its client, or the observer."""
        return self.observer if self.is_unwatched(prompt.client_id) else self.session(prompt.client_id)

    def is_unwatched(self, client_id: str) -> bool:
        """Whether that is our observer's id."""
        return client_id == self.observer.client_id

    def look_after_sessions(self, now: float) -> None:
        """Forget the sessions that nothing needs any more, and give the others their homes; at times."""
        if now < self._sessions_due:
            return
        self._sessions_due = now + SESSIONS_INTERVAL
        idle: list[tuple[float, str]] = []
        for client_id, session in tuple(self._clients.items()):
            if session.is_over(now):
                del self._clients[client_id]
                continue
            if session.is_idle:
                idle.append((session.used, client_id))
            home = self.callers.affinity(self.callers.owner(client_id))
            if home is not None and home is not session.home:
                session.moves_to(home, now)
        for _, client_id in nsmallest(len(idle) - MAX_IDLE, idle):
            del self._clients[client_id]

    def queued(self, client_id: str) -> int:
        """How many prompts the client is told that are left."""
        if self.options.queue_status == "own":
            return self.ledger.count(client_id)
        strangers = sum(self.server(backend).strangers for backend in self.pool.backends)
        return len(self.ledger) + strangers

    # What becomes of a prompt

    def begin(self, prompt: Prompt, backend: Backend) -> None:
        """``prompt`` sets out for ``backend``: its events from there are its client's."""
        self.ledger.assign(prompt, backend)
        if not self.is_unwatched(prompt.client_id):
            self.session(prompt.client_id).adds(backend, prompt.prompt_id, self.now)

    def accepted(self, prompt: Prompt, sent_at: float) -> None:
        """Its server has it in its queue."""
        self.views.changed(prompt.backend)
        prompt.is_listed = True
        if prompt.phase is Phase.SENDING:
            prompt.becomes(Phase.PENDING, self.now)
        self.ledger.settle(prompt)
        server = self.server(prompt.backend)
        server.compare(self.ledger.queued_on(prompt.backend), self.now)
        session = self.find_session(prompt.client_id)
        if session is not None:
            session.expects(prompt.backend, sent_at, self.now)

    def started(self, prompt: Prompt, now: float) -> None:
        """It runs."""
        if prompt.phase is not Phase.RUNNING:
            self.views.changed(prompt.backend)
            prompt.becomes(Phase.RUNNING, now)
            prompt.is_listed = True
            prompt.runs += 1
            self.stranded.pop(prompt.prompt_id, None)
            self.scheduler.started(prompt.prompt_id, now)
            session = self.find_session(prompt.client_id)
            if session is not None:
                session.runs(prompt.prompt_id, now)

    def ended(self, prompt: Prompt, completed: bool, now: float) -> None:
        """It is over, and its server has said so or has it in its history."""
        self._finished.pop(prompt.prompt_id, None)
        self.stranded.pop(prompt.prompt_id, None)
        self.scheduler.ended(prompt.prompt_id, now, completed)
        self.ledger.end(prompt, now)
        self._release(prompt, now)

    def dropped(self, prompt: Prompt, now: float) -> None:
        """It is in no queue and will be in no history: it was withdrawn, or no server took it."""
        self._finished.pop(prompt.prompt_id, None)
        self.stranded.pop(prompt.prompt_id, None)
        self.scheduler.ended(prompt.prompt_id, now, False)
        if prompt.is_listed:
            self.ledger.end(prompt, now)
        else:
            self.ledger.drop(prompt)
        self._release(prompt, now)

    def _release(self, prompt: Prompt, now: float) -> None:
        server = self.server(prompt.backend)
        server.compare(self.ledger.queued_on(prompt.backend), now)
        session = self.find_session(prompt.client_id)
        if session is not None:
            session.ended(prompt.prompt_id, now)
        self.views.changed(prompt.backend)
        self.wake()

    # What the servers say

    def connected(self, backend: Backend, now: float) -> None:
        """The observer's connection to ``backend`` is open."""
        self.now = now
        server = self.server(backend)
        if server.was_lost:
            self.catalogs.forget(backend)
            self.installed.changed(backend)
        self.views.changed(backend)
        server.connected(now)
        self.wake()

    def disconnected(self, backend: Backend, now: float) -> None:
        """The observer's connection to ``backend`` is gone, or another attempt came to nothing."""
        self.now = now
        server, has_prompts = self.server(backend), bool(self.ledger.on(backend))
        is_news = server.is_connected or has_prompts
        server.disconnected(has_prompts, now)
        if is_news:
            self.views.changed(backend)
            self.wake()

    def heard(self, backend: Backend, document: Document, now: float) -> None:
        """``backend`` told the observer of an event."""
        self.now = now
        self._note(backend, document)

    def _overheard(self, backend: Backend, document: Document) -> None:
        """``backend`` told a client of an event; a ``status`` it tells to the observer as well."""
        if document.get("type") != "status" or not self._is_watched(backend):
            self._note(backend, document)

    def _unsure(self, backend: Backend) -> None:
        """A client's connection to ``backend`` may have missed something."""
        if self.ledger.on(backend):
            self.server(backend).check_soon(self.now)

    def _note(self, backend: Backend, document: Document) -> None:
        kind, data = document.get("type"), document.get("data")
        if not isinstance(data, dict):
            return
        if kind == "status":
            self._told(backend, data)
            return
        prompt_id = data.get("prompt_id")
        prompt = self.ledger.get(prompt_id) if isinstance(prompt_id, str) else None
        if prompt is None or prompt.backend is not backend:
            if isinstance(prompt_id, str) and self.ledger.is_doubted(prompt_id, backend):
                self.server(backend).check_soon(self.now)
            return
        if kind == "executed":
            self.ownership.told(data.get("output"), backend, prompt.owner, self.now)
        elif kind in _FINISHED:
            self.started(prompt, self.now)
            self._finished[prompt.prompt_id] = completed = kind == "execution_success"
            self.scheduler.ended(prompt.prompt_id, self._end_of(prompt, data), completed)
        elif kind == "executing" and data.get("node") is None:
            self.ended(prompt, self._finished.get(prompt.prompt_id, False), self.now)
        elif kind in ("execution_start", "executing"):
            self.started(prompt, self.now)
            if kind == "execution_start":
                prompt.began = data.get("timestamp")

    def _end_of(self, prompt: Prompt, data: Document) -> float:
        """When ``prompt`` ended. Events wait for their turn; their own times say best how long it ran."""
        began, ended = prompt.began, data.get("timestamp")
        if is_number(began) and is_number(ended) and began <= ended:
            return prompt.since + (ended - began) / 1000
        return self.now

    def _told(self, backend: Backend, data: dict[str, Any]) -> None:
        status = data.get("status")
        info = status.get("exec_info") if isinstance(status, dict) else None
        remaining = info.get("queue_remaining") if isinstance(info, dict) else None
        if isinstance(remaining, int) and not isinstance(remaining, bool) and remaining >= 0:
            server = self.server(backend)
            self.views.changed(backend)
            server.told(remaining, self.ledger.queued_on(backend), self.now)
            self.scheduler.told(backend, remaining)
            self.wake()

    def _is_watched(self, backend: Backend) -> bool:
        server = self.servers.get(backend)
        return server is not None and server.is_connected

    def _note_outputs(self, outputs: Any, backend: Backend, extra: Document) -> None:
        client_id = extra.get("client_id")
        owner = self.callers.owner(client_id if isinstance(client_id, str) else "", extra)
        self.ownership.told(outputs, backend, owner, self.now)

    def _note_installed(self, reply: Reply) -> None:
        self.catalogs.note(reply, self.now)

    # What lists show beside what the servers say

    def known(self) -> Iterable[Known]:
        """All prompts that have not ended, and those that ended together with their servers."""
        return (*(_known(prompt) for prompt in self.ledger if prompt.is_listed), *self.endings)


def _known(prompt: Prompt) -> Known:
    return Known(
        prompt.prompt_id,
        Status.IN_PROGRESS if prompt.phase is Phase.RUNNING else Status.PENDING,
        prompt.number,
        prompt.created,
        prompt.backend if prompt.is_queued else None,
        prompt.since,
        partial(unpack, prompt.body),
    )
