"""What each server can run, asked of it when that is needed and kept for a while."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from comfyproxy.comfyui.merging.documents import read_body
from comfyproxy.comfyui.scheduling.candidates import Catalog, Lack, lacking
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation, Reply

LIFETIME = 300.0
"""Seconds that a catalog is believed: people install node packs with a restart, which is noticed, and models
without one."""

FRESH = 5.0
"""Seconds that a catalog is believed that says that nobody can run a prompt."""

TIMEOUT = 15.0
"""Seconds for an answer. It takes a server with many node packs some of them."""


class Catalogs:
    """The catalogs of one pool's servers; one whose catalog cannot be had counts as able to run everything.

    ``share`` is shown the answers that were asked for here.
    """

    def __init__(self, share: Callable[[Reply, float], None] = lambda _reply, _now: None) -> None:
        self._share = share
        self._kept: dict[Backend, Catalog] = {}
        self._asked: dict[Backend, float] = {}

    def forget(self, backend: Backend) -> None:
        """``backend`` may be another than before."""
        self._kept.pop(backend, None)
        self._asked.pop(backend, None)

    def outdated(self, backends: Iterable[Backend], now: float, age: float = LIFETIME) -> list[Backend]:
        """Those that have not been asked for so long."""
        return [one for one in backends if now - self._asked.get(one, -LIFETIME - 1) > age]

    def never_asked(self, backends: Iterable[Backend]) -> list[Backend]:
        """Those of whom nobody has asked it."""
        return [backend for backend in backends if backend not in self._asked]

    def fetch(self, backends: Sequence[Backend], now: float) -> Operation:
        """Ask ``backends`` what they can run."""
        for backend in backends:
            self._asked[backend] = now
        asks = tuple(Ask(backend, b"GET", b"/object_info", timeout=TIMEOUT) for backend in backends)
        replies: tuple[Reply, ...] = yield asks
        for reply in replies:
            self.note(reply, now)
            if reply.status == 200:
                self._share(reply, now)

    def note(self, reply: Reply, now: float) -> None:
        """Take what a server answered to ``GET /object_info``, whoever asked."""
        self._asked[reply.backend] = now
        catalog = _read(reply)
        if catalog is None:
            self._kept.pop(reply.backend, None)
        else:
            self._kept[reply.backend] = catalog

    def lacking(self, backend: Backend, graph: Document) -> tuple[Lack, ...]:
        """What ``backend`` has not of what ``graph`` needs, as far as is known."""
        kept = self._kept.get(backend)
        return () if kept is None else lacking(graph, kept)

    def sort_out(self, backends: Sequence[Backend], graph: Document, now: float) -> Operation:
        """Tell apart who can run ``graph`` and what the others lack; returns both.

        Before it says that nobody can, those who said so long ago are asked again.
        """
        yield from self._update(self.outdated(backends, now), now)
        able, lacks = self._divide(backends, graph)
        if not able:
            yield from self._update(self.outdated(backends, now, FRESH), now)
            able, lacks = self._divide(backends, graph)
        return able, lacks

    def _update(self, backends: Sequence[Backend], now: float) -> Operation:
        if backends:
            yield from self.fetch(backends, now)

    def _divide(
        self, backends: Sequence[Backend], graph: Document
    ) -> tuple[list[Backend], Mapping[Backend, tuple[Lack, ...]]]:
        lacks = {backend: self.lacking(backend, graph) for backend in backends}
        return [backend for backend in backends if not lacks[backend]], lacks


def _read(reply: Reply) -> Catalog | None:
    try:
        return Catalog.read(read_body(reply)) if reply.status == 200 else None
    except ValueError:
        return None
