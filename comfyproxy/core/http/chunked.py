"""The chunked transfer coding (RFC 9112 section 7.1), read piece by piece.

`ChunkedReader` checks every byte of the framing and hands on what may pass: either the payload alone, or
the payload still in its chunks, so that a body is never re-framed only because it passes through. Chunk
extensions are dropped (they are hop-by-hop, 7.1.1); trailers pass with the chunks and are dropped
with them.
"""

import re
from collections.abc import Iterator

from comfyproxy.core.http.grammar import TEXT, TOKEN, has_bare_line_end
from comfyproxy.errors import ProtocolError

CHUNKED = -1
"""Body of unknown length in the chunked coding, where a body is described by one number."""

MAX_SIZE_LINE = 1024
"""Octets of one chunk-size line, extensions included; what real peers send stays under 100."""

MAX_TRAILERS = 8192
"""Octets of a whole trailer section."""

LAST_CHUNK = b"0\r\n\r\n"

_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\' + TEXT + rb')*+"'
_EXTENSION = rb";" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + _QUOTED + rb"))?"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*+")
_TRAILERS = re.compile(rb"(?:" + TOKEN + rb":" + TEXT + rb"*+\r\n)*+")

_NOT_IN_TRAILERS = frozenset(
    b"transfer-encoding content-length content-encoding content-type content-range host connection "
    b"keep-alive proxy-connection trailer te upgrade expect max-forwards authorization proxy-authorization "
    b"cookie set-cookie via forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port "
    b"x-real-ip".split()
)
"""Fields that frame, route or authenticate (RFC 9110 section 6.5.1): a recipient that merges trailers into
the head must not be told these in a way that nobody checks."""


def encode_chunk(data: bytes) -> bytes:
    """``data`` as one chunk; it must not be empty (that would be the last one)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkedReader:
    """Reads one chunked body; `feed` it what arrives until `complete`.

    With ``framed`` the chunks pass as they are, otherwise their payload does. ``rest`` holds what came
    behind the body's end. ``payload`` counts the octets of payload so far.
    """

    __slots__ = ("_at", "_buffer", "_framed", "_left", "_step", "complete", "payload", "rest")

    def __init__(self, framed: bool) -> None:
        self._framed = framed
        self._left = 0
        self._buffer = b""
        self._at = 0
        self._step = self._size
        self.complete = False
        self.payload = 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take ``data`` and return the octets that may pass on.

        Raises `ProtocolError` 400 where the framing is broken; nothing more of the body may pass then.
        """
        size = len(data)
        if size < self._left:
            self._left -= size
            self.payload += size
            return data
        self._buffer += data
        passed = b"".join(self._steps())
        self._buffer = self._buffer[self._at :]
        self._at = 0
        if self.complete:
            self.rest, self._buffer = self._buffer, b""
        return passed

    def _steps(self) -> Iterator[bytes]:
        while not self.complete:
            piece = self._step()
            if piece is None:
                return
            yield piece

    def _take(self, count: int) -> bytes:
        start = self._at
        taken = self._buffer[start : start + count]
        self._at = start + len(taken)
        return taken

    def _size(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", self._at, self._at + MAX_SIZE_LINE)
        if end < 0:
            self._check_unfinished(MAX_SIZE_LINE)
            return None
        match = _SIZE.fullmatch(self._take(end + 2 - self._at)[:-2])
        if match is None:
            raise ProtocolError(400, "A chunk size is malformed.")
        self._left = int(match.group(1), 16)
        if self._left == 0:
            self._step = self._trailers
            return b""
        self._step = self._data
        return b"%x\r\n" % self._left if self._framed else b""

    def _data(self) -> bytes | None:
        if self._at == len(self._buffer):
            return None
        data = self._take(self._left)
        self._left -= len(data)
        self.payload += len(data)
        if not self._left:
            self._step = self._data_end
        return data

    def _data_end(self) -> bytes | None:
        end = self._buffer[self._at : self._at + 2]
        if not b"\r\n".startswith(end):
            raise ProtocolError(400, "A chunk is longer than its size says.")
        if len(end) < 2:
            return None
        self._at += 2
        self._step = self._size
        return b"\r\n" if self._framed else b""

    def _trailers(self) -> bytes | None:
        if self._buffer.startswith(b"\r\n", self._at):
            self._at += 2
            self.complete = True
            return LAST_CHUNK if self._framed else b""
        end = self._buffer.find(b"\r\n\r\n", self._at, self._at + MAX_TRAILERS)
        if end < 0:
            self._check_unfinished(MAX_TRAILERS)
            return None
        trailers = self._take(end + 4 - self._at)[:-2]
        if not _TRAILERS.fullmatch(trailers):
            raise ProtocolError(400, "The trailers are malformed.")
        if not _NOT_IN_TRAILERS.isdisjoint(map(_canonical_name, trailers.split(b"\r\n"))):
            raise ProtocolError(400, "The trailers have a field that may not be in trailers.")
        self.complete = True
        return b"0\r\n%b\r\n" % trailers if self._framed else b""

    def _check_unfinished(self, limit: int) -> None:
        """Refuse lines early: too long, or ended by anything but CRLF."""
        unread = self._buffer[self._at :]
        if len(unread) >= limit:
            raise ProtocolError(400, "The chunked framing has a line or trailers that are too long.")
        if has_bare_line_end(unread):
            raise ProtocolError(400, "A line of the chunked framing does not end with CRLF.")


def _canonical_name(line: bytes) -> bytes:
    """The name of a trailer in the one spelling that stands for all that CGI cannot tell apart."""
    return re.sub(rb"[^0-9a-z]", b"-", line.partition(b":")[0].lower())
