"""Which backend a file is on: pictures that were made or uploaded, and are named without saying by whom.

A script reads the names in ``GET /history/{id}``, then asks for ``GET /view?filename=...`` without saying
who it is (ComfyUI's own ``script_examples/websockets_api_example.py`` does). Or it uploads a picture,
which says nothing either, and submits a prompt that loads it. ComfyUI counts files for each server, so
the same name may be on several. What a backend has just told of is therefore remembered; the latest word
counts.
"""

import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from comfyproxy.core.http.http1 import RequestHead, ResponseHead

MAX_NAME = 512
"""Characters of a text that may be a file's name; prompts have longer ones that are not."""

MAX_ANSWER = 4 * 1024 * 1024
"""Octets of an answer that is looked at for names; one entry of the history repeats its whole workflow."""

MADE = ("output", "temp")
"""Folders of what prompts made; each server counts its own, so names there mean different files."""

_UPLOADS = frozenset((b"/upload/image", b"/upload/mask", b"/api/upload/image", b"/api/upload/mask"))
_ANNOTATED = re.compile(r"(.*?)(?: \[(input|output|temp)\])?", re.DOTALL)
_VIEWS = frozenset((b"/view", b"/api/view", b"/viewvideo", b"/api/viewvideo"))


class FileRef(NamedTuple):
    """A file as requests name it: a folder (``input``, ``output`` or ``temp``), where in it, and its name."""

    kind: str
    subfolder: str
    name: str

    @property
    def key(self) -> str:
        """What stands for it in tables."""
        return _key(*self)

    @property
    def path(self) -> str:
        """Where in its folder it is."""
        return f"{self.subfolder}/{self.name}" if self.subfolder else self.name

    @property
    def text(self) -> str:
        """How an input of a node names it."""
        return f"{self.path} [{self.kind}]"


def file_named(head: RequestHead) -> str | None:
    """The file that ``head`` asks for, as a key; ``None`` if it asks for none by name."""
    if head.path not in _VIEWS or head.method not in (b"GET", b"HEAD"):
        return None
    file = file_in_query(head.target)
    return None if file is None else file.key


def file_in_query(target: bytes) -> FileRef | None:
    """The file that a view of ``target`` shows; ``None`` if there is no ``filename``."""
    query = parse_qs(target.partition(b"?")[2].decode("latin-1"), encoding="utf-8", errors="replace")
    filename = query.get("filename", [""])[0]
    if not filename:
        return None
    return FileRef(query.get("type", ["output"])[0], query.get("subfolder", [""])[0], filename)


def file_in_text(value: str) -> FileRef:
    """The file that ``value`` names where it is an input of a node: ``name``, ``subfolder/name`` or
    ``name [output]`` (``folder_paths.py``, ``annotated_filepath``)."""
    match = _ANNOTATED.fullmatch(value)
    path, kind = match.groups() if match else (value, None)
    subfolder, _, name = path.rpartition("/")
    return FileRef(kind or "input", subfolder, name)


def file_in_object(found: dict[str, Any]) -> FileRef | None:
    """The file that an output of a node names; ``None`` if it names none."""
    kind, subfolder, name = found.get("type", "output"), found.get("subfolder", ""), found.get("filename")
    if isinstance(name, str) and name and isinstance(kind, str) and isinstance(subfolder, str):
        return FileRef(kind, subfolder, name)
    return None


def is_upload(head: RequestHead) -> bool:
    """Whether ``head`` brings a file, whose name the answer will tell."""
    return head.method == b"POST" and head.path in _UPLOADS


def files_wanted(document: dict[str, Any]) -> Iterator[str]:
    """The files that the prompt of a submission may load, as keys: every text that is an input of a node."""
    nodes = document.get("prompt")
    for node in nodes.values() if isinstance(nodes, dict) else ():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for value in inputs.values() if isinstance(inputs, dict) else ():
            if isinstance(value, str) and 0 < len(value) <= MAX_NAME:
                yield file_in_text(value).key


def files_told(head: ResponseHead, body: bytes) -> Iterator[str]:
    """The files that an answer about a prompt or an upload names, as keys.

    They are objects with a ``filename``, somewhere below the ``outputs`` of each prompt; an upload is told
    of by one object with a ``name``.
    """
    document = _read(head, body) if head.status == 200 else None
    if isinstance(document, dict) and isinstance(name := document.get("name"), str):
        yield _key(document.get("type", "input"), document.get("subfolder", ""), name)
    for found in _objects(document):
        filename = found.get("filename")
        if isinstance(filename, str) and filename:
            yield _key(found.get("type", "output"), found.get("subfolder", ""), filename)


def upload_told(head: ResponseHead, body: bytes) -> FileRef | None:
    """The file that the answer to an upload says was kept; ``None`` if it says of none."""
    document = _read(head, body) if head.status == 200 else None
    if not isinstance(document, dict):
        return None
    return file_in_object({"type": "input"} | document | {"filename": document.get("name")})


def _read(head: ResponseHead, body: bytes) -> Any:
    """The JSON in ``body``, or ``None``."""
    coding = head.value(b"content-encoding")
    try:
        if coding in (b"gzip", b"deflate"):
            body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, MAX_ANSWER)
        elif coding is not None:
            return None
        return json.loads(body)
    except (ValueError, RecursionError, zlib.error):
        return None


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    """Every object below an ``outputs``."""
    waiting = [(document, False)]
    while waiting:
        value, below = waiting.pop()
        if isinstance(value, dict):
            if below:
                yield value
            waiting.extend((member, below or key == "outputs") for key, member in value.items())
        elif isinstance(value, list):
            waiting.extend((member, below) for member in value)


def _key(kind: object, subfolder: object, filename: str) -> str:
    return f"{kind}\n{subfolder}\n{filename}"
