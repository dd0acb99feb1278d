"""Reading and judging what answers a check."""

import h11
import pytest

from comfyproxy.core.balancing.probing import MAX_BODY, MAX_HEAD, AnswerReader, HttpProbe, Verdict
from comfyproxy.core.http.http1 import parse_response_head
from comfyproxy.errors import ProtocolError


def test_request_is_one_that_other_parsers_take_and_ends_the_connection() -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(HttpProbe("/health?deep=1").request(b"gpu1:8188"))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"GET", b"/health?deep=1")
    fields = dict(request.headers)
    assert (fields[b"host"], fields[b"connection"]) == (b"gpu1:8188", b"close")
    assert isinstance(server.next_event(), h11.EndOfMessage)


@pytest.mark.parametrize(
    ("status", "ok"), [(199, False), (200, True), (299, True), (300, False), (401, True), (402, False)]
)
def test_status_decides(status: int, ok: bool) -> None:
    head = parse_response_head(b"HTTP/1.1 %d X\r\n\r\n" % max(status, 200), b"GET")
    head.status = status
    verdict = HttpProbe("/h", ((200, 299), (401, 401))).judge(head, b"")
    assert verdict == Verdict(ok, f"GET /h was answered with {status}")


@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ],
    ids=["length", "informational", "chunked"],
)
def test_answer_is_read_to_its_end(raw: bytes, body: bytes, piece: int) -> None:
    reader = AnswerReader()
    fed = [reader.feed(raw[at : at + piece]) for at in range(0, len(raw), piece)]
    assert fed == [False] * (len(fed) - 1) + [True]
    assert reader.body == body
    assert not reader.ends_with_connection


def test_answer_without_a_length_ends_with_the_connection() -> None:
    reader = AnswerReader()
    assert not reader.ends_with_connection
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert reader.ends_with_connection
    assert reader.body == b"hello"


def test_no_more_of_a_body_is_read_than_is_looked_at() -> None:
    reader = AnswerReader()
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    assert not reader.feed(b"x" * (MAX_BODY - 1))
    assert reader.feed(b"x")


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD,
    ],
    ids=["another protocol", "no status", "no chunk", "endless head"],
)
def test_what_is_no_http_is_found_out(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        AnswerReader().feed(raw)
