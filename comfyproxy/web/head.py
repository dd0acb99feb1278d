"""A twisted.web request as a raw head, so that one parser decides for both fronts what a request is.

twisted.web has read the head by then and keeps a part of it: names in canonical capitals, the repeats of a
field together where the first one stood, values without the blanks around them. That is written down as a
head again and goes through `parse_request_head` with all of its rules.
"""

from typing import Any

from comfyproxy.core.config import Limits
from comfyproxy.core.http.headers import HOP_BY_HOP
from comfyproxy.core.http.http1 import RequestHead, parse_request_head
from comfyproxy.errors import ProtocolError

_CONTINUE = [b"100-continue"]


def read_head(request: Any, limits: Limits, body: int | None = None) -> RequestHead:
    """The head of ``request``. Raises `ProtocolError` where it breaks HTTP or ``limits``.

    ``body`` is the length of a body that twisted.web has taken in, decoded, and asked the client for
    (``Expect``); the head then says that length. Without, the body is still to come and the client's framing
    stands.
    """
    http2 = request.clientproto not in (b"HTTP/1.1", b"HTTP/1.0")
    version = b"HTTP/1.1" if http2 else request.clientproto
    lines = [b"%b %b %b" % (request.method, request.uri, version)]
    framed = False
    for name, values in request.requestHeaders.getAllRawHeaders():
        if http2:
            values = _as_http1(name, values)
        if name == b"Content-Length" or (name == b"Transfer-Encoding" and _is_chunked(values, version)):
            framed = True
            if body is not None:
                continue
        elif name == b"Expect" and body is not None and [value.lower() for value in values] == _CONTINUE:
            continue
        lines += [b"%b: %b" % (name, value) for value in values]
    if body is not None and (body or framed):
        lines.append(b"Content-Length: %d" % body)
    return _parse(lines, limits)


def _as_http1(name: bytes, values: list[bytes]) -> list[bytes]:
    """What of a field of HTTP/2 goes into a head of HTTP/1.1 (RFC 9113 sections 8.2.2, 8.2.3 and 8.3.1)."""
    if name.lower() in HOP_BY_HOP:
        return []
    if name == b"Cookie":
        return [b"; ".join(values)]
    if name == b"Host":
        return list(dict.fromkeys(values))
    return values


def _is_chunked(values: list[bytes], version: bytes) -> bool:
    return version == b"HTTP/1.1" and len(values) == 1 and values[0].lower() == b"chunked"


def _parse(lines: list[bytes], limits: Limits) -> RequestHead:
    raw = b"\r\n".join(lines)
    if len(lines[0]) > limits.line:
        raise ProtocolError(414, "The request line is too long.")
    if len(raw) - len(lines[0]) > limits.head:
        raise ProtocolError(431, "The request's header fields are too large.")
    if len(lines) - 1 > limits.fields:
        raise ProtocolError(431, "The request has too many header fields.")
    if raw.count(b"\n") != len(lines) - 1:
        raise ProtocolError(400, "A header field has a line end in it.")
    return parse_request_head(raw + b"\r\n\r\n")
