"""One client's WebSocket, made of those that the servers have for it."""

from collections.abc import Callable
from math import inf
from typing import Any

from comfyproxy.comfyui.fanin.features import MAX_FLAGS, read_answer
from comfyproxy.comfyui.fanin.frames import Frame, prompt_of_state
from comfyproxy.comfyui.fanin.remaining import Remaining
from comfyproxy.comfyui.fanin.telling import IsVoid, Mark, Telling
from comfyproxy.comfyui.fanin.upstreams import Note, Send, Unsure, Upstream
from comfyproxy.comfyui.wire import Document, read_object
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Client

HOME_GRACE = 10.0
"""Seconds that the connection to the home is kept when the client is gone: a page comes back within one."""

LINGER = 60.0
"""Seconds that a session is kept without a client and without prompts."""

LINGER_UNTOLD = 600.0
"""The same where something ended that the page does not know."""


NOTHING_LEFT = {"status": {"exec_info": {"queue_remaining": 0}}}
"""What a server's ``status`` says when its queue is empty and nothing runs."""


def _as_it_is(output: Any, _backend: Backend) -> Any:
    return output


def _never(_prompt_id: str, _backend: Backend) -> bool:
    return False


class ClientSession(Telling):
    """The session of one client (see `comfyproxy.core.balancing.operations.Session`).

    ``home`` is the client's affinity backend: what is about no prompt comes from it alone. ``queued`` gives
    the value of ``queue_remaining``; it must count a prompt until its last event (``executing`` without a
    node) has come. ``now`` is in seconds since the epoch: it is in what the session says of itself. ``mark``
    gives the outputs of a node with what tells files of several servers apart. ``is_void`` says of a prompt
    whether it is not to run on a server that may have it.
    """

    def __init__(
        self,
        client_id: str,
        home: Backend | None,
        now: float,
        *,
        note: Note,
        unsure: Unsure,
        queued: Callable[[], int],
        mark: Mark = _as_it_is,
        is_void: IsVoid = _never,
    ) -> None:
        super().__init__(client_id, home, now, note=note, unsure=unsure, mark=mark, is_void=is_void)
        self._remaining = Remaining(queued)
        self._has_spoken = False

    @property
    def is_attached(self) -> bool:
        """Whether the client has a WebSocket open."""
        return self._stage.client is not None

    def attach(self, client: Client, now: float) -> None:
        """A WebSocket of the client is open: greet it, tell it what it missed, go on with what runs."""
        self._stage.attach(client)
        self._features.begin()
        self._has_spoken = False
        self._home_until = inf
        self._used = now
        self._stage.say(self._remaining.greeting(self.client_id, now))
        self._stage.catch_up()
        self.client_listens(True, now)

    def detach(self, client: Client, now: float) -> None:
        """That WebSocket is gone; if another has taken its place, nothing changes."""
        if self._stage.client is client:
            self._stage.detach()
            self._used = now
            self._home_until = now + HOME_GRACE
            self.client_listens(False, now)

    def from_client(self, client: Client, payload: bytes, is_binary: bool, now: float) -> None:
        """What a client says first may be its ``feature_flags``; nothing else counts, as with ComfyUI."""
        if is_binary or self._has_spoken or client is not self._stage.client:
            return
        document = read_object(payload)
        if document is None:
            return
        self._has_spoken = True
        if document.get("type") == "feature_flags" and len(payload) <= MAX_FLAGS:
            self._features.ask(payload, document, now)
            self._stage.becomes_page()
            for upstream in list(self._upstreams.values()):
                self._introduce(upstream)
            self._answer_flags(now)

    def opened(self, backend: Backend, send: Send, now: float) -> None:
        """The connection to ``backend`` is open: it is told the client's features at once."""
        super().opened(backend, send, now)
        self._introduce(self._upstreams[backend])

    def from_backend(self, backend: Backend, payload: bytes, is_binary: bool, now: float) -> None:
        """Pass on what the client is to see of it."""
        if is_binary:
            self._binary(backend, payload)
            return
        prompt_id = prompt_of_state(payload)
        if prompt_id is not None and self._goes_on(backend, prompt_id, payload):
            return
        document = read_object(payload)
        if document is None:
            return
        kind, data = document.get("type"), document.get("data")
        if kind == "status":
            # What a new connection is greeted with, the client was told when it came.
            if not self._status_came(backend, now):
                self._remaining.changes()
            if data == NOTHING_LEFT:
                self._is_idle(backend, now)
            self._say_status(now)
        elif isinstance(kind, str) and isinstance(data, dict):
            if kind == "feature_flags":
                self._flags_came(backend, payload, data, now)
            else:
                self._event(backend, kind, data, payload, now)
        self._note(backend, document)

    def ended(self, prompt_id: str, now: float) -> None:
        """That prompt has ended or is gone."""
        super().ended(prompt_id, now)
        self._say_status(now)

    def due(self, now: float) -> None:
        """Time has passed."""
        self._end_what_is_silent(now)
        self._renew_flags(now)
        self._answer_flags(now)
        self._say_status(now)
        self._stage.repeat(now)
        super().due(now)

    @property
    def is_idle(self) -> bool:
        """Whether it is kept only for a client that may come back."""
        return self._stage.client is None and not self._places

    @property
    def used(self) -> float:
        """When its client was there last, or a prompt of it."""
        return self._used

    def is_over(self, now: float) -> bool:
        """Whether the client has been gone for long enough and has nothing left to run."""
        if not self.is_idle:
            return False
        return now - self._used >= (LINGER_UNTOLD if self._stage.stories else LINGER)

    # What is about no prompt

    def _introduce(self, upstream: Upstream) -> None:
        """A server hears once for each connection what its client supports."""
        flags = self._features.flags
        if flags is not None and upstream.flags is None:
            upstream.flags = flags
            upstream.send(flags, False)

    def _flags_came(self, backend: Backend, payload: bytes, data: Document, now: float) -> None:
        upstream = self._upstreams.get(backend)
        if upstream is not None:
            upstream.features = read_answer(payload, data)
            self._answer_flags(now)

    def _answer_flags(self, now: float) -> None:
        answer = self._features.answer(self.home, self._upstreams, now)
        if answer is not None:
            self._stage.say(Frame(answer))

    def _renew_flags(self, now: float) -> None:
        """Where a server was told something else than the client says now, have a new connection."""
        for backend, upstream in list(self._upstreams.items()):
            if upstream.flags not in (None, self._features.flags) and not self._work[backend]:
                self._reopen(backend, now)

    def _say_status(self, now: float) -> None:
        if self._stage.client is not None and (frame := self._remaining.news(now)) is not None:
            self._stage.say(frame)
