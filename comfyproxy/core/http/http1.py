"""HTTP/1.1 heads and body framing over raw bytes (RFC 9112), strictly.

Anchored expressions validate a whole head; what they refuse is examined a second time, slowly, only to say
why. A head is kept as the lines it came in, so what is forwarded is what was received: nothing is
re-cased, merged or re-ordered, and nothing is decoded.

Where RFC 9112 lets a recipient choose between repairing and refusing, this refuses: bare CR or LF,
folded lines, blanks before the colon, repeated or signed lengths, a length beside a transfer coding.
Whatever is accepted here, h11 and llhttp accept with the same framing (``conformance/oracles.py``).

Bodies are described by one number: a length, or `CHUNKED`, or `UNTIL_CLOSE`.
"""

import re
from functools import lru_cache

from comfyproxy.core.http.chunked import CHUNKED
from comfyproxy.core.http.fields import KEPT_SIZE, FieldBlock, Fields, read_fields
from comfyproxy.core.http.grammar import TEXT, TOKEN, has_bare_line_end
from comfyproxy.errors import BackendProtocolError, ProtocolError

UNTIL_CLOSE = -2
"""Body of a response that ends when its connection does (RFC 9112 section 6.3, item 8)."""

MAX_LENGTH = 2**63 - 1

KEPT_HEADS = 512
"""Whole heads that are kept parsed; small ones only (`KEPT_SIZE`)."""

_REQUEST_START = re.compile(rb"(" + TOKEN + rb") ([!\"$-~]++) HTTP/1\.([0-9])\r\n")
_RESPONSE_START = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: (" + TEXT + rb"*+))?\r\n")
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([^ ]+) HTTP/([0-9])\.([0-9])")
_FIELD_LINE = re.compile(TOKEN + rb":" + TEXT + rb"*+")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]*)(.*)")
_HOST = re.compile(rb"(?:(?:[A-Za-z0-9._~%!$&'()*+;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?)?")


class Head:
    """What requests and responses have in common.

    ``block`` holds the field lines and what they say; ``notable`` is its own. ``close`` says that the
    sender will not reuse the connection, ``upgrade`` that it offers to switch protocols. Heads are
    values: nothing in one changes once it is parsed.
    """

    __slots__ = ("block", "body", "close", "minor", "notable", "upgrade")

    block: FieldBlock
    body: int

    def __init__(self, minor: bytes, block: FieldBlock) -> None:
        self.block = block
        self.notable = block.notable
        if minor == b"0":
            self.minor = 0
            self.close = block.close or not block.keep_alive
            self.upgrade = False
        else:
            self.minor = 1
            self.close = block.close
            self.upgrade = block.upgrade

    @property
    def fields(self) -> Fields:
        """Every field: its lower-cased name and its line, in the order received."""
        return self.block.fields

    def value(self, name: bytes) -> bytes | None:
        """The first field of that lower-case ``name``, trimmed, or ``None``."""
        return self.block.value(name)

    def values(self, name: bytes) -> list[bytes]:
        """Every field of that lower-case ``name``, trimmed, in order."""
        return [line[len(name) + 1 :].strip(b" \t") for field, line in self.block.fields if field == name]


class RequestHead(Head):
    """A validated request head.

    ``target`` is the origin form as received (RFC 9112 section 3.2); an absolute form was split, its
    authority being ``host``. ``path`` is the target without its query, percent-encoding untouched. ``body``
    is a length (0 for none) or `CHUNKED`.
    """

    __slots__ = ("host", "method", "path", "target")

    method: bytes
    target: bytes
    path: bytes
    host: bytes

    @property
    def line(self) -> bytes:
        """The request line as a log shows it."""
        return b"%s %s HTTP/1.%d" % (self.method, self.target, self.minor)

    @property
    def is_idempotent(self) -> bool:
        """Whether sending it twice means no more than sending it once (RFC 9110 section 9.2.2)."""
        return self.method in _IDEMPOTENT

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends its body (RFC 9110 section 10.1.1)."""
        return self.minor > 0 and self.notable.get(b"expect", b"").lower() == b"100-continue"


class ResponseHead(Head):
    """A validated response head; ``body`` is a length, `CHUNKED` or `UNTIL_CLOSE`."""

    __slots__ = ("reason", "status")

    status: int
    reason: bytes


_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"))


def parse_request_head(raw: bytes) -> RequestHead:
    """Parse one whole request head, its empty line included.

    Raises `ProtocolError` with 400, 501 (a transfer coding we do not know), 505 (not HTTP/1).
    """
    return _parse_small_request(raw) if len(raw) <= KEPT_SIZE else _parse_request(raw)


def parse_response_head(raw: bytes, method: bytes) -> ResponseHead:
    """Parse one whole response head, answering a request made with ``method``.

    Raises `BackendProtocolError` for anything malformed (RFC 9112 section 6.3: discard it and answer 502).
    """
    return _parse_small_response(raw, method) if len(raw) <= KEPT_SIZE else _parse_response(raw, method)


def _parse_request(raw: bytes) -> RequestHead:
    end = raw.find(b"\r\n") + 2
    match = _REQUEST_START.fullmatch(raw, 0, end)
    if match is None or raw[-4:] != b"\r\n\r\n" or (block := read_fields(raw[end:-2])) is None:
        raise _explain_request(raw)
    method, target, minor = match.groups()
    head = RequestHead(minor, block)
    head.method = method
    head.target = target
    _read_target(head)
    head.path = head.target.partition(b"?")[0]
    head.body = _request_body(head)
    return head


def _parse_response(raw: bytes, method: bytes) -> ResponseHead:
    end = raw.find(b"\r\n") + 2
    match = _RESPONSE_START.fullmatch(raw, 0, end)
    try:
        block = read_fields(raw[end:-2]) if match is not None and raw[-4:] == b"\r\n\r\n" else None
        if match is None or block is None:
            raise ProtocolError(502, "Its head is not one.")
        minor, status, reason = match.groups()
        head = ResponseHead(minor, block)
        head.status = int(status)
        head.reason = reason or b""
        head.body = _response_body(head, method)
    except ProtocolError as error:
        raise BackendProtocolError(f"Its answer is malformed. {error}", request_was_sent=True) from error
    if head.body == UNTIL_CLOSE:
        head.close = True
    return head


# A client that polls sends the same head again and again, and gets the same one back within one second.
_parse_small_request = lru_cache(KEPT_HEADS)(_parse_request)
_parse_small_response = lru_cache(KEPT_HEADS)(_parse_response)


def check_partial_head(data: bytes) -> None:
    """Refuse the beginning of a request head as soon as no continuation could make it valid.

    Raises `ProtocolError`: a client that speaks TLS, or ends its lines with a bare LF, is told at once.
    """
    if has_bare_line_end(data):
        raise ProtocolError(400, "A line of the request head does not end with CRLF.")
    if data and not re.match(TOKEN, data) and data not in (b"\r", b"\r\n"):
        raise ProtocolError(400, "This is not an HTTP request.")


def parse_length(value: bytes) -> int:
    """A ``Content-Length``: digits only, at most 2**63-1 (RFC 9110 section 8.6); else `ProtocolError` 400."""
    if not value.isdigit() or len(value) > 19 or (length := int(value)) > MAX_LENGTH:
        raise ProtocolError(400, "The Content-Length is not a valid number.")
    return length


def is_valid_host(value: bytes) -> bool:
    """Whether ``value`` has the form of a ``Host`` field: ``host[:port]`` (RFC 9110 section 7.2)."""
    return _HOST.fullmatch(value) is not None


def _read_target(head: RequestHead) -> None:
    target = head.target
    host = head.notable.get(b"host")
    if head.method == b"CONNECT":
        raise ProtocolError(405, "This is a reverse proxy: it makes no tunnels for CONNECT.")
    if host is None:
        if head.minor > 0:
            raise ProtocolError(400, "The request has no Host field.")
        host = b""
    elif not is_valid_host(host):
        raise ProtocolError(400, "The Host field is not a valid host.")
    head.host = host
    if target[0] != 0x2F and not (target == b"*" and head.method == b"OPTIONS"):
        _read_absolute_target(head)


def _read_absolute_target(head: RequestHead) -> None:
    """Take the absolute form apart; its authority counts, not the ``Host`` field (RFC 9112 section 3.2.2)."""
    match = _ABSOLUTE.fullmatch(head.target)
    if match is None:
        raise ProtocolError(400, "The request target is not a path.")
    host, rest = match.groups()
    if not host or not is_valid_host(host):
        raise ProtocolError(400, "The request target does not name a valid host.")
    head.host = host
    if rest[:1] == b"/":
        head.target = rest
    elif not rest and head.method == b"OPTIONS":
        head.target = b"*"  # RFC 9112 section 3.2.4
    else:
        head.target = b"/" + rest


def _request_body(head: RequestHead) -> int:
    notable = head.notable
    coding = notable.get(b"transfer-encoding")
    if coding is None:
        length = notable.get(b"content-length")
        return 0 if length is None else parse_length(length)
    if b"content-length" in notable:
        raise ProtocolError(400, "The request has both a Content-Length and a Transfer-Encoding.")
    if head.minor == 0:
        raise ProtocolError(400, "A Transfer-Encoding does not belong in HTTP/1.0.")
    _check_codings(coding)
    return CHUNKED


def _response_body(head: ResponseHead, method: bytes) -> int:
    notable = head.notable
    coding = notable.get(b"transfer-encoding")
    length = parse_length(notable[b"content-length"]) if b"content-length" in notable else None
    if coding is not None:
        if length is not None:
            raise ProtocolError(502, "It has both a Content-Length and a Transfer-Encoding.")
        if head.minor == 0:
            raise ProtocolError(502, "It has a Transfer-Encoding in HTTP/1.0.")
        _check_codings(coding)
    if head.status < 200 and (length or coding is not None):
        # llhttp reads it where it does not know the status: one octet stream, two readings.
        raise ProtocolError(502, "It is a 1xx that has a body.")
    if head.status < 200 or head.status in (204, 304) or method == b"HEAD":
        return 0
    if coding is not None:
        return CHUNKED
    if head.status == 205:
        # Browsers read no body after a 205 (RFC 9110 section 15.3.6): they would take it for another answer.
        if length:
            raise ProtocolError(502, "It is a 205 that has a body.")
        return 0
    return UNTIL_CLOSE if length is None else length


def _check_codings(value: bytes) -> None:
    """Accept ``chunked`` alone; say 501 for codings we do not know, 400 for what is malformed (9112 6.1)."""
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    if codings == [b"chunked"]:
        return
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        raise ProtocolError(400, "The Transfer-Encoding does not end with chunked, once.")
    if not all(re.fullmatch(TOKEN, coding) for coding in codings):
        raise ProtocolError(400, "The Transfer-Encoding is malformed.")
    raise ProtocolError(501, "The Transfer-Encoding has a coding other than chunked.")


def _explain_request(raw: bytes) -> ProtocolError:
    """Why ``raw`` is not a request head."""
    if has_bare_line_end(raw):
        return ProtocolError(400, "A line of the request head does not end with CRLF.")
    first, *lines = raw.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        return ProtocolError(400, "The request line is malformed.")
    if match.group(3) != b"1":
        return ProtocolError(505, "This server speaks HTTP/1.1 and HTTP/1.0 here.")
    for number, line in enumerate(lines[:-2], 1):
        if line[:1] in (b" ", b"\t"):
            return ProtocolError(400, f"Header line {number} begins with a blank: folding is obsolete.")
        if not _FIELD_LINE.fullmatch(line):
            return ProtocolError(400, f"Header line {number} is malformed.")
    return ProtocolError(400, "The request target has characters that do not belong in it.")
