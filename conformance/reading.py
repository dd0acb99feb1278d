"""Whole messages read piece by piece with the core's parsers, as a connection reads them."""

from collections.abc import Iterable
from dataclasses import dataclass

from comfyproxy.core.http.chunked import CHUNKED, ChunkedReader
from comfyproxy.core.http.grammar import has_bare_line_end
from comfyproxy.core.http.http1 import (
    UNTIL_CLOSE,
    RequestHead,
    ResponseHead,
    check_partial_head,
    parse_request_head,
    parse_response_head,
)
from comfyproxy.errors import BackendProtocolError, ProtocolError


@dataclass
class Message:
    """What was read: ``framed`` is a chunked body as it would pass on, ``rest`` what came behind the end."""

    head: RequestHead | ResponseHead | None = None
    payload: bytes = b""
    framed: bytes = b""
    complete: bool = False
    rest: bytes = b""


class _Body:
    """What follows a head."""

    def __init__(self, message: Message, size: int) -> None:
        self._message = message
        self._left = size
        self._chunks = ChunkedReader(framed=False), ChunkedReader(framed=True)
        message.complete = size == 0

    def feed(self, data: bytes) -> None:
        message = self._message
        if message.complete:
            message.rest += data
        elif self._left == CHUNKED:
            plain, framed = self._chunks
            message.payload += plain.feed(data)
            message.framed += framed.feed(data)
            assert (plain.complete, plain.rest) == (framed.complete, framed.rest)
            assert plain.payload == framed.payload == len(message.payload)
            message.complete, message.rest = plain.complete, plain.rest
        elif self._left == UNTIL_CLOSE:
            message.payload += data
        else:
            message.payload += data[: self._left]
            message.rest = data[self._left :]
            self._left -= len(data) - len(message.rest)
            message.complete = not self._left


def read_request(pieces: Iterable[bytes]) -> Message:
    """Read one request from its pieces; `ProtocolError` as soon as it is found out to be none."""
    message = Message()
    buffer = b""
    body: _Body | None = None
    lines_before = 0
    for piece in pieces:
        if body is not None:
            body.feed(piece)
            continue
        buffer += piece
        if buffer[:2] == b"\r\n" and not lines_before:
            lines_before, buffer = 1, buffer[2:]
        head, end, rest = buffer.partition(b"\r\n\r\n")
        if not end:
            check_partial_head(buffer)
            continue
        message.head = parse_request_head(head + end)
        body = _Body(message, message.head.body)
        body.feed(rest)
    return message


def read_response(pieces: Iterable[bytes], method: bytes) -> Message:
    """Read one answer to ``method``; `BackendProtocolError` or `ProtocolError` (its body) if it is none."""
    message = Message()
    buffer = b""
    body: _Body | None = None
    for piece in pieces:
        if body is not None:
            body.feed(piece)
            continue
        buffer += piece
        head, end, rest = buffer.partition(b"\r\n\r\n")
        if end:
            message.head = parse_response_head(head + end, method)
            body = _Body(message, message.head.body)
            body.feed(rest)
        elif not b"HTTP/1.".startswith(buffer[:7]) or has_bare_line_end(buffer):
            # As `comfyproxy.proxy.upstream` finds out that nothing more is worth waiting for.
            raise BackendProtocolError("Its answer is not HTTP/1.", request_was_sent=True)
    message.complete = message.complete or (message.head is not None and message.head.body == UNTIL_CLOSE)
    return message


@dataclass(frozen=True)
class Outcome:
    """What became of some octets, comparable: ``refused`` is the status that was told, 0 for none."""

    refused: int = 0
    start: tuple[object, ...] = ()
    payload: bytes = b""
    framed: bytes = b""
    complete: bool = False
    rest: bytes = b""


def request_outcome(pieces: Iterable[bytes]) -> Outcome:
    """What becomes of a request that arrives in ``pieces``."""
    try:
        message = read_request(pieces)
    except ProtocolError as refusal:
        return Outcome(refusal.status)
    head = message.head
    assert head is None or isinstance(head, RequestHead)
    return _outcome(message, () if head is None else (head.method, head.target, head.host))


def response_outcome(pieces: Iterable[bytes], method: bytes) -> Outcome:
    """What becomes of an answer to ``method`` that arrives in ``pieces``."""
    try:
        message = read_response(pieces, method)
    except (BackendProtocolError, ProtocolError) as refusal:
        return Outcome(refusal.status)
    head = message.head
    assert head is None or isinstance(head, ResponseHead)
    return _outcome(message, () if head is None else (head.status, head.reason))


def _outcome(message: Message, start: tuple[object, ...]) -> Outcome:
    head = message.head
    if head is None:
        return Outcome()
    start = (*start, head.fields, head.body, head.close, head.upgrade)
    return Outcome(0, start, message.payload, message.framed, message.complete, message.rest)
