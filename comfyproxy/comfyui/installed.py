"""What a pool of ComfyUI servers can run, has and is, shown as one: operations behind these routes.

``/object_info`` is the largest answer that the page asks for, and takes a server half a second to make. So it
is kept, compressed, and made anew only of what servers say that is new.
"""

import re
import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import islice
from typing import Any

from comfyproxy.comfyui.merging.documents import read, read_body, write
from comfyproxy.comfyui.merging.installation import merge_features, merge_system_stats
from comfyproxy.comfyui.merging.object_info import Classes, ObjectInfo, write_classes
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Latch, Operation, Reply, Step, Wait
from comfyproxy.core.balancing.routing import Default, Respond

LIFETIME = 60.0
"""Seconds that what a server can run is believed: models are added without anybody being told."""

TIMEOUT = 15.0
"""Seconds for ``/object_info``: a server with many node packs takes some of them."""

SHORT_TIMEOUT = 5.0

AT_ONCE = 4
"""Servers whose ``/object_info`` is asked for at once: reading one takes some hundredths of a second, and
nothing else happens meanwhile."""

GZIP_LEVEL = 6
_IS_ZERO = re.compile(rb"q[ \t]*=[ \t]*0(?:\.0*)?")

Steps = Generator[Step, Any, Any]


class Installed:
    """What the servers of one pool can run, have and are.

    ``heard`` is shown each answer to ``GET /object_info``, for whoever wants to know what the server can run.
    Of the operations ``backends`` are the servers to ask, the first of the pool first.
    """

    def __init__(self, heard: Callable[[Reply], None] = lambda _reply: None) -> None:
        self._heard = heard
        self._info = ObjectInfo()
        self._classes: dict[Backend, Classes] = {}
        self._read_at: dict[Backend, float] = {}
        self._reading: Latch | None = None
        self._merged_of: list[Classes] = []
        self._merged: Classes = {}
        self._whole: dict[bool, bytes] = {}

    def is_output(self, class_type: str) -> bool:
        """Whether nodes of that class make outputs, as far as is known."""
        return self._info.is_output(class_type)

    def changed(self, backend: Backend | None = None) -> None:
        """``backend``, or any of them, may be able to run something else than before."""
        for one in (backend,) if backend is not None else tuple(self._read_at):
            self._read_at.pop(one, None)

    def note(self, reply: Reply, now: float) -> None:
        """Take ``reply``, which somebody else got, as what its server can run."""
        if reply.status != 200:
            return
        try:
            self._classes[reply.backend] = self._info.read(read_body(reply))
        except ValueError:
            return
        self._read_at[reply.backend] = now

    def refresh(self, backends: Sequence[Backend], now: float) -> Operation:
        """Ask those of ``backends`` of whom nothing is known that is recent."""
        while self._reading is not None:
            yield Wait(self._reading)
        latch = self._reading = Latch()
        try:
            yield from self._refresh(backends, now)
        finally:
            self._reading = None
            latch.open()

    def _refresh(self, backends: Sequence[Backend], now: float) -> Steps:
        self._forget_others(backends)
        outdated = iter([one for one in backends if now - self._read_at.get(one, -LIFETIME) >= LIFETIME])
        while batch := tuple(islice(outdated, AT_ONCE)):
            replies: Sequence[Reply] = yield from _ask_all(batch, b"/object_info", TIMEOUT)
            for reply in replies:
                if reply.status == 200:
                    self._heard(reply)
                    self.note(reply, now)

    def object_info(self, backends: Sequence[Backend], accepted: bytes | None, now: float) -> Operation:
        """GET /object_info; ``accepted`` is the request's ``Accept-Encoding``."""
        yield from self.refresh(backends, now)
        if not self._classes:
            return Default()
        self._merge(backends)
        is_small = _takes_gzip(accepted)
        if is_small not in self._whole:
            whole = write_classes(self._merged)
            self._whole[is_small] = zlib.compress(whole, GZIP_LEVEL, wbits=31) if is_small else whole
        fields = b"Vary: Accept-Encoding\r\n" + (b"Content-Encoding: gzip\r\n" if is_small else b"")
        return Respond(200, self._whole[is_small], fields=fields)

    def object_info_of(self, backends: Sequence[Backend], class_type: str, now: float) -> Operation:
        """GET /object_info/{class}: an empty object if no server has it."""
        yield from self.refresh(backends, now)
        if not self._classes:
            return Default()
        self._merge(backends)
        text = self._merged.get(class_type)
        return Respond(200, b"{}" if text is None else write_classes({class_type: text}))

    def system_stats(self, backends: Sequence[Backend]) -> Operation:
        """GET /system_stats."""
        replies: Sequence[Reply] = yield from _ask_all(backends, b"/system_stats", SHORT_TIMEOUT)
        return _respond(
            merge_system_stats(replies) if any(reply.status == 200 for reply in replies) else None
        )

    def features(self, backends: Sequence[Backend]) -> Operation:
        """GET /features."""
        replies: Sequence[Reply] = yield from _ask_all(backends, b"/features", SHORT_TIMEOUT)
        documents = [found for reply in replies if isinstance(found := read(reply), dict)]
        return _respond(merge_features(documents) if documents else None)

    def _forget_others(self, backends: Iterable[Backend]) -> None:
        """A reload takes servers out."""
        for backend in self._classes.keys() - set(backends):
            del self._classes[backend]
            self._read_at.pop(backend, None)

    def _merge(self, backends: Sequence[Backend]) -> None:
        servers = [self._classes[one] for one in backends if one in self._classes]
        if list(map(id, servers)) != list(map(id, self._merged_of)):
            self._merged, self._merged_of = self._info.merge(servers), servers
            self._whole.clear()


def _ask_all(backends: Sequence[Backend], target: bytes, timeout: float) -> Steps:
    if not backends:
        return ()
    replies: Sequence[Reply] = yield tuple(Ask(one, b"GET", target, timeout=timeout) for one in backends)
    return replies


def _respond(document: dict[str, Any] | None) -> Respond | Default:
    """With ``document``; if nobody said anything, as the pool answers when nobody can."""
    return Default() if document is None else Respond(200, write(document) or b"{}")


def _takes_gzip(accepted: bytes | None) -> bool:
    """Whether ``Accept-Encoding`` names gzip, and not only to rule it out (RFC 9110 section 12.5.3)."""
    for one in (accepted or b"").lower().split(b","):
        coding, *parameters = (part.strip() for part in one.split(b";"))
        if coding in (b"gzip", b"x-gzip"):
            return not any(_IS_ZERO.fullmatch(parameter) for parameter in parameters)
    return False
