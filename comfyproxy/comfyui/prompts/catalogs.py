"""What each server can run, asked of it beforehand and kept for a while."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b

from comfyproxy.comfyui.merging.documents import read_body
from comfyproxy.comfyui.scheduling.candidates import Catalog, Lack, lacking
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation, Reply

LIFETIME = 300.0
"""Seconds that a catalog is believed: people install node packs with a restart, which is noticed, and models
without one."""

FRESH = 5.0
"""Seconds that catalogs are believed that say that nobody can run a prompt."""

TIMEOUT = 15.0
"""Seconds for an answer. It takes a server with many node packs some of them."""

AT_ONCE = 4
"""Servers that are asked at a time: reading what they say takes some hundredths of a second each."""

MAX_TEXTS = 16
"""Answers of which the catalog is remembered: servers that are alike need not be read twice."""


class Catalogs:
    """The catalogs of one pool's servers; one whose catalog cannot be had counts as able to run everything.

    ``share`` is shown the answers that were asked for here.
    """

    def __init__(self, share: Callable[[Reply, float], None] = lambda _reply, _now: None) -> None:
        self._share = share
        self._kept: dict[Backend, Catalog] = {}
        self._asked: dict[Backend, float] = {}
        self._read: OrderedDict[bytes, Catalog] = OrderedDict()
        self._under_way: set[Backend] = set()
        self._used = -LIFETIME

    def get(self, backend: Backend) -> Catalog | None:
        """What ``backend`` can run, if that is known."""
        return self._kept.get(backend)

    def forget(self, backend: Backend) -> None:
        """``backend`` may be another than before."""
        self._kept.pop(backend, None)
        self._asked.pop(backend, None)

    def is_answered(self, backend: Backend) -> bool:
        """Whether ``backend`` was asked and has had its time to answer."""
        return backend in self._asked and backend not in self._under_way

    def due(self, backends: Iterable[Backend], now: float) -> list[Backend]:
        """Those who are to be asked: whom nobody has asked yet, and while prompts come, those asked long
        ago."""
        age = LIFETIME if now - self._used < LIFETIME else float("inf")
        return [backend for backend in backends if self._is_older(backend, age, now)]

    def _is_older(self, backend: Backend, age: float, now: float) -> bool:
        asked = self._asked.get(backend)
        return asked is None or now - asked >= age

    def fetch(self, backends: Sequence[Backend], now: float) -> Operation:
        """Ask ``backends`` what they can run."""
        for start in range(0, len(backends), AT_ONCE):
            batch = backends[start : start + AT_ONCE]
            self._asked.update(dict.fromkeys(batch, now))
            self._under_way.update(batch)
            try:
                replies: tuple[Reply, ...] = yield tuple(
                    Ask(backend, b"GET", b"/object_info", timeout=TIMEOUT) for backend in batch
                )
            finally:
                self._under_way.difference_update(batch)
            for reply in replies:
                self.note(reply, now)
                if reply.status == 200:
                    self._share(reply, now)

    def note(self, reply: Reply, now: float) -> None:
        """Take what a server answered to ``GET /object_info``, whoever asked."""
        self._asked[reply.backend] = now
        catalog = self._catalog(reply) if reply.status == 200 else None
        if catalog is None:
            self._kept.pop(reply.backend, None)
        else:
            self._kept[reply.backend] = catalog

    def _catalog(self, reply: Reply) -> Catalog | None:
        digest = blake2b(reply.body, digest_size=16).digest()
        catalog = self._read.get(digest)
        if catalog is None:
            try:
                catalog = Catalog.read(read_body(reply))
            except ValueError:
                return None
            self._read[digest] = catalog
            if len(self._read) > MAX_TEXTS:
                self._read.popitem(last=False)
        return catalog

    def lacking(self, backend: Backend, graph: Document) -> tuple[Lack, ...]:
        """What ``backend`` has not of what ``graph`` needs, as far as is known."""
        kept = self._kept.get(backend)
        return () if kept is None else lacking(graph, kept)

    def sort_out(self, backends: Sequence[Backend], graph: Document, now: float) -> Operation:
        """Tell apart who can run ``graph`` and what the others lack; returns both.

        Before it says that nobody can, all are asked again.
        """
        self._used = now
        able, lacks = self._divide(backends, graph)
        outdated = [] if able else [one for one in backends if self._is_older(one, FRESH, now)]
        while outdated and not able:
            batch, outdated = outdated[:AT_ONCE], outdated[AT_ONCE:]
            yield from self.fetch(batch, now)
            able, lacks = self._divide(backends, graph)
        return able, lacks

    def _divide(
        self, backends: Sequence[Backend], graph: Document
    ) -> tuple[list[Backend], Mapping[Backend, tuple[Lack, ...]]]:
        # Servers that can run the same share a catalog, so a hundred of them are no more work than one.
        catalogs = {id(kept): kept for kept in map(self._kept.get, backends) if kept is not None}
        found = {key: lacking(graph, catalog) for key, catalog in catalogs.items()}
        lacks = {backend: found.get(id(self._kept.get(backend)), ()) for backend in backends}
        return [backend for backend in backends if not lacks[backend]], lacks
