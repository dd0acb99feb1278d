"""The chunked transfer coding (RFC 9112 section 7.1), read piece by piece.

`ChunkedReader` checks every byte of the framing and hands on what may pass: either the payload alone, or
the payload still in its chunks, so that a body is never re-framed only because it passes through. Chunk
extensions are dropped (they are hop-by-hop, 7.1.1); trailers pass with the chunks and are dropped
with them.
"""

import re
from collections.abc import Iterator

from comfyproxy.errors import ProtocolError

CHUNKED = -1
"""Body of unknown length in the chunked coding, where a body is described by one number."""

MAX_SIZE_LINE = 1024
"""Octets of one chunk-size line, extensions included; what real peers send stays under 100."""

MAX_TRAILERS = 8192
"""Octets of a whole trailer section."""

LAST_CHUNK = b"0\r\n\r\n"

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?")
_TRAILERS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n)*+")
_FORBIDDEN_TRAILER = re.compile(
    rb"(?im)^(?:transfer-encoding|content-length|content-encoding|content-type|content-range|host|connection|"
    rb"trailer|te|upgrade|authorization|cookie|set-cookie)[ \t]*:"
)


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
            self._check_unfinished(self._buffer[self._at :], MAX_SIZE_LINE)
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
            self._check_unfinished(self._buffer[self._at :].replace(b"\r\n", b""), MAX_TRAILERS)
            return None
        trailers = self._take(end + 4 - self._at)[:-2]
        if not _TRAILERS.fullmatch(trailers):
            raise ProtocolError(400, "The trailers are malformed.")
        if _FORBIDDEN_TRAILER.search(trailers):
            raise ProtocolError(400, "The trailers have a field that may not be in trailers.")
        self.complete = True
        return b"0\r\n%b\r\n" % trailers if self._framed else b""

    @staticmethod
    def _check_unfinished(line: bytes, limit: int) -> None:
        """Refuse a line early: too long, or ended by anything but CRLF."""
        if len(line) >= limit:
            raise ProtocolError(400, "A line of the chunked framing is too long.")
        if b"\n" in line or b"\r" in line[:-1]:
            raise ProtocolError(400, "A line of the chunked framing does not end with CRLF.")
