"""What was said about one prompt, kept so that it can be told later or again."""

from collections.abc import Iterator

from comfyproxy.comfyui.fanin.frames import Frame, ProgressText, event
from comfyproxy.comfyui.wire import Document

ENDINGS = frozenset(("execution_success", "execution_error", "execution_interrupted"))

MAX_EVENT = 1024 * 1024
"""Octets of an event that is kept. Larger ones are passed on only as they come; of an ending, what makes it
large (a copy of the failed node's inputs) is left out."""

MAX_TEXTS = 1000
"""Nodes of one prompt whose texts are kept, each up to 16 KiB."""

_MAX_TEXT = 16 * 1024
_BULK = ("current_inputs", "current_outputs", "traceback")


class Story:
    """The events of one prompt, as far as who comes late has to know them.

    Of what is said again and again (progress) only the newest is kept; of results all, in order (``kept``).
    ``has_begun`` says that it runs or has run, ``ending`` is how it ended, and ``is_over`` says that its
    server has nothing more to say: ``executing`` without a node was the last. ``told`` counts what the client
    of the moment has of ``kept``. An ending is told once, whoever the client is, for a page makes a dialog of
    each error (``is_ending_told``). ``serial`` is the story's place in the order of submission.
    """

    def __init__(self, prompt_id: str, serial: int) -> None:
        self.prompt_id = prompt_id
        self.serial = serial
        self.restart()

    def restart(self) -> None:
        """It begins anew: nothing has been said."""
        self.has_begun = False
        self.node: str | None = None
        self.state: Frame | None = None
        self.progress: Frame | None = None
        self.ending: bytes = b""
        self.is_ending_told = False
        self.ended_at = 0.0
        self.is_over = False
        self.size = 0
        self.told = 0
        self.kept: list[Frame] = []
        self.texts: dict[bytes, ProgressText] = {}
        self._start: bytes = b""
        self._cached: bytes = b""
        self._executing: bytes = b""
        self._is_executing_kept = False

    @property
    def has_news(self) -> bool:
        """Whether anything was said of it but that it runs."""
        return bool(self.node or self.state or self.ending or self.kept or self._cached)

    def begin(self, payload: bytes | None, now: float) -> None:
        """``execution_start`` came, or (``None``) it must have come before anybody listened."""
        if payload is None or len(payload) > MAX_EVENT:
            payload = event("execution_start", self._about(now))
        self.has_begun = True
        self._start = payload

    def finds_cached(self, payload: bytes) -> None:
        """``execution_cached`` came: these nodes need not be executed."""
        self._cached = _kept(payload)

    def goes_to(self, node: str, payload: bytes) -> None:
        """``node`` is executed now."""
        self.node = node
        self._executing = _kept(payload)
        self._is_executing_kept = False

    def advances(self, frame: Frame, *, is_state: bool) -> None:
        """``progress`` came, or (``is_state``) ``progress_state``."""
        kept = frame if len(frame.payload) <= MAX_EVENT else None
        if is_state:
            self.state = kept
        else:
            self.progress = kept

    def says(self, text: ProgressText) -> None:
        """A node has a text to show."""
        if len(text.node) + len(text.text) <= _MAX_TEXT and len(self.texts) < MAX_TEXTS:
            self.texts[text.node] = text

    def keep(self, frame: Frame) -> None:
        """Keep a result. A picture does not say its node, so the node's ``executing`` goes before it."""
        if frame.is_binary and self._executing and not self._is_executing_kept:
            self._is_executing_kept = True
            self._append(Frame(self._executing))
        self._append(frame)

    def shed(self) -> int:
        """Forget the least of what is kept, pictures first; returns how many octets that were."""
        index = next((index for index, frame in enumerate(self.kept) if frame.is_binary), 0)
        octets = len(self.kept.pop(index).payload)
        self.told -= index < self.told
        self.size -= octets
        return octets

    def end(self, payload: bytes, kind: str, data: Document, now: float) -> None:
        """It has ended, in the way that ``payload`` says."""
        if len(payload) > MAX_EVENT:
            payload = self._brief(kind, data, now)
        self.ending = payload
        self.ended_at = now

    def opening(self) -> Iterator[Frame]:
        """How it began."""
        return (Frame(payload) for payload in (self._start, self._cached) if payload)

    def results(self) -> Iterator[Frame]:
        """What of its results the client does not have; it has them then."""
        news, self.told = self.kept[self.told :], len(self.kept)
        yield from news

    def present(self) -> Iterator[Frame]:
        """How far it is."""
        if self._executing:
            yield Frame(self._executing)
        yield from (frame for frame in (self.state, self.progress) if frame is not None)

    def closing(self) -> Iterator[Frame]:
        """How it ended, if it has."""
        if self.ending:
            yield Frame(self.ending)
        if self.is_over:
            yield self.last()

    def last(self) -> Frame:
        """What its server says last: that it executes nothing."""
        return Frame(event("executing", {"node": None, "prompt_id": self.prompt_id}))

    def _append(self, frame: Frame) -> None:
        self.kept.append(frame)
        self.size += len(frame.payload)

    def _brief(self, kind: str, data: Document, now: float) -> bytes:
        try:
            brief = event(kind, {name: value for name, value in data.items() if name not in _BULK})
        except RecursionError:
            brief = b""
        return brief if 0 < len(brief) <= MAX_EVENT else event(kind, self._about(now))

    def _about(self, now: float) -> Document:
        return {"prompt_id": self.prompt_id, "timestamp": int(now * 1000)}


def _kept(payload: bytes) -> bytes:
    return payload if len(payload) <= MAX_EVENT else b""
