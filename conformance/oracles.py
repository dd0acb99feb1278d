"""Whatever the core accepts, h11 and llhttp (through httptools) accept, with the same framing.

That is what makes request smuggling through us impossible against servers that read as these two do: no octet
is body to one and head to another. What the core refuses is none of the oracles' business.

Where an oracle is known to see things differently, a function here says so and why: `comparable`,
`for_llhttp`, `llhttp_sees_the_end`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import h11
import httptools

from comfyproxy.core.http.http1 import UNTIL_CLOSE, RequestHead, ResponseHead
from comfyproxy.errors import BackendProtocolError, ProtocolError
from conformance.reading import Message, read_request, read_response

Fields = list[tuple[bytes, bytes]]


@dataclass
class Reading:
    """What one parser made of a message; ``start`` is what its first line says."""

    start: tuple[object, ...] = ()
    fields: Fields = field(default_factory=list)
    payload: bytes = b""
    trailers: Fields = field(default_factory=list)
    complete: bool = False
    close: bool | None = None


def comparable(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Fields as h11 reports them: names and codings in lower case (their meaning), values trimmed."""
    pairs = [(name.lower(), value.strip(b" \t")) for name, value in fields]
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in pairs]


def lines_of(block: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (name, value) for name, _, value in (line.partition(b":") for line in block.split(b"\r\n") if line)
    ]


def ours(message: Message, start: tuple[object, ...]) -> Reading:
    head = message.head
    trailers = (b"\r\n" + message.framed).rpartition(b"\r\n0\r\n")[2] if message.complete else b""
    return Reading(
        start,
        comparable(line.partition(b":")[::2] for _, line in head.fields),
        message.payload,
        comparable(lines_of(trailers)),
        message.complete,
        head.close,
    )


def read_with_h11(connection: h11.Connection, raw: bytes, complete: bool) -> Reading:
    """What h11 reads of ``raw``, which we found ``complete``; it raises if it refuses it.

    What is not complete may end in a line that h11 refuses sooner than we do: we hold a line until its end
    has come.
    """
    reading = Reading()
    connection.receive_data(raw)
    if complete:
        connection.receive_data(b"")
    try:
        read_events(connection, reading)
    except h11.RemoteProtocolError:
        if complete:
            raise
    assert not (reading.complete and connection.trailing_data[0])
    return reading


def read_events(connection: h11.Connection, reading: Reading) -> None:
    while not reading.complete and (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        match event:
            case h11.Request():
                reading.start = (event.method, event.target, event.http_version)
                reading.fields = comparable(event.headers.raw_items())
            case h11.InformationalResponse() | h11.Response():
                reading.start = (event.status_code, bytes(event.reason), event.http_version)
                reading.fields = comparable(event.headers.raw_items())
                reading.complete = event.status_code < 200
            case h11.Data():
                reading.payload += bytes(event.data)
            case h11.EndOfMessage():
                reading.complete = True
                reading.trailers = comparable(event.headers.raw_items())


class LlhttpReading(Reading):
    """Collects what httptools calls back; fields behind the head are trailers."""

    def __init__(self) -> None:
        super().__init__()
        self.parser: Any = None
        self.target = b""
        self.reason = b""
        self.heads = 0
        self.messages = 0
        self.switched = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_status(self, status: bytes) -> None:
        self.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        (self.trailers if self.heads else self.fields).append((name, value))

    def on_headers_complete(self) -> None:
        self.heads += 1

    def on_body(self, body: bytes) -> None:
        self.payload += body

    def on_message_complete(self) -> None:
        self.messages += 1
        self.close = not self.parser.should_keep_alive()


@cache
def llhttp_knows(method: bytes) -> bool:
    """llhttp reads only methods from its table, where RFC 9110 section 9.1 allows any token."""
    try:
        httptools.HttpRequestParser(object()).feed_data(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    except httptools.HttpParserError:
        return False
    return True


def for_llhttp(raw: bytes, head: RequestHead | ResponseHead) -> bytes:
    """``raw`` without three things that llhttp refuses and RFC 9110 allows.

    They are methods that it does not know, a minor version above 1 (section 2.5: to be treated as 1), and a
    tab behind ``chunked`` (section 5.6.3: a blank like any other; we write that field anew).
    """
    line, end, rest = raw.partition(b"\r\n")
    version = line.rindex(b"HTTP/1.") if isinstance(head, RequestHead) else 0
    line = line[:version] + b"HTTP/1.%d" % head.minor + line[version + 8 :]
    if isinstance(head, RequestHead) and not llhttp_knows(head.method):
        line = b"POST" + line[len(head.method) :]
    fields, empty_line, body = (end + rest).partition(b"\r\n\r\n")
    fields = re.sub(rb"(?i)(\r\ntransfer-encoding:[\t ]*chunked)[\t ]*(?=\r|\Z)", rb"\1", fields)
    return line + fields + empty_line + body


def llhttp_sees_the_end(reading: LlhttpReading, head: RequestHead | ResponseHead, method: bytes) -> bool:
    """Whether httptools and llhttp can know where the message ends.

    httptools cannot be told that an answer is one to HEAD. llhttp takes a 205 without a length to go on until
    the connection closes, where RFC 9110 section 15.3.6 has no content follow. httptools leaves the body of a
    request that asks for another protocol to whoever speaks that: this is why `is_websocket_request` wants
    no body, and why all others are forwarded without their ``Upgrade``.
    """
    if isinstance(head, RequestHead):
        return head.body == 0 or not reading.switched
    return not (method == b"HEAD" or (head.status == 205 and head.body == 0))


def read_with_llhttp(raw: bytes, head: RequestHead | ResponseHead, complete: bool) -> LlhttpReading:
    """What llhttp reads of ``raw``, which we found ``complete``; it raises if it refuses it."""
    reading = LlhttpReading()
    is_request = isinstance(head, RequestHead)
    parser = (httptools.HttpRequestParser if is_request else httptools.HttpResponseParser)(reading)
    reading.parser = parser
    try:
        parser.feed_data(for_llhttp(raw, head))
    except httptools.HttpParserUpgrade:
        reading.switched = True
    except httptools.HttpParserError as error:
        # So httptools says that a 101 names no protocol; whether it is a handshake's answer is asked later.
        is_101 = str(error) == "Pause on CONNECT/Upgrade" and not is_request and head.status == 101
        if complete and not is_101:
            raise
    assert reading.heads == 1
    assert reading.messages <= 1
    if isinstance(head, RequestHead):
        method = parser.get_method() if llhttp_knows(head.method) else head.method
        reading.start = (method, reading.target)
    else:
        reading.start = (parser.get_status_code(), reading.reason)
    reading.fields = comparable(reading.fields)
    reading.trailers = comparable(reading.trailers)
    reading.complete = reading.messages == 1
    return reading


def check(message: Message, raw: bytes, method: bytes, h11_connection: h11.Connection) -> None:
    """Hold what we read of ``raw``, which ends where our message does, against both oracles."""
    head = message.head
    first = raw.partition(b"\r\n")[0]
    if isinstance(head, RequestHead):
        name, target, version = first.split(b" ")
        mine = ours(message, (name, target))
    else:
        version = first[:8]
        mine = ours(message, (head.status, head.reason))
    theirs = read_with_h11(h11_connection, raw, mine.complete)
    assert theirs.start == (*mine.start, version[5:])
    assert (theirs.fields, theirs.payload, theirs.complete) == (mine.fields, mine.payload, mine.complete)
    assert theirs.trailers == mine.trailers

    llhttp = read_with_llhttp(raw, head, mine.complete)
    assert (llhttp.start, llhttp.fields) == (mine.start, mine.fields)
    if llhttp_sees_the_end(llhttp, head, method):
        assert llhttp.payload == mine.payload
        # What goes on until the connection closes is never complete to llhttp.
        assert llhttp.complete == (mine.complete and head.body != UNTIL_CLOSE)
        if llhttp.complete:
            assert llhttp.trailers == mine.trailers
            # llhttp obeys Proxy-Connection, which no RFC defines. We may close more often, but never less.
            obeyed = any(name == b"proxy-connection" for name, _ in mine.fields)
            assert mine.close or obeyed or not llhttp.close


def check_request(raw: bytes) -> bool:
    """Whether we accept ``raw``; an assertion or an oracle's own error if they do not agree then."""
    try:
        message = read_request([raw])
    except ProtocolError:
        return False
    if message.head is None:
        return False
    # That one empty line before a request is skipped (RFC 9112 section 2.2) is new to h11.
    raw = raw[: len(raw) - len(message.rest)].removeprefix(b"\r\n")
    check(message, raw, message.head.method, h11.Connection(h11.SERVER, max_incomplete_event_size=2**20))
    return True


def check_response(raw: bytes, method: bytes) -> bool:
    """The same for an answer to ``method``."""
    try:
        message = read_response([raw], method)
    except (BackendProtocolError, ProtocolError):
        return False
    if message.head is None:
        return False
    raw = raw[: len(raw) - len(message.rest)]
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    # h11 takes a 101 only for an answer to a request for one.
    fields = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket")]
    connection.send(h11.Request(method=method, target="/", headers=fields))
    connection.send(h11.EndOfMessage())
    check(message, raw, method, connection)
    return True
