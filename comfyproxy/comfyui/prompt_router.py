"""Where each request to a pool belongs whose servers are to be one ComfyUI: placement ``prompt``."""

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from os import urandom

from comfyproxy.comfyui.broadcast import broadcast
from comfyproxy.comfyui.callers import Caller, Callers, Kind
from comfyproxy.comfyui.file_routes import FileRoutes
from comfyproxy.comfyui.home import Home
from comfyproxy.comfyui.identity import Random, fingerprint_in
from comfyproxy.comfyui.logs import LogSubscriptions
from comfyproxy.comfyui.messages import message_key
from comfyproxy.comfyui.origin import ORIGIN_FIELDS, check_origin
from comfyproxy.comfyui.prompts.dispatch import Dispatch, is_observer
from comfyproxy.comfyui.prompts.editing import (
    cancel_job,
    cancel_jobs,
    edit_history,
    edit_queue,
    interrupt_running,
)
from comfyproxy.comfyui.prompts.sending import fields_of
from comfyproxy.comfyui.prompts.submission import submit
from comfyproxy.comfyui.prompts.working import settle, work
from comfyproxy.comfyui.wire import (
    MEBIBYTE,
    SOCKET,
    SUBMISSION,
    Document,
    Route,
    client_named,
    find_route,
    is_of_a_page,
    read_object,
)
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Operation, Session
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import (
    Decision,
    Default,
    Join,
    NeedBody,
    Operate,
    Pin,
    Refuse,
    Respond,
    Rewrite,
)
from comfyproxy.core.config import ComfyUIConfig
from comfyproxy.core.http.http1 import KEPT_HEADS, RequestHead, ResponseHead

DEFAULTS = ComfyUIConfig()
_ANY = Default()
_BODIES = {
    Route.SUBMIT: SUBMISSION.body_limit,
    Route.EDIT_QUEUE: MEBIBYTE,
    Route.EDIT_HISTORY: MEBIBYTE,
    Route.INTERRUPT: MEBIBYTE,
    Route.CANCEL_JOBS: MEBIBYTE,
    Route.FREE: MEBIBYTE,
    Route.SUBSCRIBE_LOGS: MEBIBYTE,
}
"""Octets of the bodies that are read here."""


class PromptRouter:
    """Every prompt goes to the best server, and all servers answer as one (docs/explanation/placement.md).

    A request is about prompts, about files, about what belongs to the users, or about nothing of this: that
    goes to the caller's nearest server, so that a page and its scripts come from one.
    """

    drop = ORIGIN_FIELDS
    message_key = staticmethod(message_key)

    def __init__(
        self,
        pool: Pool,
        *,
        cookie: str = "comfyproxy",
        cookie_path: str = "/",
        random: Random = urandom,
        options: ComfyUIConfig = DEFAULTS,
    ) -> None:
        self._callers = Callers(pool, cookie=cookie, cookie_path=cookie_path, random=random)
        self._dispatch = Dispatch(pool, self._callers, options, random)
        self._pool = pool
        self._find_route = lru_cache(KEPT_HEADS)(find_route)
        self._passed_over: RequestHead | None = None
        self._files = FileRoutes(
            pool,
            self._callers,
            Home(pool, options.home),
            self._dispatch.ownership,
            self._dispatch.replication,
        )
        self._logs = LogSubscriptions(self._nearest_to_client)

    def follow(self, options: ComfyUIConfig) -> None:
        """Go by ``options`` from now on."""
        self._dispatch.options = options
        self._dispatch.replication.eager = options.replicate_uploads
        self._files.home = Home(self._pool, options.home)

    @property
    def sessions(self) -> Collection[Session]:
        """The sessions of all clients, and the proxy's own."""
        return self._dispatch.sessions

    @property
    def wake(self) -> Callable[[], None]:
        """Has `background` asked soon."""
        return self._dispatch.wake

    @wake.setter
    def wake(self, wake: Callable[[], None]) -> None:
        self._dispatch.wake = wake

    def background(self, now: float) -> Iterable[Operation]:
        """What is to be done beside requests: about prompts, uploads, and who reads the log."""
        yield from work(self._dispatch, now)
        yield from self._dispatch.replication.background(now)
        yield from self._logs.background(self.sessions)

    @property
    def in_hand(self) -> int:
        """The prompts that are between two servers."""
        return self._dispatch.ledger.between_servers()

    def settle(self, now: float) -> Iterable[Operation]:
        """What brings these prompts to servers; none sets out anew."""
        return settle(self._dispatch, now)

    def route(self, head: RequestHead, body: bytes | None, now: float) -> Decision:
        """Where this request belongs, or what is to be done about it here."""
        self._dispatch.now = now
        sender = self._callers.sender(head.block)
        if sender.is_from_here:
            if is_of_a_page(head):
                self._passed_over = head
                return self._nearest(head) if sender.backends else _ANY
        elif (refusal := check_origin(head)) is not None:
            return refusal
        route, argument = self._find_route(head)
        if body is None and head.body and route in _BODIES:
            return NeedBody(_BODIES[route])
        if route is Route.OTHER:
            return self._nearest(head)
        if route is Route.SOCKET and not head.upgrade:
            return self._nearest(head)
        decision = self._files.route(route, argument, head, body, now)
        return decision or self._decide(route, argument, head, body or b"", now)

    def _nearest(self, head: RequestHead) -> Decision:
        """The nearest server of a browser; who says nothing gets the next one."""
        caller = self._callers.browser(head)
        backend = None if caller is None else self._callers.affinity(caller.fingerprint)
        return _ANY if backend is None else Pin(backend)

    def _nearest_to_client(self, client_id: str) -> Backend | None:
        return self._callers.affinity(self._callers.owner(client_id))

    def _decide(self, route: Route, argument: str, head: RequestHead, body: bytes, now: float) -> Decision:
        dispatch = self._dispatch
        match route:
            case Route.SOCKET:
                return Operate(self._join(head))
            case Route.SUBMIT:
                return Operate(submit(dispatch, head, body, read_object(body)), outlasts=True)
            case Route.USER_STATE:
                return self._files.home.decide(head)
            case Route.SUBSCRIBE_LOGS:
                return Operate(self._logs.subscribe(head, read_object(body), dispatch.find_session))
            case Route.FREE:
                return Operate(self._free(head, body), outlasts=True)
        edit = self._edit(route, argument, head, body)
        if edit is not None:
            return Operate(self._then_show_anew(edit), outlasts=True)
        show = self._show(route, argument, head, now)
        return self._nearest(head) if show is None else Operate(show)

    def _free(self, head: RequestHead, body: bytes) -> Operation:
        """``POST /free`` is for all servers."""
        dispatch = self._dispatch
        backends = dispatch.answering()
        decision = yield from broadcast(backends, head.method, head.target, body, fields_of(head, dispatch))
        document = read_object(body) or {}
        # To free the memory is to unload the models too (``main.py``).
        if document.get("unload_models") or document.get("free_memory"):
            for backend in backends:
                dispatch.scheduler.unloaded(backend)
        return decision

    def _edit(self, route: Route, argument: str, head: RequestHead, body: bytes) -> Operation | None:
        """What changes queues and histories."""
        dispatch = self._dispatch
        document: Document | None = read_object(body)
        match route:
            case Route.CANCEL_JOB:
                return cancel_job(dispatch, argument)
            case Route.CANCEL_JOBS:
                return cancel_jobs(dispatch, body, document)
            case Route.INTERRUPT:
                # ComfyUI takes a body that is no JSON for none.
                return interrupt_running(dispatch, head, document or {})
            case Route.EDIT_QUEUE if document is not None:
                return edit_queue(dispatch, head, document)
            case Route.EDIT_HISTORY if document is not None:
                return edit_history(dispatch, head, document)
        return None

    def _then_show_anew(self, edit: Operation) -> Operation:
        """Do ``edit``, whose client asks for the lists next."""
        decision = yield from edit
        self._dispatch.views.changed()
        return decision

    def _show(self, route: Route, argument: str, head: RequestHead, now: float) -> Operation | None:
        """What shows all servers as one."""
        dispatch, views, installed = self._dispatch, self._dispatch.views, self._dispatch.installed
        backends = dispatch.answering()
        query = head.target.partition(b"?")[2]
        match route:
            case Route.QUEUE:
                return views.queue(backends, now)
            case Route.QUEUE_LENGTH:
                return views.remaining(backends, now)
            case Route.HISTORY:
                return views.history(backends, query, now)
            case Route.HISTORY_ENTRY:
                return self._find(argument, backends, lambda owners: views.history_of(owners, argument))
            case Route.JOBS:
                return views.jobs(backends, query, now)
            case Route.JOB:
                return self._find(argument, backends, lambda owners: views.job(owners, argument, now))
            case Route.OBJECT_INFO:
                return installed.object_info(backends, head.value(b"accept-encoding"), now)
            case Route.OBJECT_INFO_CLASS:
                return installed.object_info_of(backends, argument, now)
            case Route.SYSTEM_STATS:
                return installed.system_stats(backends)
            case Route.FEATURES:
                return installed.features(backends)
        return None

    def _find(
        self, prompt_id: str, backends: list[Backend], show: Callable[[list[Backend]], Operation]
    ) -> Operation:
        """Show one prompt: of who has it, as far as is known, else of whoever has it."""
        fingerprint = fingerprint_in(prompt_id)
        owner = self._dispatch.ledger.backend_of(prompt_id) or (fingerprint and self._pool.find(fingerprint))
        if not owner or owner not in backends:
            return (yield from show(backends))
        decision: Respond = yield from show([owner])
        if decision.status == 200 and decision.body != b"{}":
            return decision
        return (yield from show([backend for backend in backends if backend is not owner]))

    def _join(self, head: RequestHead) -> Operation:
        """Let a WebSocket have its client's session; one without a client id is given one.

        Whoever has no cookie gets one: a script that keeps it is then told from others at its address where
        a request names nothing (``POST /interrupt`` without an id).
        """
        caller: Caller = yield from self._callers.identify(head)
        client = client_named(SOCKET, head, None)
        fields = b""
        if caller.kind is not Kind.BROWSER:
            new, fields = self._callers.greet()
            caller = new if client is None else caller
        if client is None:
            client = self._callers.mint(caller)
        elif is_observer(client):
            return Refuse(403, "This client id is the proxy's own.")
        return Join(self._dispatch.session(client), fields)

    def place(self, head: RequestHead, body: bytes | None, backend: Backend, now: float) -> Rewrite | None:
        """Give a browser its cookie; let the server see its own names of files."""
        if head is self._passed_over:
            sender = self._callers.sender(head.block)
            if not (sender.wants_page or head.path == b"/"):
                return None
        if self._callers.is_due(head):
            return Rewrite(answer_fields=self._callers.cookie_for(backend))
        return self._files.place(self._find_route(head)[0], head, body)

    def learn(self, answer: ResponseHead, body: bytes, backend: Backend, now: float) -> None:
        """Remember where an upload is; nodes that load pictures offer it from now on."""
        self._files.learn(answer, body, backend, now)
        self._dispatch.installed.changed(backend)

    def cookies(self, value: bytes) -> bytes:
        """A ``Cookie`` value without what is the proxy's own; empty if nothing is left."""
        return self._callers.cookies(value)
