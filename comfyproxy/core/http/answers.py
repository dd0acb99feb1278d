"""The answers that the proxy makes itself: short, in the form the client takes, saying what happened and
what to do.

On ComfyUI's own API paths the JSON has ComfyUI's error shape (``server.py``, ``POST /prompt``), so that its
page shows the sentence.
"""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from uuid import uuid4

from comfyproxy.core.http.http1 import RequestHead

REASONS = {
    100: "Continue", 101: "Switching Protocols", 103: "Early Hints", 200: "OK", 204: "No Content",
    400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    413: "Content Too Large", 414: "URI Too Long", 417: "Expectation Failed", 426: "Upgrade Required",
    429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
    505: "HTTP Version Not Supported", 508: "Loop Detected",
}  # fmt: skip

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    status: reason.encode() for status, reason in REASONS.items()
}

ADVICE = {
    408: "Send the whole request sooner.",
    413: "Send less, or have the limit raised.",
    414: "Send a shorter URL.",
    429: "Wait before you try again; Retry-After says how long.",
    431: "Send fewer or smaller header fields; clearing this site's cookies often helps.",
    502: "Try again; if it stays, the server's own log says more.",
    503: "Try again in a moment.",
    504: "Try again later, or have the timeout raised.",
}

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_API_PATH = re.compile(
    rb"/(?:api|internal|prompt|queue|history|interrupt|free|upload|object_info|system_stats|view_metadata|embeddings"
    rb"|models|extensions|features|settings|users|userdata|v2|i18n|workflow_templates|global_subgraphs)(?:/|\Z)"
)
"""What ComfyUI's page and API clients read as JSON (``server.py``, ``app/*.py``); pictures are left out."""

_QUALITY = re.compile(rb";[ \t]*q=([01](?:\.[0-9]*)?)[ \t]*(?:;|\Z)")


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of the proxy's own."""

    status: int
    fields: bytes
    body: bytes

    @property
    def reason(self) -> bytes:
        """The reason phrase that goes with `status`."""
        return reason_of(self.status)


def reason_of(status: int) -> bytes:
    """The reason phrase of ``status`` (RFC 9110 section 15); empty if it has none."""
    return _REASONS.get(status, b"")


def make_answer(
    status: int,
    message: str,
    *,
    head: RequestHead | None,
    request_id: str,
    comfyui: bool = False,
    extra: bytes = b"",
) -> Answer:
    """An answer of ``status`` whose body says ``message``, to the request of ``head`` if one was understood.

    The body is JSON where ``Accept`` prefers it or, with ``comfyui``, on ComfyUI's API paths; else plain
    text.
    """
    advice = ADVICE.get(status, "")
    if head is not None and (
        wants_json(b",".join(head.values(b"accept"))) or (comfyui and _API_PATH.match(head.path))
    ):
        kind, text = "application/json", _as_json(status, message, advice, request_id, comfyui)
    else:
        kind, text = "text/plain; charset=utf-8", " ".join(part for part in (message, advice) if part) + "\n"
    body = text.encode(errors="replace")
    fields = (
        b"Server: comfyproxy",
        b"Content-Type: " + kind.encode(),
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"X-Request-ID: " + request_id.encode(),
    )
    return Answer(status, b"".join(field + b"\r\n" for field in fields) + extra, body)


def wants_json(accept: bytes) -> bool:
    """Whether an ``Accept`` value asks for JSON before anything else (RFC 9110 section 12.5.1)."""
    best, is_json = 0.0, False
    for item in accept.lower().split(b","):
        match = _QUALITY.search(item)
        quality = float(match.group(1)) if match else 1.0
        if quality > best:
            kind = item.partition(b";")[0].strip()
            best, is_json = (
                quality,
                kind in (b"application/json", b"application/*") or kind.endswith(b"+json"),
            )
    return is_json


def _as_json(status: int, message: str, advice: str, request_id: str, comfyui: bool) -> str:
    if comfyui:
        error = {
            "type": "comfyproxy_" + REASONS.get(status, "error").lower().replace(" ", "_"),
            "message": message,
            "details": advice,
            "extra_info": {"request_id": request_id},
        }
        return json.dumps({"error": error, "node_errors": {}})
    return json.dumps({"error": message, "advice": advice, "status": status, "request_id": request_id})


def choose_request_id(head: RequestHead, believed: bool = True) -> str:
    """The ``X-Request-ID`` of the request if it is a plain one, and ``believed``; else a new one."""
    given = head.value(b"x-request-id") if believed else None
    return given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else uuid4().hex
