"""What of a head passes to the other side (RFC 9110 section 7.6, RFC 9112 section 9.6).

Lines pass as they came. Hop-by-hop fields and those that ``Connection`` names are left out; the fields by
which a backend learns who asked are ours to write, so whatever an untrusted client put there is left out too,
in every spelling that a CGI-style backend could take for them.
"""

from comfyproxy.core.http1 import Fields, Head, RequestHead

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te transfer-encoding upgrade "
    b"http2-settings".split()
)
FORWARDING = frozenset(
    b"x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-forwarded-server x-forwarded-ssl "
    b"x-forwarded-prefix x-real-ip forwarded".split()
)
REQUEST_DROPS = HOP_BY_HOP | FORWARDING | {b"host"}
"""Fields of a request that never pass as they are: dropped, or written anew by `Forwarder`."""

TRUSTED_REQUEST_DROPS = HOP_BY_HOP | {b"host", b"x-forwarded-for", b"x-real-ip"}
"""The same for a request from a trusted proxy, whose word on host and scheme stands."""

_DISGUISABLE = REQUEST_DROPS | {b"content-length", b"content-type", b"via", b"cookie", b"authorization"}


def passing(head: Head, drop: frozenset[bytes]) -> list[bytes]:
    """The lines of ``head`` that pass, without those named in ``drop`` or by ``Connection``."""
    if head.options:
        drop = drop | head.options
    return [line for name, line in head.fields if name not in drop]


def without_disguises(fields: Fields) -> Fields:
    """``fields`` without underscore spellings of ours (``X_Forwarded_For``), which CGI cannot tell apart."""
    return [
        field for field in fields if b"_" not in field[0] or field[0].replace(b"_", b"-") not in _DISGUISABLE
    ]


class Forwarder:
    """Writes the fields that tell a backend who asked and through whom; one for each client connection.

    ``peer`` is the client's address, ``scheme`` ``http`` or ``https``, ``name`` the pseudonym that this proxy
    adds to ``Via`` (RFC 9110 section 7.6.3), ``trusted`` whether the peer is a proxy whose own
    ``X-Forwarded-*`` fields are believed and extended.
    """

    __slots__ = ("_constant", "_drops", "_peer", "_trusted")

    def __init__(self, peer: bytes, scheme: bytes, name: bytes, trusted: bool = False) -> None:
        self._peer = peer
        self._trusted = trusted
        self._drops = TRUSTED_REQUEST_DROPS if trusted else REQUEST_DROPS
        via = b"Via: 1.1 " + name
        if trusted:
            self._constant = via
        else:
            self._constant = b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\nX-Forwarded-Proto: %b\r\n%b" % (
                peer,
                peer,
                scheme,
                via,
            )

    def lines(self, head: RequestHead, drop: frozenset[bytes]) -> list[bytes]:
        """The field lines to send upstream, ``Host`` and framing excepted; ``drop`` names further fields to cut."""
        lines = passing(head, self._drops | drop if drop else self._drops)
        lines.append(self._constant)
        if self._trusted:
            lines.extend(self._extended(head))
        elif head.host:
            lines.append(b"X-Forwarded-Host: " + head.host)
        return lines

    def _extended(self, head: RequestHead) -> list[bytes]:
        before = head.values(b"x-forwarded-for")
        lines = [b"X-Forwarded-For: " + b", ".join([*before, self._peer])]
        lines.append(b"X-Real-IP: " + (head.value(b"x-real-ip") or self._peer))
        if head.value(b"x-forwarded-host") is None and head.host:
            lines.append(b"X-Forwarded-Host: " + head.host)
        return lines
