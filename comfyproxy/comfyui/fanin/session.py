"""One client's WebSocket, made of those that the servers have for it."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from comfyproxy.comfyui.fanin.features import MAX_FLAGS, Features, read_answer
from comfyproxy.comfyui.fanin.frames import Frame, Preview, ProgressText, event, read_binary
from comfyproxy.comfyui.fanin.remaining import Remaining
from comfyproxy.comfyui.fanin.stage import Stage
from comfyproxy.comfyui.fanin.story import ENDINGS, Story
from comfyproxy.comfyui.fanin.upstreams import Note, Send, Unsure, Upstream, Upstreams
from comfyproxy.comfyui.wire import MAX_ID, Document, read_object
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Client

SILENCE = 2.0
"""Seconds after an ending in which its server says that it is through. Then it is taken to be."""

UNHEARD = 60.0
"""Seconds without a connection after which nobody waits for a prompt that the ledger does not know of."""

HOME_GRACE = 10.0
"""Seconds that the connection to the home is kept when the client is gone: a page comes back within one."""

LINGER = 60.0
"""Seconds that a session is kept without a client and without prompts."""

LINGER_UNTOLD = 600.0
"""The same where something ended that the client does not know."""

MAX_OVER = 1000
_ADDRESSED = frozenset(("execution_cached", "executed", "execution_success", "execution_error"))
_PROGRESS = frozenset(("progress", "progress_state"))
_OF_PROMPTS = ENDINGS | _ADDRESSED | _PROGRESS | {"execution_start", "executing"}
_NODE_NAMES = ("node", "node_id", "nodeId", "unique_id", "id")


def _as_it_is(output: Any, _backend: Backend) -> Any:
    return output


class ClientSession(Upstreams):
    """The session of one client (see `comfyproxy.core.balancing.operations.Session`).

    ``home`` is the client's affinity backend: what is about no prompt comes from it alone. ``queued`` gives
    the value of ``queue_remaining``; it must count a prompt until its last event (``executing`` without a
    node) has come. ``now`` is in seconds since the epoch: it is in what the session says of itself. ``mark``
    gives the outputs of a node with what tells files of several servers apart.

    The ledger tells where the client's prompts are (`adds`, `ended`) and what happened to them that no
    server said (`synthesise`). Prompts whose start a server tells of are the client's too: only its own
    connection hears that.
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
        mark: Callable[[Any, Backend], Any] = _as_it_is,
    ) -> None:
        super().__init__(client_id, home, note=note, unsure=unsure)
        self._mark = mark
        self._features = Features()
        self._stage = Stage(self._features)
        self._remaining = Remaining(queued)
        self._running: dict[Backend, Story] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._has_spoken = False
        self._was_attached = False
        self._adopted: dict[str, float] = {}
        self._used = now

    @property
    def is_attached(self) -> bool:
        """Whether the client has a WebSocket open."""
        return self._stage.client is not None

    def attach(self, client: Client, now: float) -> None:
        """A WebSocket of the client is open: greet it, tell it what it missed, go on with what runs."""
        self._stage.attach(client)
        self._features.begin()
        self._has_spoken = False
        self._was_attached = True
        self._home_until = inf
        self._used = now
        self._stage.say(self._remaining.greeting(self.client_id, now))
        self._stage.catch_up()
        self._review(now)

    def detach(self, client: Client, now: float) -> None:
        """That WebSocket is gone; if another has taken its place, nothing changes."""
        if self._stage.client is client:
            self._stage.detach()
            self._used = now
            self._home_until = now + HOME_GRACE
            self._review(now)

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
        document = read_object(payload)
        if document is None:
            return
        kind, data = document.get("type"), document.get("data")
        if kind == "status":
            # What a new connection is greeted with, the client was told when it came.
            if not self._status_came(backend, now):
                self._remaining.changes()
            self._say_status(now)
        elif isinstance(kind, str) and isinstance(data, dict):
            if kind == "feature_flags":
                self._flags_came(backend, payload, data, now)
            else:
                self._event(backend, kind, data, payload, now)
        self._note(backend, document)

    def adds(self, backend: Backend, prompt_id: str, now: float) -> None:
        """A prompt of this client is on ``backend``, and nowhere else; what it said elsewhere is void."""
        story = self._stage.story(prompt_id)
        self._over.pop(prompt_id, None)
        self._adopted.pop(prompt_id, None)
        if story.is_over or (story.has_begun and self._places.get(prompt_id) is not backend):
            self._stands_still(story)
            self._stage.starts_over(story)
        self._used = now
        super().adds(backend, prompt_id, now)

    def runs(self, prompt_id: str, now: float) -> None:
        """That prompt was found running; nobody may have heard it begin."""
        backend = self._places.get(prompt_id)
        story = self._stage.stories.get(prompt_id)
        if backend is not None and story is not None and not story.has_begun:
            self._begin(story, None, now)
            self._running[backend] = story

    def ended(self, prompt_id: str, now: float) -> None:
        """That prompt has ended or is gone.

        What a client waits for is said if it was not: one that has begun gets its last event.
        """
        self._adopted.pop(prompt_id, None)
        story = self._stage.stories.get(prompt_id)
        if story is not None and not story.is_over:
            if not story.has_begun:
                self._stage.drop(story)
            elif story.ending:
                # Its last event is on its way; `due` does not wait for it for ever.
                return
            else:
                self._ends(story, now)
        super().ended(prompt_id, now)
        self._say_status(now)

    def synthesise(self, events: Iterable[Document], now: float) -> None:
        """Take these (``{"type": ..., "data": {"prompt_id": ...}}``) as said by the servers of their prompts.

        ``execution_error`` and ``executing`` without a node, in that order, end a prompt that died with its
        server. What the client was told already it is not told again.
        """
        for document in events:
            kind, data = document["type"], document["data"]
            prompt_id = data["prompt_id"]
            if prompt_id in self._over:
                continue
            story = self._stage.story(prompt_id)
            if not story.ending or kind == "executing":
                self._take(story, kind, data, _write(kind, data, prompt_id), now)

    def due(self, now: float) -> None:
        """Time has passed."""
        for story in list(self._stage.stories.values()):
            if story.ending and not story.is_over and now - story.ended_at >= SILENCE:
                self._ends(story, now)
        self._forget_unheard(now)
        self._renew_flags(now)
        self._answer_flags(now)
        self._say_status(now)
        self._stage.repeat(now)
        super().due(now)

    def is_over(self, now: float) -> bool:
        """Whether the client has been gone for long enough and has nothing left to run."""
        if self._stage.client is not None or self._places:
            return False
        is_missed = self._was_attached and self._stage.stories
        return now - self._used >= (LINGER_UNTOLD if is_missed else LINGER)

    # Events of prompts

    def _event(self, backend: Backend, kind: str, data: Document, payload: bytes, now: float) -> None:
        story = self._story_of(backend, kind, data, now)
        if story is not None:
            if kind == "executed":
                payload = self._marked(backend, data, payload)
            self._take(story, kind, data, payload, now)
            if story.has_begun and not story.is_over:
                self._running[backend] = story
        elif backend is self.home and kind not in _OF_PROMPTS and "prompt_id" not in data:
            self._stage.say(Frame(payload))

    def _marked(self, backend: Backend, data: Document, payload: bytes) -> bytes:
        """``payload``, which tells of files that ``backend`` has."""
        output = data.get("output")
        marked = self._mark(output, backend)
        if marked is output:
            return payload
        try:
            return event("executed", data | {"output": marked})
        except RecursionError:
            return payload

    def _story_of(self, backend: Backend, kind: str, data: Document, now: float) -> Story | None:
        """The story that a message of ``backend`` belongs to, if it is one of this client's."""
        prompt_id = data.get("prompt_id")
        if not isinstance(prompt_id, str):
            return self._story_without_id(backend, kind, data)
        place = self._places.get(prompt_id)
        if place is not backend:
            is_news = place is None and self._is_addressed(kind, data, prompt_id)
            if not (is_news or kind == "execution_start") or not 0 < len(prompt_id) <= MAX_ID:
                return None
            self.adds(backend, prompt_id, now)
            self._adopted[prompt_id] = now
        return self._stage.story(prompt_id)

    def _is_addressed(self, kind: str, data: Document, prompt_id: str) -> bool:
        """Whether only the client that has this prompt can have been told, and it is none that ended."""
        if prompt_id in self._over:
            return False
        return kind in _ADDRESSED or (kind == "executing" and data.get("node") is not None)

    def _story_without_id(self, backend: Backend, kind: str, data: Document) -> Story | None:
        """A message that does not say its prompt may be about the one that runs there.

        ``executing`` on a new connection is. What node packs send is if it names the node at work; else it
        goes to everybody, and comes over every connection.
        """
        story = self._running.get(backend)
        if story is None or kind == "executing":
            return story
        if kind in _OF_PROMPTS or kind == "logs" or story.node is None:
            return None
        names = [data.get(name) for name in _NODE_NAMES]
        return story if any(_node(name) == story.node for name in names) else None

    def _take(self, story: Story, kind: str, data: Document, payload: bytes, now: float) -> None:
        """``story`` goes on by one event."""
        frame = Frame(payload)
        if kind == "execution_start":
            if story.has_news:
                self._stage.starts_over(story)
            self._begin(story, payload, now)
            return
        if not story.has_begun:
            self._begin(story, None, now)
        if kind == "executing":
            self._executing(story, data, payload, now)
            return
        if kind in ENDINGS:
            story.end(payload, kind, data, now)
            self._stage.closes(story, frame)
            return
        if kind in _PROGRESS:
            frame = Frame(payload, key=(kind, story.prompt_id, _node(data.get("node"))))
            story.advances(kind, frame)
        elif kind == "execution_cached":
            story.finds_cached(payload)
        else:
            self._stage.keeps(story, frame)
            return
        self._stage.passes(story, frame)

    def _begin(self, story: Story, payload: bytes | None, now: float) -> None:
        story.begin(payload, now)
        self._stage.begins(story)

    def _executing(self, story: Story, data: Document, payload: bytes, now: float) -> None:
        node = _node(data.get("node"))
        if node is None:
            if data.get("node") is None:
                self._ends(story, now)
            return
        if not isinstance(data.get("prompt_id"), str):
            shown = _node(data.get("display_node")) or node
            about = {"node": node, "display_node": shown, "prompt_id": story.prompt_id}
            payload = event("executing", about)
        story.goes_to(node, payload)
        self._stage.passes(story, Frame(payload))

    def _ends(self, story: Story, now: float) -> None:
        """The server of ``story`` is through with it."""
        self._stands_still(story)
        self._adopted.pop(story.prompt_id, None)
        self._over[story.prompt_id] = None
        if len(self._over) > MAX_OVER:
            self._over.popitem(last=False)
        self._stage.ends(story, now)
        self._used = now
        super().ended(story.prompt_id, now)

    def _stands_still(self, story: Story) -> None:
        for backend in [backend for backend, one in self._running.items() if one is story]:
            del self._running[backend]

    def _forget_unheard(self, now: float) -> None:
        for prompt_id, heard in list(self._adopted.items()):
            if self.is_greeted(self._places[prompt_id]):
                self._adopted[prompt_id] = now
            elif now - heard >= UNHEARD:
                self._ends(self._stage.story(prompt_id), now)

    def _binary(self, backend: Backend, payload: bytes) -> None:
        upstream = self._upstreams.get(backend)
        features = None if upstream is None else upstream.features
        names_prompts = features is not None and features.names_prompts
        message = read_binary(payload, self._places, names_prompts)
        story = self._running.get(backend)
        if message is not None and message.prompt_id is not None:
            is_ours = self._places.get(message.prompt_id) is backend
            story = self._stage.stories.get(message.prompt_id) if is_ours else None
        if isinstance(message, ProgressText):
            if story is not None:
                self._stage.says(story, message)
        elif isinstance(message, Preview):
            if story is not None and story.has_begun:
                self._preview(story, message)
        elif self._stage.is_shown(story) if story is not None else backend is self.home:
            self._stage.say(Frame(payload, True))

    def _preview(self, story: Story, preview: Preview) -> None:
        """Previews are shown or not. A program may want the pictures of its prompts this way: it gets all."""
        if preview.is_result and not self._stage.is_page:
            self._stage.keeps(story, Frame(preview.frame.payload, True))
        else:
            self._stage.passes(story, preview.frame)

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


def _write(kind: str, data: Document, prompt_id: str) -> bytes:
    """An event whose ``data`` may come from a server's history, and be deeper than can be written."""
    try:
        return event(kind, data)
    except RecursionError:
        return event(kind, {"prompt_id": prompt_id})


def _node(value: object) -> str | None:
    """The id of a node, if ``value`` can be one."""
    return str(value)[:MAX_ID] if isinstance(value, str | int) else None
