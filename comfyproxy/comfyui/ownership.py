"""Which server a picture is on, and how two of the same name are told apart.

Every ComfyUI counts its pictures for itself, so the first ones of eight servers are all called
``ComfyUI_00001_.png``, and a request for one says no more than this name. What the pool tells of outputs
(events, history, jobs) therefore names the server too, as the first part of the ``subfolder``, which pages
and scripts repeat when they ask for the picture: ``server-1a2b3c4d5e6f``, with the server's fingerprint. Such
a **mark** is taken off again before a server sees it, and any proxy of the pool can read it.

A request without a mark goes where the caller's own prompts made a file of that name, else where one was last
made; if nothing is known all servers are asked, and the newest file is shown.
"""

import re
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes, urlencode

from comfyproxy.comfyui.affinity import AffinityTable
from comfyproxy.comfyui.callers import Callers
from comfyproxy.comfyui.files import MADE, FileRef, file_in_object, file_in_query
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation, Reply
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import Decision, Default, Operate, Pin, Refuse
from comfyproxy.core.http.http1 import RequestHead

AT_ONCE = 128
"""Questions about files that are asked at the same time at most."""

MAX_OUTPUTS = 10_000
"""Values below the outputs of one prompt that are looked at."""

_MARK = re.compile(r"server-([0-9a-f]{12})(?:/|$)")
_SUBFOLDER = re.compile(rb"(?<=[?&])subfolder=([^&]*)")
GONE = Refuse(404, "The server that made this file is not in the pool any more.")


def mark(subfolder: str, backend: Backend) -> str:
    """``subfolder`` with the mark of ``backend``; one that is there already stays."""
    if _MARK.match(subfolder):
        return subfolder
    word = f"server-{backend.fingerprint}"
    return f"{word}/{subfolder}" if subfolder else word


def unmark(subfolder: str) -> tuple[str, str]:
    """The fingerprint in the mark of ``subfolder``, empty without one, and what is left of it."""
    match = _MARK.match(subfolder)
    return (match[1], subfolder[match.end() :]) if match else ("", subfolder)


def marked(outputs: Any, backend: Backend) -> Any:
    """``outputs``, what nodes made on ``backend`` as an event, the history or a job tells it, with marks.

    Uploads that are shown among them have none: their names are the same everywhere. What was given is left
    as it is; where there is nothing to mark it is returned itself.
    """
    try:
        return _marked(outputs, backend)
    except RecursionError:
        return outputs


def _marked(value: Any, backend: Backend) -> Any:
    if isinstance(value, list):
        items = [_marked(item, backend) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if not isinstance(value, dict):
        return value
    file = file_in_object(value)
    if file is not None:
        return value | {"subfolder": mark(file.subfolder, backend)} if file.kind in MADE else value
    members = {key: _marked(member, backend) for key, member in value.items()}
    return members if any(members[key] is not value[key] for key in value) else value


def files_in(outputs: Any) -> Iterator[FileRef]:
    """The files that ``outputs`` tell of, without marks; at most `MAX_OUTPUTS` values are looked at."""
    waiting = [outputs]
    for _ in range(MAX_OUTPUTS):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            file = file_in_object(value)
            if file is None:
                waiting.extend(value.values())
            else:
                yield file._replace(subfolder=unmark(file.subfolder)[1])


def plain_target(target: bytes) -> bytes:
    """``target`` of a view as the server that has the file knows it: without a mark."""
    return _SUBFOLDER.sub(_plain_subfolder, target, count=1)


def _plain_subfolder(match: re.Match[bytes]) -> bytes:
    subfolder = unquote_to_bytes(match[1].replace(b"+", b" ")).decode("utf-8", "surrogateescape")
    fingerprint, rest = unmark(subfolder)
    if not fingerprint:
        return match[0]
    return b"subfolder=" + quote_from_bytes(rest.encode("utf-8", "surrogateescape")).encode()


def view_of(file: FileRef) -> bytes:
    """The target under which a server shows ``file`` as it is."""
    query = {"filename": file.name, "subfolder": file.subfolder, "type": file.kind}
    return b"/view?" + urlencode(query, quote_via=quote, errors="surrogatepass").encode()


class Ownership:
    """Knows which server has which file that prompts of ``pool`` made."""

    def __init__(self, pool: Pool, callers: Callers) -> None:
        self._pool = pool
        self._callers = callers
        self._files = AffinityTable(pool)

    def told(self, outputs: Any, backend: Backend, owner: str, now: float) -> None:
        """``backend`` told of ``outputs`` of a prompt; ``owner`` is the fingerprint of its caller.

        An ``executed`` event has them as ``output``, the history and a job as ``outputs``.
        """
        place = self._callers.place_of(owner)
        for file in files_in(outputs):
            for whose in (owner, place) if place else (owner,):
                self._files.bind(f"{whose}\n{file.key}", backend, now)
            self._files.bind(file.key, backend, now)

    def note(self, file: FileRef, backend: Backend, now: float) -> None:
        """``backend`` has the latest ``file``: an upload."""
        self._files.bind(file.key, backend, now)

    def mark(self, outputs: Any, backend: Backend) -> Any:
        """`marked`, unless the pool has one server only: then names are enough."""
        return marked(outputs, backend) if len(self._pool) > 1 else outputs

    def find(self, file: FileRef, caller: str, now: float) -> Backend | None:
        """Who has ``file``: whom its mark names, else where a prompt of ``caller`` or anybody's made it.

        ``None`` if nothing is known of it, or the server that its mark names is gone.
        """
        fingerprint, _ = unmark(file.subfolder)
        if fingerprint:
            return self._pool.find(fingerprint)
        return self._files.find(f"{caller}\n{file.key}", now) or self._files.find(file.key, now)

    def view(self, head: RequestHead, now: float) -> Decision:
        """Where ``head`` finds the file that it wants to see (``GET /view``, and those of node packs).

        No other server will do for what a prompt made: a picture of the same name is another picture.
        """
        file = file_in_query(head.target)
        if file is None:
            return Default()
        fingerprint, _ = unmark(file.subfolder)
        if not fingerprint:
            return Operate(self._look(head, file, now))
        backend = self._pool.find(fingerprint)
        return GONE if backend is None else Pin(backend, strict=True)

    def _look(self, head: RequestHead, file: FileRef, now: float) -> Operation:
        caller = yield from self._callers.identify(head)
        backend = self.find(file, caller.fingerprint, now)
        if backend is None or (file.kind not in MADE and not backend.takes_pins):
            backend = yield from newest(file, [one for one in self._pool.backends if one.takes_pins])
            if backend is None:
                # It says itself that there is no such file.
                nearest = self._callers.affinity(caller.fingerprint)
                return Default() if nearest is None else Pin(nearest)
            self._files.bind(file.key, backend, now)
        return Pin(backend, strict=file.kind in MADE)


def newest(file: FileRef, backends: Sequence[Backend]) -> Operation:
    """Ask ``backends`` for ``file`` and find the `Backend` whose file changed last, the first of several."""
    best: tuple[float, Backend] | None = None
    for start in range(0, len(backends), AT_ONCE):
        asked = backends[start : start + AT_ONCE]
        replies = yield tuple(Ask(backend, b"HEAD", view_of(file)) for backend in asked)
        for reply in replies:
            if reply.status == 200 and (best is None or modified(reply) > best[0]):
                best = modified(reply), reply.backend
    return None if best is None else best[1]


def modified(reply: Reply) -> float:
    """When the file in ``reply`` changed last (``Last-Modified``): seconds since the epoch, 0 if unsaid."""
    value = reply.head.value(b"last-modified") if reply.head is not None else None
    try:
        return 0.0 if value is None else parsedate_to_datetime(value.decode("latin-1")).timestamp()
    except (ValueError, OverflowError):
        return 0.0
