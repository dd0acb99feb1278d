"""What of a head passes to the other side (RFC 9110 section 7.6, RFC 9112 section 9.6).

Lines pass as they came. Hop-by-hop fields and those that ``Connection`` names are left out; the fields by
which a backend learns who asked are ours to write, so whatever an untrusted client put there is left out too,
in every spelling that a CGI-style backend could take for them.
"""

import re
from collections.abc import Callable

from comfyproxy.core.fields import Fields
from comfyproxy.core.http1 import RequestHead

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te transfer-encoding "
    b"upgrade http2-settings".split()
)
FORWARDING = frozenset(
    b"x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-scheme x-forwarded-port "
    b"x-forwarded-server x-forwarded-ssl x-forwarded-prefix x-real-ip forwarded".split()
)
REQUEST_DROPS = HOP_BY_HOP | FORWARDING | {b"host"}
"""Fields of a request that never pass as they are: dropped, or written anew by `Forwarder`."""

TRUSTED_REQUEST_DROPS = HOP_BY_HOP | {b"host", b"x-forwarded-for", b"x-real-ip"}
"""The same for a request from a trusted proxy, whose word on host and scheme stands."""

_MAX_FORWARDS = re.compile(rb"(?im)^max-forwards:[ \t]*0*([1-9][0-9]{0,8})[ \t]*\r\n")
_ODD_MARKS = re.compile(rb"[^0-9a-z]")
_DISGUISABLE = REQUEST_DROPS | {b"content-length", b"content-type", b"via", b"cookie", b"authorization"}


def disguises(fields: Fields) -> frozenset[bytes]:
    """The names in ``fields`` that a CGI-style backend takes for others which we write or look at.

    CGI puts ``X_Forwarded_For`` and ``X-Forwarded-For`` into the same variable (RFC 3875 section 4.1.18), and
    some servers do so with every mark that is no letter or digit.
    """
    return frozenset(
        name for name, _ in fields if name not in _DISGUISABLE and _ODD_MARKS.sub(b"-", name) in _DISGUISABLE
    )


class Forwarder:
    """Writes the fields that tell a backend who asked and through whom; one for each client connection.

    ``peer`` is the client's address, ``scheme`` ``http`` or ``https``, ``name`` the pseudonym that this proxy
    adds to ``Via`` (RFC 9110 section 7.6.3), ``trusted`` whether the peer is a proxy whose own
    ``X-Forwarded-*`` fields are believed and extended.
    """

    __slots__ = ("_drops", "_ours", "_peer", "_scheme", "_trusted")

    def __init__(self, peer: bytes, scheme: bytes, name: bytes, trusted: bool = False) -> None:
        self._peer = peer
        self._scheme = scheme
        self._trusted = trusted
        drops = TRUSTED_REQUEST_DROPS if trusted else REQUEST_DROPS
        self._drops = {frozenset[bytes](): drops}
        who = b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\nX-Forwarded-Proto: %b\r\n" % (peer, peer, scheme)
        self._ours = [b"%bVia: 1.%d %b\r\n" % (b"" if trusted else who, minor, name) for minor in (0, 1)]

    def fields(
        self, head: RequestHead, drop: frozenset[bytes], cookies: Callable[[bytes], bytes] | None = None
    ) -> bytes:
        """The field lines to send upstream, ``Host`` and framing excepted, each with its CRLF.

        ``drop`` names further fields to cut.
        """
        drops = self._drops.get(drop)
        if drops is None:
            drops = self._drops[drop] = self._drops[frozenset()] | drop
        block = head.block
        if block.has_odd_names:
            drops = drops | disguises(block.fields)
        passing = block.passing(drops, cookies) + self._ours[head.minor]
        if self._trusted:
            return passing + self._extended(head)
        return b"%bX-Forwarded-Host: %b\r\n" % (passing, head.host) if head.host else passing

    def _extended(self, head: RequestHead) -> bytes:
        """What a trusted proxy said, extended by itself; what it did not say, as far as we know it."""
        before = [value for value in head.values(b"x-forwarded-for") if value]
        nearest = before[-1].rpartition(b",")[2].strip(b" \t") if before else b""
        real = head.value(b"x-real-ip") or nearest or self._peer
        fields = b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\n" % (b", ".join([*before, self._peer]), real)
        if head.value(b"x-forwarded-proto") is None:
            fields += b"X-Forwarded-Proto: %b\r\n" % self._scheme
        if head.value(b"x-forwarded-host") is None and head.host:
            fields += b"X-Forwarded-Host: %b\r\n" % head.host
        return fields


def refuse_early(head: RequestHead, name: bytes) -> tuple[int, str] | None:
    """The status and sentence for a request that no backend should see, or ``None``.

    ``name`` is this proxy's pseudonym in ``Via``: a request that carries it went in a circle (RFC 9110
    section 7.6.3). TRACE would show a client what proxies add for backends alone (9.3.8). An expectation
    other than 100-continue cannot be met (10.1.1). ``Max-Forwards: 0`` makes this the last recipient
    (7.6.2).
    """
    if head.block.is_ordinary and head.method != b"TRACE":
        return None
    notable = head.notable
    forwards = notable.get(b"max-forwards", b"")
    if head.method == b"TRACE":
        return 405, "This proxy does not pass TRACE."
    if b"via" in notable and name in notable[b"via"]:
        return 508, "The request has passed this proxy before; two proxies point at each other."
    if b"expect" in notable and head.minor > 0 and not head.expects_continue:
        return 417, "Of expectations only 100-continue can be met."
    if head.method == b"OPTIONS" and forwards and not forwards.strip(b"0"):
        return 200, "The request ends here, as its Max-Forwards asks."
    return None


def with_fewer_forwards(fields: bytes) -> bytes:
    """``fields`` with ``Max-Forwards`` one less (RFC 9110 section 7.6.2); what is not a number stays."""
    return _MAX_FORWARDS.sub(lambda match: b"Max-Forwards: %d\r\n" % (int(match.group(1)) - 1), fields)
