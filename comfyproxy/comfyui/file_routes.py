"""What a pool that is one ComfyUI does with requests for files: to see them, to upload them, to list them.

Uploads go to the home of the users' files, which names them as one ComfyUI would. A mask is drawn on a
picture that is on one server, so it goes there: ComfyUI's ``upload_mask`` reads the picture from its own
disk, and answers 200 where there is none. Prompts find either (`comfyproxy.comfyui.replication`).
"""

import json
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest

from comfyproxy.comfyui.callers import Callers
from comfyproxy.comfyui.files import MADE, upload_told
from comfyproxy.comfyui.forms import Original, original_of
from comfyproxy.comfyui.home import Home
from comfyproxy.comfyui.ownership import GONE, Ownership, mark, newest, plain_target, unmark
from comfyproxy.comfyui.replication import Replication
from comfyproxy.comfyui.wire import MEBIBYTE, SUBMISSION, Route
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import (
    Decision,
    NeedBody,
    Operate,
    Pin,
    Refuse,
    Respond,
    Rewrite,
    Search,
)
from comfyproxy.core.http.http1 import RequestHead, ResponseHead

MAX_ANSWER = MEBIBYTE
"""Octets of an answer to an upload that is read."""

_SEARCH = Search()


class FileRoutes:
    """Routes requests about the files of ``pool``."""

    def __init__(
        self, pool: Pool, callers: Callers, home: Home, ownership: Ownership, replication: Replication
    ) -> None:
        self.home = home
        self._pool = pool
        self._callers = callers
        self._ownership = ownership
        self._replication = replication

    def route(
        self, route: Route, argument: str, head: RequestHead, body: bytes | None, now: float
    ) -> Decision | None:
        """What is done about ``head``, which asks for ``route``; ``None`` if it is not about a file."""
        match route:
            case Route.VIEW:
                return self._ownership.view(head, now)
            case Route.MODEL_VIEW:
                return _SEARCH
            case Route.UPLOAD:
                return self.home.upload()
            case Route.UPLOAD_MASK if body is None and head.body:
                return NeedBody(SUBMISSION.body_limit)
            case Route.UPLOAD_MASK:
                return Operate(self._mask(head, body or b"", now))
            case Route.FOLDER:
                return Operate(self._list(head.target, argument))
        return None

    def place(self, route: Route, head: RequestHead, body: bytes | None) -> Rewrite | None:
        """What is to change in ``head``, which goes to a server, and what is to be learnt of the answer."""
        match route:
            case Route.VIEW:
                target = plain_target(head.target)
                return None if target is head.target else Rewrite(target)
            case Route.UPLOAD:
                return Rewrite(watch=MAX_ANSWER)
            case Route.UPLOAD_MASK:
                return Rewrite(body=_plain_mask(head, body or b""), watch=MAX_ANSWER)
        return None

    def learn(self, answer: ResponseHead, body: bytes, backend: Backend, now: float) -> None:
        """``backend`` answered an upload."""
        file = upload_told(answer, body)
        if file is not None:
            self._ownership.note(file, backend, now)
            self._replication.uploaded(file, backend, "", now)

    def _mask(self, head: RequestHead, body: bytes, now: float) -> Operation:
        """Where the picture is that a mask was drawn on."""
        original = _original(head, body)
        if original is None:
            return self.home.upload()
        caller = yield from self._callers.identify(head)
        fingerprint, _ = unmark(original.file.subfolder)
        backend = self._replication.home_of(original.file, caller.fingerprint, now)
        if backend is None and fingerprint:
            return GONE
        if backend is None or (original.file.kind not in MADE and not backend.takes_pins):
            backend = yield from newest(original.file, self._asked())
        return self.home.upload() if backend is None else Pin(backend, strict=True)

    def _list(self, target: bytes, folder: str) -> Operation:
        """The names in a folder of all servers (``GET /internal/files/output``), each server's newest first.

        Nodes that offer them (``LoadImageOutput``) give one back as an input, so names of what prompts made
        have marks.
        """
        replies = yield tuple(Ask(backend, b"GET", target) for backend in self._asked())
        listed = [
            [_marked(name, folder, reply.backend, is_alone=len(self._pool) == 1) for name in names]
            for reply in replies
            if reply.status == 200 and (names := _names(reply.body)) is not None
        ]
        if listed:
            return Respond(200, json.dumps(_mixed(listed)).encode())
        for reply in replies:
            if reply.head is not None:
                return Respond(reply.status, reply.body, backend=reply.backend)
        return Refuse(502, "No server answered.")

    def _asked(self) -> list[Backend]:
        return [backend for backend in self._pool.backends if backend.takes_pins]


def _original(head: RequestHead, body: bytes) -> Original | None:
    return original_of(head.value(b"content-type") or b"", body)


def _plain_mask(head: RequestHead, body: bytes) -> bytes | None:
    """``body`` of a mask's upload as the server that has the picture knows it; ``None`` if it is that."""
    original = _original(head, body)
    if original is None:
        return None
    fingerprint, subfolder = unmark(original.file.subfolder)
    return original.replaced(body, original.file._replace(subfolder=subfolder)) if fingerprint else None


def _names(body: bytes) -> list[str] | None:
    try:
        names = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else None


def _marked(name: str, folder: str, backend: Backend, *, is_alone: bool) -> str:
    return name if is_alone or folder not in MADE else f"{mark('', backend)}/{name}"


def _mixed(lists: Sequence[Iterable[str]]) -> list[str]:
    """One of each list in turn, each name once."""
    return list(dict.fromkeys(name for name in chain(*zip_longest(*lists)) if name is not None))
