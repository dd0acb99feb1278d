"""The request as a backend gets it."""

from comfyproxy.core.chunked import CHUNKED
from comfyproxy.core.headers import Forwarder, with_fewer_forwards
from comfyproxy.core.http1 import RequestHead
from comfyproxy.core.routing import Router

UPGRADE_LINES = [b"Connection: Upgrade", b"Upgrade: websocket"]
"""The hop-by-hop lines of a WebSocket handshake, requests and answers alike (RFC 6455 section 4)."""

_NOTHING: frozenset[bytes] = frozenset()
_LENGTH = frozenset((b"content-length",))
_HANDSHAKE_OF_THIS_HOP = frozenset((b"sec-websocket-key", b"sec-websocket-extensions"))


def compose_request(
    head: RequestHead,
    *,
    target: bytes,
    host: bytes,
    forwarder: Forwarder,
    router: Router | None,
    body: bytes | None,
    handshake: list[bytes] | None = None,
) -> bytes:
    """The octets to send for ``head``: the head, and ``body`` if it is known whole.

    Where ``body`` is ``None`` the client's framing stands and its body follows as it comes. ``handshake`` are
    the lines that ask for a WebSocket; more than `UPGRADE_LINES` means that this hop has a handshake of its
    own, which replaces the client's key and extensions.
    """
    drop = router.drop if router is not None else _NOTHING
    if body is not None:
        drop = drop | _LENGTH
    if handshake is not None and len(handshake) > len(UPGRADE_LINES):
        drop = drop | _HANDSHAKE_OF_THIS_HOP
    lines = forwarder.lines(head, drop)
    if router is not None and b"cookie" in head.notable:
        lines = _with_cookies(lines, router)
    if b"max-forwards" in head.notable and head.method == b"OPTIONS":
        lines = with_fewer_forwards(lines)
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    elif head.body == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    if handshake is not None:
        lines.extend(handshake)
    elif b"trailers" in head.notable.get(b"te", b"").lower():
        lines += [b"Connection: TE", b"TE: trailers"]
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n%b" % (
        head.method,
        target,
        host,
        b"\r\n".join(lines),
        body or b"",
    )


def _with_cookies(lines: list[bytes], router: Router) -> list[bytes]:
    """``lines`` with what is the proxy's own taken out of each ``Cookie``."""
    kept = []
    for line in lines:
        if line[:7].lower() == b"cookie:":
            value = router.cookies(line[7:].strip(b" \t"))
            if not value:
                continue
            line = b"%b %b" % (line[:7], value)
        kept.append(line)
    return kept
