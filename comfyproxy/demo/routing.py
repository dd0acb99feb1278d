"""Requests and answers as values, and the table that brings them together.

Paths are matched as they were sent, segment by segment, and decoded only then: `{file}` in /userdata/{file}
is one segment, so `workflows%2Fa.json` is one file name. As in ComfyUI, every route is there twice, bare and
under /api; GET routes answer HEAD; a known path with another method is 405, and so is any other method than
GET on an unknown path, because ComfyUI's static files stand behind everything.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate, parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from comfyproxy.demo.files import StoredFile

_PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a status, header fields, and a body.

    ``chunked`` answers say no length, as aiohttp's static files do when they have nothing to give.
    """

    status: int = 200
    body: bytes = b""
    fields: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False


NOT_FOUND = Answer(404, fields={"Content-Type": "application/octet-stream"}, chunked=True)


class Malformed(Exception):
    """A request that ComfyUI does not expect and stumbles over: its server answers 500."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: ``path`` as sent, ``fields`` by lower-case name, ``found`` the path's own parameters."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    found: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body as JSON.

        Raises Malformed when it is none.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Malformed(f"the body is not JSON: {error}") from None

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises Malformed when it is anything else.
        """
        value = self.json()
        if not isinstance(value, dict):
            raise Malformed("the body is not a JSON object")
        return value


View = Callable[[Asked], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table; ``prefixed`` routes are there under /api too."""

    method: str
    pattern: str
    view: View
    prefixed: bool = True


class Routes:
    """The table of one server."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._table: list[tuple[re.Pattern[str], str, View]] = []
        for route in routes:
            patterns = [route.pattern, "/api" + route.pattern] if route.prefixed else [route.pattern]
            self._table += [(_compiled(pattern), route.method, route.view) for pattern in patterns]

    def answer(self, asked: Asked) -> Answer:
        """What ComfyUI would answer, mistakes of the client included."""
        return cached(asked.path, self._answer(asked))

    def _answer(self, asked: Asked) -> Answer:
        allowed = set()
        for pattern, method, view in self._table:
            if found := pattern.fullmatch(asked.path):
                if asked.method in _methods(method):
                    return _view(view, asked, found)
                allowed |= _methods(method)
        if asked.method == "OPTIONS":
            return Answer()
        if allowed or asked.method not in ("GET", "HEAD"):
            return text_answer(
                "405: Method Not Allowed", 405, Allow=",".join(sorted(allowed or {"GET", "HEAD"}))
            )
        return NOT_FOUND


def parse_query(raw: str) -> dict[str, str]:
    """A query string as a mapping; of a repeated name the first value counts."""
    return dict(reversed(parse_qsl(raw, keep_blank_values=True)))


def json_answer(value: Any, status: int = 200) -> Answer:
    """``value`` as JSON, in aiohttp's type and spacing."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})


def text_answer(text: str, status: int = 200, **fields: str) -> Answer:
    """``text`` for a person, with more header fields if need be."""
    return Answer(status, text.encode(), {"Content-Type": "text/plain; charset=utf-8", **fields})


def cached(path: str, answer: Answer) -> Answer:
    """``answer`` with what ComfyUI lets caches do with files of that kind (middleware/cache_middleware.py).

    It goes by the path alone: /view has none of it.
    """
    lifetime = ""
    if path.endswith((".js", ".css", "index.json")):
        lifetime = "no-store"
    elif path.lower().endswith(_PICTURES):
        lifetime = f"public, max-age={3600 if answer.status == 404 else 86_400}"
    return replace(answer, fields={"Cache-Control": lifetime, **answer.fields}) if lifetime else answer


def file_answer(asked: Asked, stored: StoredFile, fields: Mapping[str, str]) -> Answer:
    """One file as aiohttp gives it: with validators, conditional (304), in part (206, 416).

    RFC 9110, sections 13 and 14; several ranges at once are refused, as aiohttp does.
    """
    modified = formatdate(stored.modified, usegmt=True)
    validators = {"ETag": stored.etag, "Last-Modified": modified}
    if _not_modified(asked, stored):
        return Answer(304, fields={**fields, **validators})
    whole = {**fields, **validators, "Accept-Ranges": "bytes"}
    wanted = asked.fields.get("range")
    if wanted is None or asked.fields.get("if-range", stored.etag) not in (stored.etag, modified):
        return Answer(200, stored.data, whole)
    size = len(stored.data)
    span = _span(wanted, size)
    if span is None:
        return Answer(416, fields={**fields, "Content-Range": f"bytes */{size}"}, chunked=True)
    start, stop = span
    return Answer(
        206, stored.data[start:stop], {**whole, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    )


def _view(view: View, asked: Asked, found: re.Match[str]) -> Answer:
    parameters = {name: unquote(value) for name, value in found.groupdict().items()}
    try:
        return view(Asked(asked.method, asked.path, asked.query, asked.fields, asked.body, parameters))
    except Malformed:
        return text_answer("500 Internal Server Error\n\nServer got itself in trouble", 500)


def _methods(method: str) -> set[str]:
    return {"GET", "HEAD"} if method == "GET" else {method}


def _compiled(pattern: str) -> re.Pattern[str]:
    """`{name}` is one segment, `{name*}` is all the rest."""
    return re.compile("".join(_expressions(pattern)))


def _expressions(pattern: str) -> Iterator[str]:
    for part in re.split(r"(\{\w+\*?\})", pattern):
        if part.startswith("{"):
            name = part.strip("{}*")
            yield f"(?P<{name}>.+)" if part.endswith("*}") else f"(?P<{name}>[^/]+)"
        else:
            yield re.escape(part)


def _not_modified(asked: Asked, stored: StoredFile) -> bool:
    if tags := asked.fields.get("if-none-match"):
        return tags.strip() == "*" or stored.etag in [
            tag.strip().removeprefix("W/") for tag in tags.split(",")
        ]
    try:
        since = parsedate_to_datetime(asked.fields.get("if-modified-since", ""))
    except ValueError:
        return False
    return int(stored.modified) <= since.timestamp()


def _span(wanted: str, size: int) -> tuple[int, int] | None:
    """The bytes of a Range field as (start, stop); None when it cannot be satisfied."""
    found = _RANGE.fullmatch(wanted.strip())
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        suffix = int(found[2])
        return (max(0, size - suffix), size) if suffix and size else None
    start = int(found[1])
    stop = min(size, int(found[2]) + 1) if found[2] else size
    return (start, stop) if start < stop else None
