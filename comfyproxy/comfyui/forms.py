"""Uploads as ``multipart/form-data`` (RFC 7578): one of our own, and what a mask's says it was drawn on."""

import json
import re
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import quote

from comfyproxy.comfyui.files import FileRef, file_in_object, file_in_text
from comfyproxy.comfyui.wire import read_object

UPLOAD_TARGET = b"/upload/image"

_PLAIN = re.compile(r"[A-Za-z0-9_. ()+-]+")
_BOUNDARY = re.compile(
    rb"(?i)multipart/form-data\s*;.*?boundary=(?:\"([^\"\r\n]{1,200})\"|([^\s;\"]{1,200}))"
)
_ORIGINAL = re.compile(rb"(?i)\r\nContent-Disposition:[^\r\n]*;[ \t]*name=\"?original_ref\"?[ \t]*(?:;|\r\n)")


class Form(NamedTuple):
    """The body of an upload and its ``Content-Type``."""

    body: bytes
    content_type: bytes


def upload_form(file: FileRef, data: bytes) -> Form:
    """The form that makes ComfyUI keep ``data`` as ``file``, over whatever is there (``image_upload``).

    Nobody can write a file that has the hash of itself in it, so that is the boundary.
    """
    boundary = blake2b(data, digest_size=16).hexdigest().encode()
    texts = {"overwrite": "true", "type": file.kind, "subfolder": file.subfolder}
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (boundary, key.encode(), value.encode("utf-8", "surrogatepass"))
        for key, value in texts.items()
    ]
    parts.append(
        b'--%b\r\nContent-Disposition: form-data; name="image"; %b\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" % (boundary, _filename(file.name).encode())
    )
    parts += [data, b"\r\n--%b--\r\n" % boundary]
    return Form(b"".join(parts), b"multipart/form-data; boundary=%b" % boundary)


def _filename(name: str) -> str:
    """The parameter that says ``name``; aiohttp, which ComfyUI reads forms with, knows both ways."""
    if _PLAIN.fullmatch(name):
        return f'filename="{name}"'
    return f"filename*=utf-8''{quote(name, safe='', errors='surrogatepass')}"


class Original(NamedTuple):
    """What the form of a mask was drawn on, and where in the body that stands."""

    file: FileRef
    start: int
    end: int

    def replaced(self, body: bytes, file: FileRef) -> bytes:
        """``body`` with ``file`` for it."""
        reference = {"filename": file.name, "subfolder": file.subfolder, "type": file.kind}
        return body[: self.start] + json.dumps(reference).encode() + body[self.end :]


def original_of(content_type: bytes, body: bytes) -> Original | None:
    """The ``original_ref`` of a mask (``upload_mask``); ``None`` if the form has none."""
    match = _BOUNDARY.match(content_type)
    if match is None:
        return None
    delimiter = b"\r\n--" + (match[1] or match[2])
    at = _ORIGINAL.search(body)
    start = -1 if at is None else body.find(b"\r\n\r\n", at.end() - 2)
    end = body.find(delimiter, start + 4)
    if start < 0 or end < 0:
        return None
    found = read_object(body[start + 4 : end])
    file = None if found is None else file_in_object(found)
    if file is None:
        return None
    annotated = file_in_text(file.name)
    if file.name.endswith("]"):
        file = FileRef(annotated.kind, file.subfolder, annotated.name)
    return Original(file, start + 4, end)
