"""Whatever the core accepts, h11 and llhttp (through httptools) accept, with the same framing.

That is what makes request smuggling through us impossible against servers that read as these two do: no octet
is body to one and head to another. The inputs are the corpus, messages made by the grammar (which must be
accepted), and both of them with edits. What the core refuses is none of the oracles' business.

Where an oracle is known to see things differently, a function here says so and why: `comparable`,
`for_llhttp`, `llhttp_sees_the_end`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyproxy.core.http1 import UNTIL_CLOSE, RequestHead, ResponseHead
from comfyproxy.errors import BackendProtocolError, ProtocolError

VECTORS = Path(__file__).parent.parent / "vectors"
REQUESTS = [path.read_bytes() for path in sorted((VECTORS / "requests").glob("*/*.http"))]
RESPONSES = [path.read_bytes() for path in sorted((VECTORS / "responses").glob("*/*.http"))]

Fields = list[tuple[bytes, bytes]]
ReadRequest = Callable[[Iterable[bytes]], Any]
ReadResponse = Callable[[Iterable[bytes], bytes], Any]


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


def ours(message: Any, start: tuple[object, ...]) -> Reading:
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


def check(message: Any, raw: bytes, method: bytes, h11_connection: h11.Connection) -> None:
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


def check_request(read_request: ReadRequest, raw: bytes) -> bool:
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


def check_response(read_response: ReadResponse, raw: bytes, method: bytes) -> bool:
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


EXAMPLES = settings(max_examples=max(200, settings.default.max_examples))

# Seconds, for the thousands of examples of the profile "deep"; without it these tests take one each.
pytestmark = pytest.mark.timeout(600)

PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"=", b'"', b"\\", b"/", b"#", b"@", b"0", b"f"),
    *(b"\0", b"\x0b", b"\x7f", b"\x80", b"\xff", b"chunked", b"identity", b"HTTP/1.0", b"GET", b"http://b"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Host: b\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"0\r\n\r\n",
        b"5;a=b\r\nhello\r\n",
    ),
    *(b"HTTP/1.1 204 ", b"HTTP/1.1 304 ", b"HTTP/1.1 100 ", b"HTTP/1.1 101 ", b"HTTP/1.1 205 "),
]

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=12).map(str.encode)
texts = st.lists(st.sampled_from([9, *range(32, 127), *range(128, 256)]), max_size=20).map(bytes)
blanks = st.sampled_from([b"", b" ", b"\t", b" \t "])
READ_BY_US = frozenset(
    b"host content-length transfer-encoding connection upgrade proxy-connection keep-alive".split()
)


@st.composite
def lines(draw: st.DrawFn, max_size: int = 4) -> list[bytes]:
    """Field lines that mean nothing to framing."""
    names = draw(st.lists(tokens.filter(lambda name: name.lower() not in READ_BY_US), max_size=max_size))
    return [name + b":" + draw(blanks) + draw(texts) + draw(blanks) for name in names]


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
    extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b; \\" \xff";c'])
    spell = st.sampled_from([b"%x", b"%X", b"%04x"])
    body = b"".join(
        draw(spell) % len(chunk) + draw(extensions) + b"\r\n" + chunk + b"\r\n" for chunk in chunks
    )
    trailers = b"".join(line + b"\r\n" for line in draw(lines(max_size=2)) if line[:7].lower() != b"trailer")
    return body + b"0" + draw(extensions) + b"\r\n" + trailers + b"\r\n"


@st.composite
def framed(draw: st.DrawFn, line: bytes, fields: list[bytes], kinds: list[str]) -> bytes:
    """A message with that first line: ``fields`` and others in any order, a body framed by one of them."""
    kind = draw(st.sampled_from(kinds))
    body = b""
    if kind == "length":
        body = draw(st.binary(max_size=40))
        fields = [*fields, b"Content-Length:" + draw(blanks) + b"%d" % len(body) + draw(blanks)]
    elif kind == "chunked":
        body = draw(chunked_bodies())
        coding = draw(st.sampled_from([b"chunked", b"Chunked", b"CHUNKED"]))
        fields = [*fields, b"transfer-encoding:" + draw(blanks) + coding + draw(blanks)]
    connections = st.sampled_from(
        [b"Connection: close", b"Connection:keep-alive , x", b"connection: x,Close"]
    )
    fields = draw(st.permutations([*fields, *draw(st.lists(connections, max_size=2)), *draw(lines())]))
    return line + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def kinds(minor: int) -> list[str]:
    """Framings that this minor version of HTTP/1 has."""
    return ["none", "length", "chunked"] if minor else ["none", "length"]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(
        st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"M-SEARCH"]) | tokens
    )
    marks = st.sampled_from([octet for octet in range(0x21, 0x7F) if octet != 0x23])
    path = b"/" + bytes(draw(st.lists(marks, max_size=20)))
    target = path if method == b"CONNECT" else draw(st.sampled_from([path, b"http://b.example:81" + path]))
    minor = draw(st.sampled_from([1, 1, 1, 0, 7]))
    host = [
        b"Host:" + draw(blanks) + draw(st.sampled_from([b"a.example", b"127.0.0.1:8188", b"[::1]:80", b""]))
    ]
    line = b"%b %b HTTP/1.%d" % (method, target, minor)
    return draw(framed(line, host, kinds(minor))) + draw(st.binary(max_size=8))


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    status = draw(st.integers(100, 999).filter(lambda status: status != 205))
    minor = draw(st.sampled_from([1, 1, 1, 0, 7]))
    line = b"HTTP/1.%d %d" % (minor, status) + draw(st.sampled_from([b"", b" "]) | texts.map(b" ".__add__))
    return draw(framed(line, [], kinds(minor) if status >= 200 else ["none"])) + draw(st.binary(max_size=8))


@st.composite
def edited(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A message in which up to four places were overwritten, cut out or filled in."""
    raw = draw(messages)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = min(start + draw(st.sampled_from([0, 0, 1, 2, 8])), len(raw))
        raw = raw[:start] + draw(st.sampled_from(PIECES) | st.binary(max_size=2)) + raw[end:]
    return raw


def small(corpus: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.sampled_from([raw for raw in corpus if len(raw) < 1000])


methods = st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"])


@pytest.mark.parametrize("path", sorted((VECTORS / "requests").glob("*/*.http")), ids=lambda path: path.stem)
def test_oracles_agree_about_the_corpus_of_requests(read_request: ReadRequest, path: Path) -> None:
    assert check_request(read_request, path.read_bytes()) == (path.parent.name == "valid")


@pytest.mark.parametrize("path", sorted((VECTORS / "responses").glob("*/*.http")), ids=lambda path: path.stem)
def test_oracles_agree_about_the_corpus_of_responses(read_response: ReadResponse, path: Path) -> None:
    for method in (b"GET", b"HEAD"):
        accepted = check_response(read_response, path.read_bytes(), method)
        assert accepted or path.parent.name == "invalid"


@EXAMPLES
@given(raw=requests())
def test_oracles_agree_about_requests_made_by_the_grammar(read_request: ReadRequest, raw: bytes) -> None:
    assert check_request(read_request, raw) or raw.startswith(b"CONNECT ")


@EXAMPLES
@given(raw=responses(), method=methods)
def test_oracles_agree_about_responses_made_by_the_grammar(
    read_response: ReadResponse, raw: bytes, method: bytes
) -> None:
    assert check_response(read_response, raw, method)


@EXAMPLES
@given(raw=edited(small(REQUESTS) | requests()))
def test_oracles_agree_about_edited_requests(read_request: ReadRequest, raw: bytes) -> None:
    check_request(read_request, raw)


@EXAMPLES
@given(raw=edited(small(RESPONSES) | responses()), method=methods)
def test_oracles_agree_about_edited_responses(read_response: ReadResponse, raw: bytes, method: bytes) -> None:
    check_response(read_response, raw, method)


@EXAMPLES
@given(raw=edited(small(REQUESTS) | requests()), cuts=st.lists(st.integers(0, 400), max_size=4))
def test_how_a_request_is_cut_into_pieces_does_not_matter(
    read_request: ReadRequest, raw: bytes, cuts: list[int]
) -> None:
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(places)]
    outcomes = []
    for way in ([raw], pieces):
        try:
            message = read_request(way)
        except ProtocolError as refusal:
            outcomes.append(("refused", refusal.status))
        else:
            outcomes.append(("read", message.payload, message.complete, message.rest))
    assert outcomes[0] == outcomes[1]
