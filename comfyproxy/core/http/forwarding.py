"""The request as a backend gets it, and the fields of its answer as a client does."""

import re
from collections.abc import Callable

from comfyproxy.core.balancing.routing import Router
from comfyproxy.core.http.chunked import CHUNKED
from comfyproxy.core.http.headers import HOP_BY_HOP, Forwarder, with_fewer_forwards
from comfyproxy.core.http.http1 import RequestHead, ResponseHead

UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
"""The hop-by-hop lines of a WebSocket handshake, requests and answers alike (RFC 6455 section 4)."""

_TRAILER = re.compile(rb"(?im)^trailer:.*\n")
_TRAILERS = re.compile(rb"(?i)(?:^|,)[ \t]*trailers[ \t]*(?:,|;|$)")
_NOTHING: frozenset[bytes] = frozenset()
_NOT_WITHOUT_BODY = HOP_BY_HOP | {b"content-length"}
"""What does not pass in a 1xx or 204 (RFC 9110 section 8.6)."""

_OF_ANOTHER_BODY = frozenset((b"content-length", b"expect"))
_HANDSHAKE = frozenset((b"sec-websocket-key", b"sec-websocket-extensions"))
_REQUEST_ID = frozenset((b"x-request-id",))
_REQUEST_ID_LINE = re.compile(rb"(?im)^x-request-id:.*\n")


def compose_request(
    head: RequestHead,
    *,
    target: bytes,
    host: bytes,
    forwarder: Forwarder,
    router: Router | None,
    body: bytes | None,
    handshake: bytes = b"",
    request_id: str = "",
    edit: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """The octets to send for ``head``: the head, and ``body`` if it is known whole.

    Where ``body`` is ``None`` the client's framing stands and its body follows as it comes. ``handshake`` are
    the lines that ask for a WebSocket; more than `UPGRADE` means that this hop has a handshake of its own,
    which replaces the client's key and extensions. With a ``request_id`` the backend gets that for an
    ``X-Request-ID``, else what the client sent. ``edit`` has the last word on the fields, but for ``Host``
    and framing.
    """
    drop = router.drop if router is not None else _NOTHING
    if body is not None:
        drop = drop | _OF_ANOTHER_BODY
    if handshake and handshake != UPGRADE:
        drop = drop | _HANDSHAKE
    if request_id:
        drop = drop | _REQUEST_ID
    cookies = router.cookies if router is not None and b"cookie" in head.notable else None
    fields = forwarder.fields(head, drop, cookies)
    if handshake or not head.block.is_ordinary:
        fields = _with_care(head, fields, handshake)
    if request_id:
        fields += b"X-Request-ID: %b\r\n" % request_id.encode()
    if edit is not None:
        fields = edit(fields)
    if body is not None:
        fields += b"Content-Length: %d\r\n" % len(body)
    elif head.body == CHUNKED:
        fields += b"Transfer-Encoding: chunked\r\n"
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n%b" % (head.method, target, host, fields, body or b"")


def _with_care(head: RequestHead, fields: bytes, handshake: bytes) -> bytes:
    """``fields`` of a request that has more than the ordinary ones."""
    notable = head.notable
    if b"max-forwards" in notable and head.method == b"OPTIONS":
        fields = with_fewer_forwards(fields)
    if handshake:
        return fields + handshake
    if _TRAILERS.search(notable.get(b"te", b"")):
        return fields + b"Connection: TE\r\nTE: trailers\r\n"
    return fields


def with_request_id(fields: bytes, request_id: str) -> bytes:
    """The field lines of an answer with this ``X-Request-ID``, whatever the backend had for one."""
    return b"%bX-Request-ID: %b\r\n" % (_REQUEST_ID_LINE.sub(b"", fields), request_id.encode())


def informational_fields(head: ResponseHead) -> bytes:
    """The field lines of a 1xx that pass."""
    return head.block.passing(_NOT_WITHOUT_BODY)


def answer_fields(head: ResponseHead, takes_chunks: bool) -> bytes:
    """The field lines of a final answer for a client that ``takes_chunks`` or does not, framing included."""
    fields = head.block.passing(_NOT_WITHOUT_BODY if head.status == 204 else HOP_BY_HOP)
    if head.body < 0 and takes_chunks:
        return fields + b"Transfer-Encoding: chunked\r\n"
    if head.body == CHUNKED:
        # Without its chunks a body has no place for the trailers that the field announces.
        return _TRAILER.sub(b"", fields)
    if head.status == 205 and b"content-length" not in head.notable:
        return fields + b"Content-Length: 0\r\n"
    return fields
