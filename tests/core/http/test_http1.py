"""Heads and framing, against the corpus in tests/vectors and by rules that it cannot show."""

import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyproxy.core.http.chunked import CHUNKED
from comfyproxy.core.http.http1 import (
    MAX_LENGTH,
    UNTIL_CLOSE,
    RequestHead,
    ResponseHead,
    check_partial_head,
    is_valid_host,
    parse_length,
    parse_request_head,
    parse_response_head,
)
from comfyproxy.errors import BackendProtocolError, ProtocolError

VECTORS = Path(__file__).parents[2] / "vectors"
FOLDERS = ("requests/valid", "requests/invalid", "responses/valid", "responses/invalid")
BODIES = {"chunked": CHUNKED, "until close": UNTIL_CLOSE}

Expected = dict[str, Any]


def corpus(folder: str) -> list[Any]:
    """The cases of one folder as parameters: the octets and what is expected of them."""
    tables = tomllib.loads((VECTORS / folder / "expected.toml").read_text())
    return [
        pytest.param((VECTORS / folder / f"{name}.http").read_bytes(), expected, id=name)
        for name, expected in tables.items()
    ]


def ways_to_arrive(raw: bytes) -> Iterator[list[bytes]]:
    """``raw`` whole, byte by byte, and in two pieces."""
    yield [raw]
    yield [raw[at : at + 1] for at in range(len(raw))]
    # Behind the first 500 octets no file has anything but padding, and its end.
    for at in (*range(1, min(len(raw), 500)), *range(max(500, len(raw) - 50), len(raw))):
        yield [raw[:at], raw[at:]]


def octets(text: str) -> bytes:
    return text.encode("latin-1")


def check_head(head: Any, expected: Expected) -> None:
    fields = [line for name, line in head.fields]
    values = [(line.partition(b":")[0], line.partition(b":")[2].strip(b" \t")) for line in fields]
    if "fields" in expected:
        assert [b"=".join(pair) for pair in values if pair[0] != b"Host"] == list(
            map(octets, expected["fields"])
        )
    assert [name for name, line in head.fields] == [name.lower() for name, value in values]
    assert head.body == BODIES.get(expected["body"], expected["body"])
    assert head.close == expected["close"]
    assert head.upgrade == expected.get("upgrade", False)
    assert head.block.options == set(map(octets, expected.get("options", [])))


def check_body(message: Any, expected: Expected) -> None:
    assert message.payload == octets(expected.get("payload", ""))
    assert message.complete == expected.get("complete", True)
    assert message.rest == octets(expected.get("rest", ""))
    if message.head.body == CHUNKED and message.complete:
        trailers = b"".join(
            octets(field).replace(b"=", b": ", 1) + b"\r\n" for field in expected.get("trailers", [])
        )
        assert message.framed.replace(b":\r\n", b": \r\n").endswith(b"0\r\n" + trailers + b"\r\n")


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_the_corpus_has_its_expectation(folder: str) -> None:
    files = {path.stem for path in (VECTORS / folder).glob("*.http")}
    assert files == set(tomllib.loads((VECTORS / folder / "expected.toml").read_text()))


@pytest.mark.parametrize(("raw", "expected"), corpus("requests/valid"))
def test_valid_request_is_read_alike_however_it_arrives(
    read_request: Callable[[Iterable[bytes]], Any], raw: bytes, expected: Expected
) -> None:
    for pieces in ways_to_arrive(raw):
        message = read_request(pieces)
        head = message.head
        assert head.method == octets(expected["method"])
        assert head.target == octets(expected["target"])
        assert head.host == octets(expected["host"])
        assert head.expects_continue == expected.get("expects_continue", False)
        check_head(head, expected)
        check_body(message, expected)


@pytest.mark.parametrize(("raw", "expected"), corpus("requests/invalid"))
def test_invalid_request_is_refused_however_it_arrives(
    read_request: Callable[[Iterable[bytes]], Any], raw: bytes, expected: Expected
) -> None:
    for pieces in ways_to_arrive(raw):
        with pytest.raises(ProtocolError) as caught:
            read_request(pieces)
        assert caught.value.status == expected["status"]


@pytest.mark.parametrize(("raw", "expected"), corpus("responses/valid"))
def test_valid_response_is_read_alike_however_it_arrives(
    read_response: Callable[[Iterable[bytes], bytes], Any], raw: bytes, expected: Expected
) -> None:
    for pieces in ways_to_arrive(raw):
        message = read_response(pieces, octets(expected.get("request", "GET")))
        assert message.head.status == expected["status"]
        assert message.head.reason == octets(expected["reason"])
        check_head(message.head, expected)
        check_body(message, expected)


@pytest.mark.parametrize(("raw", "expected"), corpus("responses/invalid"))
def test_invalid_response_is_refused_however_it_arrives(
    read_response: Callable[[Iterable[bytes], bytes], Any], raw: bytes, expected: Expected
) -> None:
    for pieces in ways_to_arrive(raw):
        with pytest.raises((BackendProtocolError, ProtocolError)) as caught:
            read_response(pieces, octets(expected.get("request", "GET")))
        # What breaks behind the head is the chunked coding, which does not know whose body it reads.
        assert caught.value.status in (502, 400)
        assert caught.value.status == 502 or b"chunked" in raw


@pytest.mark.parametrize(("raw", "expected"), corpus("requests/valid"))
def test_partial_head_check_passes_every_beginning_of_a_valid_request(raw: bytes, expected: Expected) -> None:
    head = raw.removeprefix(b"\r\n").partition(b"\r\n\r\n")[0] + b"\r\n"
    for end in range(len(head) + 1):
        check_partial_head(head[:end])


def request(fields: bytes = b"", line: bytes = b"GET / HTTP/1.1") -> RequestHead:
    return parse_request_head(line + b"\r\nHost: a.example\r\n" + fields + b"\r\n")


def response(fields: bytes = b"", line: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> ResponseHead:
    return parse_response_head(line + b"\r\n" + fields + b"\r\n", method)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x16\x03\x01", "not an HTTP request"),
        (b" GET", "not an HTTP request"),
        (b"\r\nGET", "not an HTTP request"),
        (b"GET / HTTP/1.1\n", "does not end with CRLF"),
        (b"GET / HTTP/1.1\rH", "does not end with CRLF"),
    ],
)
def test_beginning_that_no_continuation_can_save_is_refused_at_once(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why) as caught:
        check_partial_head(data)
    assert caught.value.status == 400


@pytest.mark.parametrize("data", [b"", b"\r", b"\r\n", b"G", b"GET / HTTP/1.1\r"])
def test_beginning_of_a_head_may_go_on(data: bytes) -> None:
    check_partial_head(data)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"GET /\r\n\r\n", "The request line is malformed."),
        (b"GET / HTTP/2.0\r\n\r\n", "This server speaks HTTP/1.1 and HTTP/1.0 here."),
        (b"GET / HTTP/1.1\r\nA: 1\r\n b\r\n\r\n", "Header line 2 begins with a blank: folding is obsolete."),
        (b"GET / HTTP/1.1\r\nA: 1\r\nB : 2\r\n\r\n", "Header line 2 is malformed."),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", "A line of the request head does not end with CRLF."),
        (
            b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "The request target has characters that do not belong in it.",
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "The field Host is there more than once."),
        (b"GET / HTTP/1.1\r\n\r\n", "The request has no Host field."),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "The Host field is not a valid host."),
        (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", "The request target is not a path."),
        (b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", "The request target does not name a valid host."),
    ],
)
def test_refusal_says_what_is_wrong(raw: bytes, why: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_request_head(raw)
    assert str(caught.value) == why


def test_refused_answer_says_what_is_wrong_and_that_the_request_was_sent() -> None:
    with pytest.raises(BackendProtocolError) as caught:
        response(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")
    assert (
        str(caught.value) == "Its answer is malformed. It has both a Content-Length and a Transfer-Encoding."
    )
    assert caught.value.request_was_sent


@pytest.mark.parametrize("value", [b"0", b"007", b"%d" % MAX_LENGTH])
def test_length_is_a_number_of_digits(value: bytes) -> None:
    assert parse_length(value) == int(value)


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b"1 ", b"1_0", b"\xb2", b"%d" % (MAX_LENGTH + 1), b"0" * 20]
)
def test_what_is_no_length_is_refused(value: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_length(value)


@pytest.mark.parametrize(
    "value", [b"", b"a", b"a.example.:80", b"[::1]", b"[::ffff:127.0.0.1]:1", b"a%20b", b"a:"]
)
def test_host_and_port_are_a_valid_host(value: bytes) -> None:
    assert is_valid_host(value)


@pytest.mark.parametrize(
    "value", [b":", b":80", b"a:b", b"::1", b"[]", b"[::1", b"a/", b"a,b", b"a b", b"@a", b"a\n"]
)
def test_what_is_no_host_and_port_is_not(value: bytes) -> None:
    assert not is_valid_host(value)


def test_path_is_the_target_without_its_query() -> None:
    assert request(line=b"GET /a%2Fb?c?d HTTP/1.1").path == b"/a%2Fb"


def test_line_shows_the_request_as_understood() -> None:
    assert request(line=b"GET http://b.example/x HTTP/1.1").line == b"GET /x HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_repeating_an_idempotent_method_is_harmless(method: str) -> None:
    assert request(line=octets(f"{method} / HTTP/1.1")).is_idempotent


@pytest.mark.parametrize("method", ["POST", "PATCH", "get", "FROBNICATE"])
def test_repeating_other_methods_is_not(method: str) -> None:
    assert not request(line=octets(f"{method} / HTTP/1.1")).is_idempotent


def test_expectation_other_than_continue_is_none_that_is_waited_for() -> None:
    assert not request(b"Expect: 200-ok\r\n").expects_continue
    assert not request(b"Expect: 100-continue, x\r\n").expects_continue


def test_value_is_the_first_of_a_name_and_values_are_all() -> None:
    head = request(b"X-A: 1 \r\nX-B: 2\r\nx-a:\t3\r\n")
    assert head.value(b"x-a") == b"1"
    assert head.value(b"x-c") is None
    assert head.values(b"x-a") == [b"1", b"3"]
    assert head.values(b"x-c") == []


def test_notable_repeats_are_joined_cookies_as_cookies_are() -> None:
    head = request(b"Via: 1.0 a\r\nvia: 1.1 b\r\nCookie: a=1\r\nCookie: b=2; c=3\r\nX-A: 1\r\n")
    assert head.notable == {b"host": b"a.example", b"via": b"1.0 a,1.1 b", b"cookie": b"a=1; b=2; c=3"}


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X.A", "a~b"])
def test_field_names_that_cgi_confuses_are_marked(name: str) -> None:
    assert request(octets(f"{name}: 1\r\n")).block.has_odd_names


def test_underscores_in_values_and_the_target_mark_nothing() -> None:
    assert not request(b"Cookie: _ga=1\r\nX-A: b_c\r\n", line=b"M_ /a_b HTTP/1.1").block.has_odd_names


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_have_no_body_have_none_whatever_their_fields_say(status: int) -> None:
    line = octets(f"HTTP/1.1 {status} x")
    assert response(b"Content-Length: 5\r\n", line).body == 0
    assert response(b"Transfer-Encoding: chunked\r\n", line).body == 0
    assert response(b"", line).body == 0


def test_same_small_head_is_parsed_once_and_an_answer_once_for_each_method() -> None:
    assert request(b"X-Once: 1\r\n") is request(b"X-Once: 1\r\n")
    assert request(b"X-Once: 1\r\n", line=b"PUT / HTTP/1.1") is not request(b"X-Once: 1\r\n")
    fields = b"Content-Length: 5\r\n"
    assert response(fields) is response(fields)
    assert (response(fields).body, response(fields, method=b"HEAD").body) == (5, 0)


def test_large_head_is_parsed_each_time() -> None:
    fields = b"X-Large: " + b"x" * 4096 + b"\r\n"
    assert request(fields) is not request(fields)
    assert response(fields) is not response(fields)


def test_refused_head_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ProtocolError):
            request(b"Host: b.example\r\n")
        with pytest.raises(BackendProtocolError):
            response(b"Content-Length: x\r\n")


@pytest.mark.parametrize("tail", [b"", b": 1", b"\x00\r\n\r\n", b"\r\n\r"])
def test_long_heads_are_read_and_refused_in_linear_time(tail: bytes) -> None:
    # Were any part of it quadratic, these would take minutes and run into the time limit of a test.
    for long in (b"a" * 500_000, b" " * 500_000, b"a: b\r\n" * 80_000, b"a:" * 250_000, b"a\r\n" * 160_000):
        with pytest.raises(ProtocolError):
            parse_request_head(b"GET / HTTP/1.1\r\n" + long + tail)
        with pytest.raises(BackendProtocolError):
            parse_response_head(b"HTTP/1.1 200 " + long + tail, b"GET")
