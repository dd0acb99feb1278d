"""Brings the files that a prompt loads to the server that is to run it.

An upload is on one server, what a prompt made on another. So before a submission goes to a server it is made
sure that this one has the files that the graph names, with the right content: it is asked for each, and so is
the server where the file is at home. What is missing is fetched there by ``GET /view`` and brought here by
``POST /upload/image``. Masks and the clipboard's pictures (``clipspace/``) are files like others.

Whose file it is where several servers have one of the name: the caller's own upload counts, else the latest
upload, else the newest file. A copy takes the name over, unless the file here is another upload of that name:
then, and always for what prompts made (``x.png [output]``; each server has a first picture of its own), the
copy is called by its content (``comfyproxy/0a1b.../x.png``) and the graph names that instead.

Nothing is copied twice: what a file holds is remembered by its ``ETag`` on each server.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from comfyproxy.comfyui.affinity import MAX_ENTRIES, AffinityTable
from comfyproxy.comfyui.files import MADE, FileRef, upload_told
from comfyproxy.comfyui.forms import UPLOAD_TARGET, upload_form
from comfyproxy.comfyui.inputs import files_loaded, with_names
from comfyproxy.comfyui.ownership import AT_ONCE, Ownership, modified, unmark, view_of
from comfyproxy.comfyui.steps import together
from comfyproxy.comfyui.wire import MEBIBYTE, Document
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Latch, Operation, Reply, Wait
from comfyproxy.core.balancing.pool import Pool

MAX_COPY = 256 * MEBIBYTE
"""Octets of the largest file that is copied; it is in memory meanwhile."""

FRESH = 2.0
"""Seconds for which it is believed that a server has what it was last seen to have."""

MAX_SETTLED = 10_000
MAX_SPREADING = 1_000
"""Uploads that may wait to be copied to every server."""

FOLDER = "comfyproxy"
"""Where in ``input`` the copies are that are called by their content."""

_PATIENCE = 10.0
_PACE = MEBIBYTE


@dataclass(frozen=True, slots=True)
class Lacking:
    """A file that could not be brought to the server, and who has it."""

    file: FileRef
    holders: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class Brought:
    """``submission`` is what is to be posted, the one that was given unless files have other names there.

    ``lacking`` are files that some server has and that could not be brought. What no server has is not among
    them: it may be no file at all, and if it is, ComfyUI says best what is wrong. ``is_reached`` says that
    the server answered what it was asked.
    """

    submission: Document
    lacking: tuple[Lacking, ...] = ()
    is_reached: bool = True


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as a server has it."""

    backend: Backend
    size: int
    modified: float
    tag: str


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one file: where it is on the server (``None`` is where it is named), or why not."""

    place: FileRef | None = None
    lacking: Lacking | None = None
    is_reached: bool = True


@dataclass(frozen=True, slots=True)
class _Copy:
    """``file`` is to be copied from ``source``; ``place`` is what it is called there if not that."""

    file: FileRef
    source: _Seen
    there: _Seen | None
    place: FileRef | None


class Replication:
    """Keeps the files of ``pool`` where they are needed; ``eager`` says that uploads go to every server at
    once, so that no prompt has to wait for them."""

    def __init__(self, pool: Pool, ownership: Ownership, *, eager: bool = False) -> None:
        self.eager = eager
        self._pool = pool
        self._ownership = ownership
        self._homes = AffinityTable(pool)
        self._uploads: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._digests: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self._settled: OrderedDict[str, dict[tuple[Backend, str], tuple[float, FileRef | None]]] = (
            OrderedDict()
        )
        self._copying: dict[tuple[str, Backend], Latch] = {}
        self._spreading: deque[tuple[FileRef, Backend]] = deque(maxlen=MAX_SPREADING)

    def uploaded(self, file: FileRef, backend: Backend, caller: str, now: float) -> None:
        """``backend`` keeps an upload (of a mask, too) as ``file``.

        ``caller`` is the fingerprint of the caller whose it is, empty if that is not known.
        """
        for key in (f"{caller}\n{file.key}", file.key) if caller else (file.key,):
            self._homes.bind(key, backend, now)
        _keep(self._uploads, (file.key, backend.fingerprint), None, MAX_ENTRIES)
        self._settled.pop(file.key, None)
        if self.eager:
            self._spreading.append((file, backend))

    def bring(self, submission: Document, target: Backend, caller: str, now: float) -> Operation:
        """Have ``target`` hold the files that ``submission`` loads; returns `Brought`.

        ``submission`` is the object in the body of the ``POST /prompt`` of ``caller``, as it came: where a
        prompt goes to another server later, the files are brought again.
        """
        loaded = files_loaded(submission)
        files = list(dict.fromkeys(loaded.values()))
        plans: list[_Result | _Copy] = []
        step = max(1, AT_ONCE // max(1, len(self._pool)))
        for start in range(0, len(files), step):
            some = [self._plan(file, target, caller, now) for file in files[start : start + step]]
            plans += yield from together(some)
        results: dict[FileRef, _Result] = {}
        for file, plan in zip(files, plans, strict=True):
            results[file] = plan if isinstance(plan, _Result) else (yield from self._copy(plan, target))
            self._note(file, results[file], target, caller, now)
        places = {text: place for text, file in loaded.items() if (place := results[file].place) is not None}
        return Brought(
            with_names(submission, {text: _text(place) for text, place in places.items()}),
            tuple(one.lacking for one in results.values() if one.lacking is not None),
            all(one.is_reached for one in results.values()),
        )

    def background(self, now: float) -> Iterator[Operation]:
        """What is to be done beside requests: bring new uploads to every server, if that is wanted."""
        while self._spreading:
            yield self._spread(*self._spreading.popleft(), now)

    def home_of(self, file: FileRef, caller: str, now: float) -> Backend | None:
        """The server whose ``file`` counts for ``caller``; ``None`` if it is not known yet."""
        if file.kind in MADE:
            return self._ownership.find(file, caller, now)
        return self._homes.find(f"{caller}\n{file.key}", now) or self._homes.find(file.key, now)

    def _plan(self, file: FileRef, target: Backend, caller: str, now: float) -> Operation:
        """Find out where ``file`` is at home, and whether ``target`` has the same.

        Returns `_Result`, or the `_Copy` that may have to be made.
        """
        settled = self._settled.get(file.key, {}).get((target, caller))
        if settled is not None and 0 <= now - settled[0] < FRESH:
            return _Result(settled[1])
        home = self.home_of(file, caller, now)
        fingerprint, subfolder = unmark(file.subfolder)
        place = None
        if fingerprint:
            if home is None:
                return _Result()
            place = file = file._replace(subfolder=subfolder)
        if home is target:
            return _Result(place)
        seen: dict[Backend, _Seen | None] = yield from _look(file, self._asked(home, target))
        if target not in seen:
            return _Result(is_reached=False)
        if home is not None and seen.get(home) is None:
            if file.kind in MADE:
                return _Result(
                    None if home in seen else place, None if home in seen else Lacking(file, (home,))
                )
            seen |= yield from _look(file, [one for one in self._asked(None, target) if one not in seen])
        source = _source(seen, home, target)
        if source is None or source.backend is target:
            return _Result(place)
        return _Copy(file, source, seen[target], place)

    def _note(self, file: FileRef, result: _Result, target: Backend, caller: str, now: float) -> None:
        """Believe for a moment what was just found out."""
        if result.lacking is None and result.is_reached:
            before = self._settled.get(file.key, {}).items()
            fresh = {whose: one for whose, one in before if 0 <= now - one[0] < FRESH}
            _keep(self._settled, file.key, fresh | {(target, caller): (now, result.place)}, MAX_SETTLED)

    def _asked(self, home: Backend | None, target: Backend) -> list[Backend]:
        """Who is asked for a file of ``home``: everybody if that is not known."""
        if home is not None:
            return [target, home]
        return [target, *(one for one in self._pool.backends if one.takes_pins and one is not target)]

    def _copy(self, copy: _Copy, target: Backend, data: bytes | None = None) -> Operation:
        """Make ``copy``, unless somebody does so already: then see what came of it. Returns `_Result`."""
        key = copy.file.key, target
        while (latch := self._copying.get(key)) is not None:
            yield Wait(latch)
            seen = yield from _look(copy.file, [target])
            copy = replace(copy, there=seen.get(target))
        latch = self._copying[key] = Latch()
        try:
            return (yield from self._make(copy, target, data))
        finally:
            del self._copying[key]
            latch.open()

    def _make(self, copy: _Copy, target: Backend, data: bytes | None) -> Operation:
        """Let ``target`` have what the source has; ``data`` is that if it is known. Returns `_Result`."""
        file, source, there = copy.file, copy.source, copy.there
        is_same_size = there is not None and there.size == source.size
        digest = self._digest_of(file, source)
        if there is not None and is_same_size and digest and self._digest_of(file, there) == digest:
            return _Result(copy.place)
        is_upload = there is not None and (file.key, target.fingerprint) in self._uploads
        by_content = file.kind in MADE or is_upload
        if by_content and digest and (yield from self._has(_copy_of(file, digest), source.size, target)):
            return _Result(_copy_of(file, digest))
        data = data if data is not None else (yield from self._fetch(file, source))
        if data is None:
            return _Result(lacking=Lacking(file, (source.backend,)))
        digest = _digest(data)
        if there is not None and is_same_size and (yield from self._is(file, there, digest)):
            return _Result(copy.place)
        place = _copy_of(file, digest) if by_content else file
        is_there = by_content and (yield from self._has(place, len(data), target))
        if not is_there and not (yield from self._store(place, data, target)):
            return _Result(lacking=Lacking(file, (source.backend,)))
        return _Result(place if by_content else copy.place)

    def _is(self, file: FileRef, seen: _Seen, digest: str) -> Operation:
        """Whether the content of ``seen`` has this ``digest``; it is read if it never was."""
        if not (known := self._digest_of(file, seen)):
            data = yield from self._fetch(file, seen)
            known = "" if data is None else _digest(data)
        return known == digest

    def _has(self, file: FileRef, size: int, target: Backend) -> Operation:
        """Whether ``target`` has a copy that is called by its content; one cut short has another size."""
        found = yield from _look(file, [target])
        seen = found.get(target)
        return seen is not None and seen.size == size

    def _fetch(self, file: FileRef, seen: _Seen) -> Operation:
        """The content of ``seen``; ``None`` if it cannot be had."""
        if seen.size > MAX_COPY:
            return None
        timeout = _PATIENCE + max(0, seen.size) / _PACE
        reply: Reply = yield Ask(seen.backend, b"GET", view_of(file), limit=MAX_COPY, timeout=timeout)
        if reply.status != 200 or reply.head is None:
            return None
        self._learn(file, _seen(reply), reply.body)
        return reply.body

    def _store(self, file: FileRef, data: bytes, target: Backend) -> Operation:
        """Let ``target`` keep ``data`` as ``file``; whether it does."""
        form = upload_form(file, data)
        timeout = _PATIENCE + len(data) / _PACE
        reply: Reply = yield Ask(
            target, b"POST", UPLOAD_TARGET, form.body, content_type=form.content_type, timeout=timeout
        )
        if reply.head is None or upload_told(reply.head, reply.body) != file:
            return False
        found = yield from _look(file, [target])
        if (seen := found.get(target)) is not None and seen.size == len(data):
            self._learn(file, seen, data)
        return True

    def _spread(self, file: FileRef, home: Backend, now: float) -> Operation:
        """Bring an upload to every server that has none of that name or an older one."""
        seen: dict[Backend, _Seen | None] = yield from _look(file, self._asked(None, home))
        source = seen.get(home)
        data = None if source is None else (yield from self._fetch(file, source))
        if source is None or data is None:
            return
        for target, there in seen.items():
            if target is not home and (there is None or (file.key, target.fingerprint) not in self._uploads):
                yield from self._copy(_Copy(file, source, there, None), target, data)

    def _digest_of(self, file: FileRef, seen: _Seen) -> str:
        """What is known of the content of ``seen``; empty if nothing is."""
        return self._digests.get((seen.backend.fingerprint, file.key, seen.tag), "") if seen.tag else ""

    def _learn(self, file: FileRef, seen: _Seen, data: bytes) -> None:
        if seen.tag:
            _keep(self._digests, (seen.backend.fingerprint, file.key, seen.tag), _digest(data), MAX_ENTRIES)


def _look(file: FileRef, backends: Sequence[Backend]) -> Operation:
    """Ask ``backends`` for ``file``; returns what each that answered has, ``None`` for nothing."""
    found: dict[Backend, _Seen | None] = {}
    for start in range(0, len(backends), AT_ONCE):
        replies = yield tuple(
            Ask(one, b"HEAD", view_of(file), timeout=_PATIENCE) for one in backends[start : start + AT_ONCE]
        )
        for reply in replies:
            if reply.head is not None:
                found[reply.backend] = _seen(reply) if reply.status == 200 else None
    return found


def _seen(reply: Reply) -> _Seen:
    head = reply.head
    assert head is not None
    length = head.value(b"content-length") or b""
    size = int(length) if length.isdigit() else -1
    tag = head.value(b"etag") or head.value(b"last-modified") or b""
    return _Seen(
        reply.backend, size, modified(reply), tag.decode("latin-1") and f"{size} {tag.decode('latin-1')}"
    )


def _source(seen: Mapping[Backend, _Seen | None], home: Backend | None, target: Backend) -> _Seen | None:
    """Whose file counts: that of its home, else the newest; of equally old ones the target's own."""
    if home is not None and (kept := seen.get(home)) is not None:
        return kept
    found = [one for one in seen.values() if one is not None]
    return max(found, key=lambda one: (one.modified, one.backend is target), default=None)


def _text(place: FileRef) -> str:
    """How an input of a node names what is at ``place``."""
    return place.path if place.kind == "input" else place.text


def _copy_of(file: FileRef, digest: str) -> FileRef:
    return FileRef("input", f"{FOLDER}/{digest}", file.name)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest()


def _keep(table: OrderedDict[Any, Any], key: Any, value: Any, size: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > size:
        table.popitem(last=False)
