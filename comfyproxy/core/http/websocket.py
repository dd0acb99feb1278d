"""The WebSocket opening handshake (RFC 6455 section 4), as far as a proxy that passes it on must know it."""

import re
from base64 import b64encode
from hashlib import sha1

from comfyproxy.core.http.http1 import RequestHead, ResponseHead

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def is_websocket_request(head: RequestHead) -> bool:
    """Whether ``head`` asks for a WebSocket in the one form that section 4.1 allows."""
    return (
        head.upgrade
        and head.method == b"GET"
        and head.body == 0
        and head.notable.get(b"upgrade", b"").lower() == b"websocket"
        and _KEY.fullmatch(head.value(b"sec-websocket-key") or b"") is not None
        and head.value(b"sec-websocket-version") == b"13"
    )


def accepts(request: RequestHead, response: ResponseHead) -> bool:
    """Whether ``response`` is the 101 that answers ``request`` (section 4.2.2, item 5)."""
    return accepts_key(request.value(b"sec-websocket-key") or b"", response)


def accepts_key(key: bytes, response: ResponseHead) -> bool:
    """Whether ``response`` is the 101 that answers a request with ``key``."""
    return (
        response.upgrade
        and response.notable.get(b"upgrade", b"").lower() == b"websocket"
        and response.values(b"sec-websocket-accept") == [accept_value(key)]
    )


def accept_value(key: bytes) -> bytes:
    """The ``Sec-WebSocket-Accept`` that goes with a ``Sec-WebSocket-Key``."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
