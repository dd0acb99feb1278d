"""What of a head passes to the other side (RFC 9110 section 7.6, RFC 9112 section 9.6).

Lines pass as they came. Hop-by-hop fields and those that ``Connection`` names are left out; the fields by
which a backend learns who asked are ours to write, so whatever an untrusted client put there is left out too,
in every spelling that a CGI-style backend could take for them.
"""

import re
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from comfyproxy.core.http.fields import Fields
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.core.http.trust import Trust, told_by_forwarded, told_by_list

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te transfer-encoding "
    b"upgrade http2-settings".split()
)
FORWARDING = frozenset(
    b"x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-protocol x-forwarded-scheme "
    b"x-forwarded-port x-forwarded-server x-forwarded-ssl x-forwarded-prefix x-forwarded-by x-real-ip "
    b"forwarded".split()
)
REQUEST_DROPS = HOP_BY_HOP | FORWARDING | {b"host"}
"""Fields of a request that never pass as they are: dropped, or written anew by `Forwarder`."""

WRITABLE = ("x-forwarded", "x-forwarded-port", "x-real-ip", "forwarded")
"""What a backend can be told by: ``X-Forwarded-For``, ``-Proto`` and ``-Host``; ``X-Forwarded-Port``;
``X-Real-IP``; ``Forwarded`` (RFC 7239)."""

WRITTEN = ("x-forwarded", "x-real-ip")
"""What of it is written unless something else is asked for."""

_MAX_FORWARDS = re.compile(rb"(?im)^max-forwards:[ \t]*0*([1-9][0-9]{0,8})[ \t]*\r\n")
_PORT = re.compile(rb":([0-9]+)\Z")
_ODD_MARKS = re.compile(rb"[^0-9a-z]")
_DISGUISABLE = REQUEST_DROPS | {
    b"content-length", b"content-type", b"via", b"cookie", b"authorization", b"x-request-id"
}  # fmt: skip


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
    adds to ``Via`` (RFC 9110 section 7.6.3). Where ``trust`` has the peer, it is a proxy whose own fields are
    believed and extended. ``written`` are those of `WRITABLE` that are sent; what a trusted proxy says beyond
    them passes as it came.
    """

    __slots__ = (
        "_client",
        "_drops",
        "_head",
        "_is_usual",
        "_ours",
        "_peer",
        "_scheme",
        "_trust",
        "_written",
    )

    def __init__(
        self,
        peer: bytes,
        scheme: bytes,
        name: bytes,
        trust: Trust | None = None,
        written: Collection[str] = WRITTEN,
    ) -> None:
        self._peer = self._client = peer
        self._head: RequestHead | None = None
        self._scheme = scheme
        self._trust = trust if trust is not None and trust.trusts(peer) else None
        self._written = written
        self._is_usual = self._trust is None and (written is WRITTEN or set(written) == set(WRITTEN))
        self._drops = {frozenset[bytes](): REQUEST_DROPS if self._trust is None else _rewritten(*written)}
        who = b"" if self._trust is not None else _who(peer, scheme, written)
        self._ours = [b"%bVia: 1.%d %b\r\n" % (who, minor, name) for minor in (0, 1)]

    @property
    def peer(self) -> bytes:
        """The address that the connection comes from."""
        return self._peer

    @property
    def is_trusted(self) -> bool:
        """Whether the peer is a proxy whose word is believed."""
        return self._trust is not None

    def client(self, head: RequestHead) -> bytes:
        """The address that the request of ``head`` is believed to come from: the peer's, or whom trusted
        proxies name."""
        if self._trust is not None and head is not self._head:
            self._client = self._trust.client(self._peer, self._told_addresses(head))
            self._head = head
        return self._client

    def scheme(self, head: RequestHead) -> bytes:
        """The scheme by which the client is believed to have asked."""
        if self._trust is not None:
            told = (head.value(b"x-forwarded-proto") or b"").lower().partition(b",")[0].rstrip(b" \t")
            if told in (b"http", b"https"):
                return told
        return self._scheme

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
        if self._is_usual:
            return b"%bX-Forwarded-Host: %b\r\n" % (passing, head.host) if head.host else passing
        return passing + b"".join(self._others(head))

    def _told_addresses(self, head: RequestHead) -> Iterable[bytes]:
        """Whom the proxies before us saw, the nearest first.

        One kind of field is read, the one that is written: a client may send the other kind through a proxy
        that knows nothing of it.
        """
        if "forwarded" in self._written and "x-forwarded" not in self._written:
            return told_by_forwarded(head.values(b"forwarded"))
        return told_by_list(head.values(b"x-forwarded-for") or head.values(b"x-real-ip"))

    def _lacks(self, head: RequestHead, name: bytes) -> bool:
        """Whether no trusted proxy has written a field of that name."""
        return self._trust is None or head.value(name) is None

    def _others(self, head: RequestHead) -> Iterable[bytes]:
        """The lines that depend on the request: what a trusted proxy said, extended by itself, and what it
        did not say, as far as we know it."""
        if "x-forwarded" in self._written:
            if self._trust is not None:
                before = [value for value in head.values(b"x-forwarded-for") if value]
                yield b"X-Forwarded-For: %b\r\n" % b", ".join([*before, self._peer])
                if self._lacks(head, b"x-forwarded-proto"):
                    yield b"X-Forwarded-Proto: %b\r\n" % self._scheme
            if head.host and self._lacks(head, b"x-forwarded-host"):
                yield b"X-Forwarded-Host: %b\r\n" % head.host
        if "x-real-ip" in self._written and self._trust is not None:
            yield b"X-Real-IP: %b\r\n" % self.client(head)
        if "x-forwarded-port" in self._written and self._lacks(head, b"x-forwarded-port"):
            told = None if self._trust is None else head.value(b"x-forwarded-host")
            yield b"X-Forwarded-Port: %b\r\n" % _port(told or head.host, self.scheme(head))
        if "forwarded" in self._written:
            yield _forwarded(self._peer, self._scheme, head.host)


@lru_cache
def _rewritten(*written: str) -> frozenset[bytes]:
    """Fields of a request from a trusted proxy that never pass as they are: its word on host and scheme
    stands."""
    ours = {"x-forwarded": b"x-forwarded-for", "x-real-ip": b"x-real-ip"}
    return HOP_BY_HOP | {b"host"} | {ours[kind] for kind in written if kind in ours}


def _who(peer: bytes, scheme: bytes, written: Collection[str]) -> bytes:
    """The lines about an untrusted client that are the same for all of its requests."""
    address = b"X-Real-IP: %b\r\n" % peer if "x-real-ip" in written else b""
    if "x-forwarded" not in written:
        return address
    return b"X-Forwarded-For: %b\r\n%bX-Forwarded-Proto: %b\r\n" % (peer, address, scheme)


def _port(host: bytes, scheme: bytes) -> bytes:
    """The port that the client asked at; behind others this proxy's own may be another."""
    match = _PORT.search(host)
    return match[1] if match else b"443" if scheme == b"https" else b"80"


def _forwarded(peer: bytes, scheme: bytes, host: bytes) -> bytes:
    """A ``Forwarded`` line about this hop (RFC 7239 section 4); a valid host has nothing to escape."""
    node = b'"[%b]"' % peer.partition(b"%")[0] if b":" in peer else peer
    return b"Forwarded: for=%b;%bproto=%b\r\n" % (node, b'host="%b";' % host if host else b"", scheme)


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
