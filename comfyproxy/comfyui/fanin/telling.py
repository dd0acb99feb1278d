"""What is told of the prompts of one client, of all that their servers say."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from comfyproxy.comfyui.fanin.features import Features
from comfyproxy.comfyui.fanin.frames import (
    Frame,
    Preview,
    ProgressText,
    event,
    event_of_prompt,
    node_id,
    progress_key,
    read_binary,
)
from comfyproxy.comfyui.fanin.stage import Stage
from comfyproxy.comfyui.fanin.story import ENDINGS, Story
from comfyproxy.comfyui.fanin.upstreams import Note, Unsure, Upstreams
from comfyproxy.comfyui.wire import MAX_ID, Document
from comfyproxy.core.balancing.backend import Backend

Mark = Callable[[Any, Backend], Any]
"""Gives what a node made on a backend with what tells the files of several servers apart; the same object if
there is nothing to tell apart."""

IsVoid = Callable[[str, Backend], bool]
"""Whether a prompt is not to run on a backend that may have it; what that says of it counts for nothing."""

SILENCE = 2.0
"""Seconds after an ending in which its server says that it is through. Then it is taken to be."""

UNHEARD = 60.0
"""Seconds without a connection after which nobody waits for a prompt that the ledger does not know of."""

MAX_ADOPTED = 100
"""Prompts that the ledger does not know of, at most: more than servers can run for one client at a time."""

MAX_OVER = 1000
"""Prompts that have ended are remembered, so that what comes late of them makes no new story."""

_ADDRESSED = frozenset(("execution_cached", "executed", "execution_success", "execution_error"))
_PROGRESS = frozenset(("progress", "progress_state"))
_OF_PROMPTS = ENDINGS | _ADDRESSED | _PROGRESS | {"execution_start", "executing"}
_NODE_NAMES = ("node", "node_id", "nodeId", "unique_id", "id")


class Telling(Upstreams):
    """The part of a session that decides whose each message is and what becomes of it.

    The ledger tells where the client's prompts are (`adds`, `ended`) and what happened to them that no
    server said (`synthesise`). Prompts whose start a server tells of are the client's too: only its own
    connection hears that. What a server says of a prompt that has gone elsewhere counts no more.
    """

    def __init__(
        self,
        client_id: str,
        home: Backend | None,
        now: float,
        *,
        note: Note,
        unsure: Unsure,
        mark: Mark,
        is_void: IsVoid,
    ) -> None:
        super().__init__(client_id, home, note=note, unsure=unsure)
        self._features = Features()
        self._stage = Stage(self._features)
        self._mark = mark
        self._is_void = is_void
        self._used = now
        self._running: dict[Backend, Story] = {}
        self._over: OrderedDict[str, bool] = OrderedDict()
        self._adopted: dict[str, float] = {}

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
                self._take(story, kind, data, event_of_prompt(kind, data, prompt_id), now)

    def _event(self, backend: Backend, kind: str, data: Document, payload: bytes, now: float) -> None:
        story = self._story_of(backend, kind, data, now)
        if story is not None:
            if kind == "executed":
                payload = self._marked(backend, data, payload)
            self._take(story, kind, data, payload, now)
            if _is_last(kind, data) and story.prompt_id in self._over:
                self._over[story.prompt_id] = True
            if story.has_begun and not story.is_over:
                self._running[backend] = story
        elif backend is self.home and kind not in _OF_PROMPTS and "prompt_id" not in data:
            self._stage.say(Frame(payload))

    def _goes_on(self, backend: Backend, prompt_id: str, payload: bytes) -> bool:
        """A ``progress_state`` came; whether it is of the prompt that runs, so that it needs no reading."""
        story = self._running.get(backend)
        if story is None or story.prompt_id != prompt_id:
            return False
        self._progresses(
            story, Frame(payload, key=progress_key("progress_state", prompt_id, {})), is_state=True
        )
        return True

    def _progresses(self, story: Story, frame: Frame, *, is_state: bool) -> None:
        story.advances(frame, is_state=is_state)
        self._stage.passes(story, frame)

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
            if self._is_void(prompt_id, backend) or self._is_late(kind, data, prompt_id):
                return None
            is_news = place is None and self._is_addressed(kind, data, prompt_id)
            if not (is_news or kind == "execution_start") or not 0 < len(prompt_id) <= MAX_ID:
                return None
            self.adds(backend, prompt_id, now)
            self._adopted[prompt_id] = now
            if len(self._adopted) > MAX_ADOPTED:
                self._ends(self._stage.story(next(iter(self._adopted))), now)
        return self._stage.story(prompt_id)

    def _is_late(self, kind: str, data: Document, prompt_id: str) -> bool:
        """Whether this is of a prompt whose end is known, but not by its server's own words.

        What was read in a history may be said over a WebSocket later. After its last word a run is a new one.
        """
        if self._over.get(prompt_id) is not False:
            return False
        if _is_last(kind, data):
            self._over[prompt_id] = True
        return True

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
        return story if any(node_id(name) == story.node for name in names) else None

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
            frame = Frame(payload, key=progress_key(kind, story.prompt_id, data))
            self._progresses(story, frame, is_state=kind == "progress_state")
            return
        if kind == "execution_cached":
            story.finds_cached(payload)
        else:
            self._stage.keeps(story, frame)
            return
        self._stage.passes(story, frame)

    def _begin(self, story: Story, payload: bytes | None, now: float) -> None:
        story.begin(payload, now)
        self._stage.begins(story)

    def _executing(self, story: Story, data: Document, payload: bytes, now: float) -> None:
        node = node_id(data.get("node"))
        if node is None:
            if data.get("node") is None:
                self._ends(story, now)
            return
        if not isinstance(data.get("prompt_id"), str):
            shown = node_id(data.get("display_node")) or node
            about = {"node": node, "display_node": shown, "prompt_id": story.prompt_id}
            payload = event("executing", about)
        story.goes_to(node, payload)
        self._stage.passes(story, Frame(payload))

    def _ends(self, story: Story, now: float) -> None:
        """The server of ``story`` is through with it."""
        self._stands_still(story)
        self._adopted.pop(story.prompt_id, None)
        self._over[story.prompt_id] = False
        if len(self._over) > MAX_OVER:
            self._over.popitem(last=False)
        self._stage.ends(story, now)
        self._used = now
        super().ended(story.prompt_id, now)

    def _stands_still(self, story: Story) -> None:
        for backend in [backend for backend, one in self._running.items() if one is story]:
            del self._running[backend]

    def _end_what_is_silent(self, now: float) -> None:
        """Wait no longer for servers that have not said the last thing, or cannot say it."""
        for story in list(self._stage.stories.values()):
            if story.ending and not story.is_over and now - story.ended_at >= SILENCE:
                self._ends(story, now)
        for prompt_id, heard in list(self._adopted.items()):
            if self.is_greeted(self._places[prompt_id]):
                self._adopted[prompt_id] = now
            elif now - heard >= UNHEARD:
                self._ends(self._stage.story(prompt_id), now)

    def _is_idle(self, backend: Backend, now: float) -> None:
        """``backend`` has nothing left to run: no prompt that the ledger does not know of either."""
        for prompt_id in [one for one in self._adopted if self._places[one] is backend]:
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


def _is_last(kind: str, data: Document) -> bool:
    """Whether a server says with this that it is through with a prompt."""
    return kind == "executing" and data.get("node") is None
