"""Probes: what a check sends to a server, and what it makes of the answer.

The pure half; `comfyproxy.proxy.probes` has the connections and the clock.
"""

from dataclasses import dataclass
from typing import Protocol

from comfyproxy.core.http.chunked import CHUNKED, ChunkedReader
from comfyproxy.core.http.http1 import UNTIL_CLOSE, ResponseHead, parse_response_head
from comfyproxy.errors import BackendProtocolError, ProtocolError

MAX_HEAD = 65_536
"""Octets of an answer's heads that are read."""

MAX_BODY = 65_536
"""Octets of an answer's body that are looked at; one that is longer is good as far as that."""

Statuses = tuple[tuple[int, int], ...]
"""Ranges of status codes, both ends included."""

GOOD_STATUSES: Statuses = ((200, 399),)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found out, with a reason for people; ``has_work`` if the server said that it has some."""

    ok: bool
    reason: str
    has_work: bool = False


class Probe(Protocol):
    """A question to a server, and what its answer says."""

    def request(self, authority: bytes) -> bytes:
        """What to send to the server of that ``Host``."""

    def judge(self, head: ResponseHead, body: bytes) -> Verdict:
        """What the answer says."""


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """A GET of ``path`` is answered with one of ``statuses``."""

    path: str
    statuses: Statuses = GOOD_STATUSES

    def request(self, authority: bytes) -> bytes:
        """The GET."""
        return get(self.path, authority)

    def judge(self, head: ResponseHead, body: bytes) -> Verdict:
        """The status decides."""
        ok = any(first <= head.status <= last for first, last in self.statuses)
        return Verdict(ok, f"GET {self.path} was answered with {head.status}")


def get(path: str, authority: bytes) -> bytes:
    """The request of a check; the server is to close the connection, which is used once."""
    return (
        b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: comfyproxy-probe\r\nAccept: */*\r\n"
        b"Connection: close\r\n\r\n"
    ) % (path.encode("ascii"), authority)


class AnswerReader:
    """Reads the answer to a GET, and no more of it than is looked at.

    ``head`` is there once its end has come, ``body`` grows with `feed`.
    """

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self._buffer = b""
        self._chunks: ChunkedReader | None = None

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the connection's end says where the answer ends."""
        return self.head is not None and self.head.body == UNTIL_CLOSE

    def feed(self, data: bytes) -> bool:
        """Take ``data``; whether that is all that is wanted. Raises `ProtocolError` if it is not HTTP/1."""
        if self.head is None:
            data = self._read_head(data)
            if self.head is None:
                return False
        self.body += self._chunks.feed(data) if self._chunks is not None else data
        if len(self.body) >= MAX_BODY:
            return True
        if self._chunks is not None:
            return self._chunks.complete
        return 0 <= self.head.body <= len(self.body)

    def _read_head(self, data: bytes) -> bytes:
        """Read heads up to that of the final answer; returns what follows it."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n") + 4) > 3:
            head = _parsed(self._buffer[:end])
            self._buffer = self._buffer[end:]
            if head.status >= 200:
                self.head = head
                if head.body == CHUNKED:
                    self._chunks = ChunkedReader(framed=False)
                return self._buffer
        if len(self._buffer) > MAX_HEAD or not b"HTTP/1.".startswith(self._buffer[:7]):
            raise ProtocolError(502, "It does not speak HTTP/1.")
        return b""


def _parsed(raw: bytes) -> ResponseHead:
    try:
        return parse_response_head(raw, b"GET")
    except BackendProtocolError as error:
        raise ProtocolError(502, str(error)) from error
