"""What of a head passes, and what is written anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.headers import (
    HOP_BY_HOP,
    Forwarder,
    disguises,
    refuse_early,
    with_fewer_forwards,
)
from comfyproxy.core.http1 import RequestHead, parse_request_head, parse_response_head

NOTHING: frozenset[bytes] = frozenset()
OURS = [
    b"X-Forwarded-For: 192.0.2.7",
    b"X-Real-IP: 192.0.2.7",
    b"X-Forwarded-Proto: http",
    b"Via: 1.1 ours",
    b"X-Forwarded-Host: a.example",
]


def request(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a.example") -> RequestHead:
    return parse_request_head(b"\r\n".join([start, host, *lines, b"", b""]))


def forwarded(head: RequestHead, *, trusted: bool = False, drop: frozenset[bytes] = NOTHING) -> list[bytes]:
    return Forwarder(b"192.0.2.7", b"http", b"ours", trusted).fields(head, drop).split(b"\r\n")[:-1]


def forwarded_values(head: RequestHead, name: bytes, *, trusted: bool) -> list[bytes]:
    """The values of one field that reach the backend."""
    lines = b"\r\n".join(forwarded(head, trusted=trusted)).split(b"\r\n")
    pairs = [line.split(b": ", 1) for line in lines if b": " in line]
    return [value for field, value in pairs if field.lower() == name]


def test_order_case_and_repeats_of_what_passes_survive() -> None:
    lines = [b"x-B: 1", b"X-a:2", b"Cookie: a=1", b"X-b:\t3 ", b"cookie: b=2", b"ACCEPT: */*", b"x-B: 1"]
    assert forwarded(request(*lines)) == [*lines, *OURS]


@given(st.lists(st.sampled_from([b"A: 1", b"a: 2", b"B:", b"X-C: \xe9", b"Via: 1.0 x", b"Accept: a, b"])))
def test_lines_that_nothing_is_wrong_with_pass_byte_for_byte(lines: list[bytes]) -> None:
    assert forwarded(request(*lines)) == [*lines, *OURS]


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: keep-alive",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: close",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: Basic eDp5",
        b"TE: trailers",
        b"Transfer-Encoding: chunked",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQ",
    ],
)
def test_hop_by_hop_fields_do_not_pass(line: bytes) -> None:
    assert forwarded(request(line, b"X-A: 1")) == [b"X-A: 1", *OURS]
    answer = parse_response_head(b"HTTP/1.1 200 OK\r\n" + line + b"\r\nX-A: 1\r\n\r\n", b"GET")
    assert answer.block.passing(HOP_BY_HOP) == b"X-A: 1\r\n"


def test_fields_that_connection_names_do_not_pass() -> None:
    lines = [b"X-Hop: 1", b"x-hop: 2", b"X-A: 1", b"Connection: X-HOP , Other", b"OTHER: 3"]
    assert forwarded(request(*lines)) == [b"X-A: 1", *OURS]


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 0",
        b"Content-Type: text/plain",
        b"Cookie: a=1",
        b"Authorization: Basic eDp5",
        b"Expect: 100-continue",
        b"Origin: http://a.example",
        b"Cache-Control: no-store",
        b"Max-Forwards: 5",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ],
)
def test_end_to_end_fields_pass_though_connection_names_them(line: bytes) -> None:
    name = line.partition(b":")[0]
    assert forwarded(request(b"Connection: close, " + name, line)) == [line, *OURS]


def test_fields_that_say_who_asked_pass_for_nobody_by_way_of_connection() -> None:
    head = request(b"Connection: X-Forwarded-For, Via, X-Real-IP, X-Forwarded-Host, X-Forwarded-Proto, Host")
    assert forwarded(head) == OURS


@pytest.mark.parametrize(
    "line",
    [
        b"X-Forwarded-For: 9.9.9.9",
        b"x-forwarded-for: 9.9.9.9, 8.8.8.8",
        b"X-Forwarded-Host: b.example",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Port: 443",
        b"X-Forwarded-Prefix: /x",
        b"X-Forwarded-Scheme: https",
        b"X-Real-IP: 9.9.9.9",
        b"Forwarded: for=9.9.9.9",
    ],
)
def test_what_an_untrusted_client_says_about_itself_is_replaced(line: bytes) -> None:
    assert forwarded(request(line, line)) == OURS


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        b"X_Forwarded_For",
        b"x-forwarded_for",
        b"X.Forwarded.For",
        b"X_Real_IP",
        b"Transfer_Encoding",
        b"Content_Length",
        b"content!length",
        b"Content_Type",
        b"Proxy_Authorization",
    ],
)
def test_what_cgi_would_take_for_one_of_ours_does_not_pass(name: bytes, trusted: bool) -> None:
    head = request(b"X-A: 1", name + b": 9")
    assert forwarded(head, trusted=trusted) == forwarded(request(b"X-A: 1"), trusted=trusted)


def test_other_fields_with_odd_names_pass() -> None:
    lines = [b"X_Custom: 1", b"comfy_user: 2", b"a~b: 3", b"Via: 1.0 x"]
    assert forwarded(request(*lines)) == [*lines, *OURS]
    assert disguises(request(*lines, b"CONTENT.LENGTH: 5", b"Content-Length: 0").fields) == {
        b"content.length"
    }


def test_an_odd_name_costs_only_its_own_field() -> None:
    lines = [b"X_Forwarded_For: 9", b"Content-Length: 0", b"Cookie: a=1", b"Via: 1.0 x"]
    assert forwarded(request(*lines)) == [*lines[1:], *OURS]


def test_more_fields_can_be_cut() -> None:
    head = request(b"Comfy-User: x", b"X-A: 1", b"X_Real_IP: 9", b"Connection: b", b"B: 2")
    assert forwarded(head, drop=frozenset((b"comfy-user",))) == [b"X-A: 1", *OURS]


def test_via_says_the_version_that_the_client_spoke() -> None:
    head = request(b"Via: 1.0 before", start=b"GET / HTTP/1.0")
    assert forwarded_values(head, b"via", trusted=False) == [b"1.0 before", b"1.0 ours"]
    assert forwarded_values(request(b"Via: 1.0 before"), b"via", trusted=True) == [b"1.0 before", b"1.1 ours"]


def test_host_that_is_not_known_is_not_forwarded() -> None:
    head = parse_request_head(b"GET / HTTP/1.0\r\n\r\n")
    for trusted in (False, True):
        assert forwarded_values(head, b"x-forwarded-host", trusted=trusted) == []


def test_host_of_an_absolute_target_is_the_one_that_is_forwarded() -> None:
    head = request(start=b"GET http://b.example/ HTTP/1.1")
    assert forwarded_values(head, b"x-forwarded-host", trusted=False) == [b"b.example"]


def test_trusted_proxy_is_extended() -> None:
    head = request(
        b"X-Forwarded-For: 198.51.100.1",
        b"X-A: 1",
        b"x-forwarded-for: 203.0.113.5, 203.0.113.6",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: public.example",
        b"X-Real-IP: 198.51.100.1",
        b"Forwarded: for=198.51.100.1",
    )
    assert forwarded(head, trusted=True) == [
        b"X-A: 1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: public.example",
        b"Forwarded: for=198.51.100.1",
        b"Via: 1.1 ours",
        b"X-Forwarded-For: 198.51.100.1, 203.0.113.5, 203.0.113.6, 192.0.2.7",
        b"X-Real-IP: 198.51.100.1",
    ]


def test_trusted_proxy_that_says_nothing_is_spoken_for() -> None:
    assert forwarded(request(b"X-Forwarded-For:"), trusted=True) == [
        b"Via: 1.1 ours",
        b"X-Forwarded-For: 192.0.2.7",
        b"X-Real-IP: 192.0.2.7",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: a.example",
    ]


def test_real_ip_behind_a_trusted_proxy_is_whom_that_proxy_saw() -> None:
    head = request(b"X-Forwarded-For: 203.0.113.5 , 198.51.100.1 ")
    assert forwarded_values(head, b"x-real-ip", trusted=True) == [b"198.51.100.1"]


def test_answer_keeps_its_fields_underscores_and_repeats() -> None:
    lines = [b"Set-Cookie: a=1", b"set-cookie: b=2", b"X_Forwarded_For: 1", b"Server: x", b"Set-Cookie: a=1"]
    raw = b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Connection: X-Hop, Set-Cookie", b"X-Hop: 1", b"", b""])
    assert parse_response_head(raw, b"GET").block.passing(HOP_BY_HOP).split(b"\r\n")[:-1] == lines


@pytest.mark.parametrize(
    ("start", "lines", "status"),
    [
        (b"GET / HTTP/1.1", [], None),
        (b"TRACE / HTTP/1.1", [], 405),
        (b"TRACE / HTTP/1.1", [b"Max-Forwards: 3"], 405),
        (b"GET / HTTP/1.1", [b"Via: 1.1 theirs, 1.0 other"], None),
        (b"GET / HTTP/1.1", [b"Via: 1.1 ours"], 508),
        (b"GET / HTTP/1.1", [b"Via: 1.0 a", b"Via: 1.1 b, 1.1 ours (x)"], 508),
        (b"PUT / HTTP/1.1", [b"Expect: 100-continue"], None),
        (b"PUT / HTTP/1.1", [b"Expect: 200-ok"], 417),
        (b"PUT / HTTP/1.1", [b"Expect:"], 417),
        (b"PUT / HTTP/1.0", [b"Expect: 200-ok"], None),
        (b"OPTIONS * HTTP/1.1", [], None),
        (b"OPTIONS * HTTP/1.1", [b"Max-Forwards: 0"], 200),
        (b"OPTIONS / HTTP/1.1", [b"Max-Forwards: 00"], 200),
        (b"OPTIONS / HTTP/1.1", [b"Max-Forwards: 10"], None),
        (b"OPTIONS / HTTP/1.1", [b"Max-Forwards:"], None),
        (b"OPTIONS / HTTP/1.1", [b"Max-Forwards: x"], None),
        (b"GET / HTTP/1.1", [b"Max-Forwards: 0"], None),
    ],
)
def test_requests_that_no_backend_should_see(start: bytes, lines: list[bytes], status: int | None) -> None:
    refusal = refuse_early(request(*lines, start=start), b"ours")
    assert (refusal and refusal[0]) == status


@pytest.mark.parametrize(
    ("line", "fewer"),
    [
        (b"Max-Forwards: 10", b"Max-Forwards: 9"),
        (b"max-forwards:\t1 ", b"Max-Forwards: 0"),
        (b"Max-Forwards: 007", b"Max-Forwards: 6"),
        (b"Max-Forwards: x", b"Max-Forwards: x"),
        (b"Max-Forwards: -1", b"Max-Forwards: -1"),
        (b"X-A: 1", b"X-A: 1"),
    ],
)
def test_max_forwards_goes_down_by_one(line: bytes, fewer: bytes) -> None:
    assert with_fewer_forwards(b"A: 1\r\n%b\r\n" % line) == b"A: 1\r\n%b\r\n" % fewer
