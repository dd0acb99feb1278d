"""What was said about one prompt, kept so that it can be told later or again."""

from collections.abc import Iterator

from comfyproxy.comfyui.fanin.frames import Frame, ProgressText, event
from comfyproxy.comfyui.wire import Document

ENDINGS = frozenset(("execution_success", "execution_error", "execution_interrupted"))

MAX_ENDING = 256 * 1024
"""Octets of an ending that is kept as it came; what makes one larger is a copy of a failed node's inputs."""

_BULK = ("current_inputs", "current_outputs", "traceback")


class Story:
    """The events of one prompt, as far as who comes late has to know them.

    Of what is said again and again (progress) only the newest is kept; of results all, in order (``kept``).
    ``has_begun`` says that it runs or has run, ``ending`` is how it ended, and ``is_over`` says that its
    server has nothing more to say: ``executing`` without a node was the last. ``told`` counts what the
    client of the moment has of ``kept``.
    """

    def __init__(self, prompt_id: str, serial: int) -> None:
        self.prompt_id = prompt_id
        self.serial = serial
        self.restart()

    def restart(self) -> None:
        """It begins anew, elsewhere."""
        self.start: bytes = b""
        self.cached: bytes = b""
        self.kept: list[Frame] = []
        self.texts: dict[bytes, ProgressText] = {}
        self.node: str | None = None
        self.executing: bytes = b""
        self.progress: Frame | None = None
        self.state: Frame | None = None
        self.ending: bytes = b""
        self.ended_at = 0.0
        self.is_over = False
        self.size = 0
        self.told = 0
        self._is_executing_kept = False

    @property
    def has_begun(self) -> bool:
        """Whether its server has begun with it."""
        return bool(self.start)

    def begin(self, payload: bytes | None, now: float) -> None:
        """``execution_start`` came, or (``None``) it must have come before we listened."""
        if payload is None:
            data = {"prompt_id": self.prompt_id, "timestamp": int(now * 1000)}
            payload = event("execution_start", data)
        self.start = payload

    def goes_to(self, node: str | None, payload: bytes) -> None:
        """``node`` is executed now."""
        self.node = node
        self.executing = payload
        self._is_executing_kept = False

    def keep(self, frame: Frame) -> None:
        """Keep a result. A picture says nothing of its node, so the node's ``executing`` goes before it."""
        if frame.is_picture and self.executing and not self._is_executing_kept:
            self._is_executing_kept = True
            self._append(Frame(self.executing))
        self._append(frame)

    def end(self, payload: bytes, kind: str, data: Document, now: float) -> None:
        """It has ended, in the way that ``payload`` says."""
        if len(payload) > MAX_ENDING:
            brief = {name: value for name, value in data.items() if name not in _BULK}
            payload = event(kind, brief)
        if len(payload) > MAX_ENDING:
            payload = event(kind, {"prompt_id": self.prompt_id, "timestamp": int(now * 1000)})
        self.ending = payload
        self.ended_at = now

    def shed(self) -> int:
        """Forget the least of what is kept, binary messages first; returns how many octets that were."""
        if not self.kept:
            return 0
        index = next((index for index, frame in enumerate(self.kept) if frame.is_binary), 0)
        octets = len(self.kept.pop(index).payload)
        self.told -= index < self.told
        self.size -= octets
        return octets

    def opening(self) -> Iterator[Frame]:
        """How it began."""
        for payload in (self.start, self.cached):
            if payload:
                yield Frame(payload)

    def results(self) -> Iterator[Frame]:
        """What the client does not have of the results; it has them then."""
        news, self.told = self.kept[self.told :], len(self.kept)
        yield from news

    def present(self) -> Iterator[Frame]:
        """How far it is."""
        if self.executing:
            yield Frame(self.executing)
        yield from (frame for frame in (self.state, self.progress) if frame is not None)

    def closing(self) -> Iterator[Frame]:
        """How it ended, if it has."""
        if self.ending:
            yield Frame(self.ending)
        if self.is_over:
            yield Frame(event("executing", {"node": None, "prompt_id": self.prompt_id}))

    def _append(self, frame: Frame) -> None:
        self.kept.append(frame)
        self.size += len(frame.payload)
