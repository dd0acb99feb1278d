"""Where on ComfyUI's HTTP surface requests name their client and their prompts (``server.py`` of v0.33).

ComfyUI registers each route twice, as ``/queue`` and as ``/api/queue``, except those of ``/internal``. The
routes of jobs are declared with the ``/api``, so there is an ``/api/api/jobs`` and no ``/jobs``.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeGuard
from urllib.parse import parse_qsl, unquote_to_bytes

from comfyproxy.core.http.http1 import RequestHead

Document = dict[str, Any]
"""A JSON object."""

MAX_ID = 256
"""Characters. ComfyUI's own ids have 36 or 32, but it takes others from clients. Ids are remembered, and
nobody should be able to fill the memory with one, so what is longer is none."""

MAX_VALUES = 1_000_000
"""Values in a document, by its punctuation. Lists of nothing take thirty times their text's memory; a large
workflow has some ten thousand values, and pictures in it are single ones."""

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route whose requests have identities in their body.

    ``client_key`` and ``prompt_key`` are the members of the JSON object that hold a client's id, and a
    prompt's id or a list of them; empty for none. ``body_limit`` is in octets.
    """

    method: bytes
    path: bytes
    client_key: str = ""
    prompt_key: str = ""
    body_limit: int = MEBIBYTE
    has_api_form: bool = True


OTHER = Endpoint(b"", b"", body_limit=0)
"""Every route that has none there."""

SOCKET = Endpoint(b"GET", b"/ws", body_limit=0)
"""The WebSocket; its client is in the query, as ``clientId``."""

SUBMISSION = Endpoint(b"POST", b"/prompt", "client_id", "prompt_id", body_limit=100 * MEBIBYTE)
"""Puts a prompt in the queue. The limit is ComfyUI's own, unless it is started with ``--max-upload-size``."""

ENDPOINTS = (
    SOCKET,
    SUBMISSION,
    Endpoint(b"POST", b"/interrupt", prompt_key="prompt_id"),
    Endpoint(b"POST", b"/queue", prompt_key="delete"),
    Endpoint(b"POST", b"/history", prompt_key="delete"),
    Endpoint(b"POST", b"/api/jobs/cancel", prompt_key="job_ids"),
    Endpoint(b"PATCH", b"/internal/logs/subscribe", client_key="clientId", has_api_form=False),
)

_BY_REQUEST = {
    (endpoint.method, prefix + endpoint.path): endpoint
    for endpoint in ENDPOINTS
    for prefix in ((b"", b"/api") if endpoint.has_api_form else (b"",))
}
_PROMPT_PATH = re.compile(rb"(?:/api)?/history/([^/]+)|(?:/api){1,2}/jobs/([^/]+)(?:/cancel)?")
# aiohttp matches routes against the path decoded so far that no segment can change by it.
_ENCODED = re.compile(rb"%(?!2[Ff]|25)([0-9A-Fa-f]{2})")
_NAMING_TARGET = re.compile(rb"(?:/api){0,2}/(?:ws|history/|jobs/|view)|[^?]*%")
_TARGET_OF_ITS_OWN = re.compile(
    rb"(?:/api){0,2}/(?:ws|prompt|queue|history|interrupt|free|jobs|object_info|system_stats|features|view"
    rb"|upload/|experiment/|internal/|settings|user|v2/)|[^?]*%"
)
"""How the targets of all routes begin but `Route.OTHER`."""


class Route(Enum):
    """What a request is about, as far as a pool that is to be one ComfyUI must know."""

    OTHER = "anything else, routes of node packs too"
    SOCKET = "GET /ws"
    SUBMIT = "POST /prompt"
    QUEUE_LENGTH = "GET /prompt"
    QUEUE = "GET /queue"
    EDIT_QUEUE = "POST /queue"
    HISTORY = "GET /history"
    HISTORY_ENTRY = "GET /history/{prompt_id}"
    EDIT_HISTORY = "POST /history"
    INTERRUPT = "POST /interrupt"
    FREE = "POST /free"
    JOBS = "GET /api/jobs"
    JOB = "GET /api/jobs/{prompt_id}"
    CANCEL_JOB = "POST /api/jobs/{prompt_id}/cancel"
    CANCEL_JOBS = "POST /api/jobs/cancel"
    OBJECT_INFO = "GET /object_info"
    OBJECT_INFO_CLASS = "GET /object_info/{node_class}"
    SYSTEM_STATS = "GET /system_stats"
    FEATURES = "GET /features"
    VIEW = "GET /view"
    MODEL_VIEW = "what is shown of a model, which some servers may lack"
    FOLDER = "GET /internal/files/{directory_type}"
    UPLOAD = "POST /upload/image"
    UPLOAD_MASK = "POST /upload/mask"
    USER_STATE = "settings, users and their files"
    SUBSCRIBE_LOGS = "PATCH /internal/logs/subscribe"


_PLAIN_ROUTES = {
    (method, prefix + path): route
    for route, method, path in (
        (Route.SOCKET, b"GET", b"/ws"),
        (Route.SUBMIT, b"POST", b"/prompt"),
        (Route.QUEUE_LENGTH, b"GET", b"/prompt"),
        (Route.QUEUE, b"GET", b"/queue"),
        (Route.EDIT_QUEUE, b"POST", b"/queue"),
        (Route.HISTORY, b"GET", b"/history"),
        (Route.EDIT_HISTORY, b"POST", b"/history"),
        (Route.INTERRUPT, b"POST", b"/interrupt"),
        (Route.FREE, b"POST", b"/free"),
        (Route.JOBS, b"GET", b"/api/jobs"),
        (Route.CANCEL_JOBS, b"POST", b"/api/jobs/cancel"),
        (Route.OBJECT_INFO, b"GET", b"/object_info"),
        (Route.SYSTEM_STATS, b"GET", b"/system_stats"),
        (Route.FEATURES, b"GET", b"/features"),
        (Route.VIEW, b"GET", b"/view"),
        (Route.VIEW, b"GET", b"/viewvideo"),
        (Route.UPLOAD, b"POST", b"/upload/image"),
        (Route.UPLOAD_MASK, b"POST", b"/upload/mask"),
    )
    for prefix in (b"", b"/api")
} | {(b"PATCH", b"/internal/logs/subscribe"): Route.SUBSCRIBE_LOGS}

_ROUTES_WITH_ARGUMENT = {
    (Route.HISTORY_ENTRY, b"GET"): rb"(?:/api)?/history/([^/]+)",
    (Route.JOB, b"GET"): rb"(?:/api){1,2}/jobs/([^/]+)",
    (Route.CANCEL_JOB, b"POST"): rb"(?:/api){1,2}/jobs/([^/]+)/cancel",
    (Route.OBJECT_INFO_CLASS, b"GET"): rb"(?:/api)?/object_info/([^/]+)",
    (Route.MODEL_VIEW, b"GET"): rb"(?s:(?:/api)?/(?:view_metadata|experiment/models/preview)/(.+))",
    (Route.FOLDER, b"GET"): rb"/internal/files/([^/]+)",
}
_WITH_ARGUMENT = [
    (route, method, re.compile(path)) for (route, method), path in _ROUTES_WITH_ARGUMENT.items()
]
_LONGER_ROUTE = re.compile(
    rb"(?:/api){0,2}/(?:history/|jobs/|object_info/|view_metadata/|experiment/|internal/|settings|user|v2/)"
)
"""How the paths of all routes begin that are not known by the whole path; what a page loads does not."""

_USER_STATE = re.compile(rb"(?s:(?:/api)?/(?:settings|users|userdata|v2/userdata)(?:/.*)?)")
_EMPTY_OBJECT = re.compile(rb"\{[ \t\r\n]*\}")


def names_nothing(head: RequestHead) -> bool:
    """Whether it is plain at once that ``head`` is a GET which names no client, prompt or file.

    ``False`` says nothing. What a page asks for is mostly of this kind, each under a name of its own.
    """
    return (
        head.method == b"GET"
        and not head.body
        and not head.upgrade
        and _NAMING_TARGET.match(head.target) is None
    )


def is_of_a_page(head: RequestHead) -> bool:
    """Whether it is plain at once that ``head`` is a GET of `Route.OTHER`; ``False`` says nothing."""
    return (
        head.method == b"GET"
        and not head.body
        and not head.upgrade
        and _TARGET_OF_ITS_OWN.match(head.target) is None
    )


def find_endpoint(head: RequestHead) -> Endpoint:
    """The endpoint that ``head`` asks for; `OTHER` if it is none of these."""
    return _BY_REQUEST.get((head.method, _plain_path(head)), OTHER)


def find_route(head: RequestHead) -> tuple[Route, str]:
    """What ``head`` asks for, and what the path names there, decoded: an id, a node class or nothing.

    A HEAD is taken for the GET that it stands for.
    """
    path = _plain_path(head)
    method = b"GET" if head.method == b"HEAD" else head.method
    route = _PLAIN_ROUTES.get((method, path))
    if route is not None:
        return route, ""
    if _LONGER_ROUTE.match(path) is None:
        return Route.OTHER, ""
    if _USER_STATE.fullmatch(path):
        return Route.USER_STATE, ""
    for route, asked, pattern in _WITH_ARGUMENT:
        match = pattern.fullmatch(path) if asked == method else None
        if match is not None:
            return route, unquote_to_bytes(match[1]).decode(errors="replace")
    return Route.OTHER, ""


def client_named(endpoint: Endpoint, head: RequestHead, document: Document | None) -> str | None:
    """The id of the client that the request says it comes from."""
    if endpoint is SOCKET:
        return _client_in_query(head.target)
    if document is None or not endpoint.client_key:
        return None
    client = document.get(endpoint.client_key)
    return client if is_id(client) else None


def prompts_named(endpoint: Endpoint, head: RequestHead, document: Document | None) -> Sequence[str]:
    """The ids of the prompts that the request is about, from its path or its body."""
    if endpoint is OTHER:
        match = _PROMPT_PATH.fullmatch(_plain_path(head))
        return (
            () if match is None else ids_in(unquote_to_bytes(match[1] or match[2]).decode(errors="replace"))
        )
    if document is None or not endpoint.prompt_key:
        return ()
    return ids_in(document.get(endpoint.prompt_key))


def with_client(target: bytes, client: str) -> bytes:
    """``target`` of the WebSocket, its query saying who the client is.

    It goes before what is there: of several ``clientId`` ComfyUI takes the first, even an empty one.
    """
    path, _, query = target.partition(b"?")
    return b"%b?clientId=%b%b" % (path, client.encode(), b"&" + query if query else b"")


def read_object(body: bytes) -> Document | None:
    """The JSON object in ``body``; ``None`` for anything else, however ill-formed, deep or large."""
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        return None
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def with_prompt_id(body: bytes, document: Document, prompt_id: str) -> bytes | None:
    """``body`` of a submission with ``prompt_id`` in it; ``None`` if that cannot be.

    ``document`` is what `read_object` made of ``body``. Nothing else in the text is touched, unless a
    ``"prompt_id": null`` has to give way.
    """
    if "prompt_id" in document:
        try:
            return json.dumps(document | {"prompt_id": prompt_id}).encode()
        except RecursionError:
            return None
    brace = body.index(b"{")
    comma = b"" if _EMPTY_OBJECT.match(body, brace) else b", "
    return b'%b"prompt_id": "%b"%b%b' % (body[: brace + 1], prompt_id.encode(), comma, body[brace + 1 :])


def _plain_path(head: RequestHead) -> bytes:
    path = head.path
    if b"%" in path:
        return _ENCODED.sub(lambda encoded: bytes.fromhex(encoded[1].decode()), path)
    return path


def _client_in_query(target: bytes) -> str | None:
    query = target.partition(b"?")[2].decode("latin-1")
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "clientId":
            return value if is_id(value) else None
    return None


def is_id(value: object) -> TypeGuard[str]:
    """Whether ``value`` can be the id of a client or a prompt."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def ids_in(value: object) -> list[str]:
    """The ids in ``value``, which may be one, a list of them, or anything that a client may have sent."""
    return [one for one in (value if isinstance(value, list) else [value]) if is_id(one)]
