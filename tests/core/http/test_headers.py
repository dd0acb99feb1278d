"""What of a head passes, and what is written anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.http.headers import (
    HOP_BY_HOP,
    WRITABLE,
    WRITTEN,
    Forwarder,
    disguises,
    refuse_early,
    with_fewer_forwards,
)
from comfyproxy.core.http.http1 import RequestHead, parse_request_head, parse_response_head
from comfyproxy.core.http.trust import Trust

NOTHING: frozenset[bytes] = frozenset()
PEER = b"192.0.2.7"
FORWARDED = b'Forwarded: for=192.0.2.7;host="a.example";proto=http'
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
    trust = Trust(["192.0.2.0/24"]) if trusted else None
    return Forwarder(PEER, b"http", b"ours", trust).fields(head, drop).split(b"\r\n")[:-1]


def written(head: RequestHead, *kinds: str, trusted: bool = False, peer: bytes = PEER) -> list[bytes]:
    """The lines that reach the backend when these kinds of fields are written."""
    trust = Trust(["192.0.2.0/24"]) if trusted else None
    return Forwarder(peer, b"http", b"ours", trust, kinds).fields(head, NOTHING).split(b"\r\n")[:-1]


def client(head: RequestHead, *kinds: str, trusted: tuple[str, ...] = ("192.0.2.0/24",)) -> bytes:
    return Forwarder(PEER, b"http", b"ours", Trust(trusted), kinds or WRITTEN).client(head)


def forwarded_values(head: RequestHead, name: bytes, *, trusted: bool) -> list[bytes]:
    """The values of one field that reach the backend."""
    lines = b"\r\n".join(forwarded(head, trusted=trusted)).split(b"\r\n")
    pairs = [line.split(b": ", 1) for line in lines if b": " in line]
    return [value for field, value in pairs if field.lower() == name]


@pytest.mark.parametrize(("network", "trusted"), [("192.0.2.0/24", True), ("10.0.0.0/8", False)])
def test_a_proxy_is_trusted_by_its_network(network: str, trusted: bool) -> None:
    assert Forwarder(PEER, b"http", b"ours", Trust([network])).is_trusted is trusted
    assert not Forwarder(PEER, b"http", b"ours").is_trusted


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
        b"X-Real-IP: 203.0.113.6",
    ]


def test_trusted_proxy_that_says_nothing_is_spoken_for() -> None:
    assert forwarded(request(b"X-Forwarded-For:"), trusted=True) == [
        b"Via: 1.1 ours",
        b"X-Forwarded-For: 192.0.2.7",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: a.example",
        b"X-Real-IP: 192.0.2.7",
    ]


def test_real_ip_behind_trusted_proxies_is_the_first_that_is_not_one_of_them() -> None:
    head = request(b"X-Forwarded-For: 203.0.113.5 , 198.51.100.1, 192.0.2.9 ")
    assert forwarded_values(head, b"x-real-ip", trusted=True) == [b"198.51.100.1"]


def test_the_usual_fields_by_another_name_are_the_usual_fields() -> None:
    assert written(request(), *reversed(WRITTEN)) == OURS


@pytest.mark.parametrize(
    ("kinds", "lines"),
    [
        ([], [b"Via: 1.1 ours"]),
        (["x-real-ip"], [b"X-Real-IP: 192.0.2.7", b"Via: 1.1 ours"]),
        (
            ["x-forwarded"],
            [
                b"X-Forwarded-For: 192.0.2.7",
                b"X-Forwarded-Proto: http",
                b"Via: 1.1 ours",
                b"X-Forwarded-Host: a.example",
            ],
        ),
        (["forwarded"], [b"Via: 1.1 ours", FORWARDED]),
        (WRITABLE, [*OURS, b"X-Forwarded-Port: 80", FORWARDED]),
    ],
)
def test_a_backend_is_told_in_the_fields_that_are_asked_for(kinds: list[str], lines: list[bytes]) -> None:
    told = [
        b"X-Forwarded-For: 9.9.9.9",
        b"X-Forwarded-Port: 9",
        b"X-Real-IP: 9.9.9.9",
        b"Forwarded: for=9.9.9.9",
    ]
    assert written(request(*told), *kinds) == lines


@pytest.mark.parametrize(
    ("kinds", "lines"),
    [
        ([], [b"X-Forwarded-For: 203.0.113.5", b"X-Real-IP: 203.0.113.5", b"Forwarded: for=203.0.113.5"]),
        (
            ["forwarded"],
            [
                b"X-Forwarded-For: 203.0.113.5",
                b"X-Real-IP: 203.0.113.5",
                b"Forwarded: for=203.0.113.5",
                FORWARDED,
            ],
        ),
        (
            ["x-real-ip"],
            [b"X-Forwarded-For: 203.0.113.5", b"Forwarded: for=203.0.113.5", b"X-Real-IP: 203.0.113.5"],
        ),
    ],
)
def test_what_is_not_written_passes_from_a_trusted_proxy_as_it_came(
    kinds: list[str], lines: list[bytes]
) -> None:
    head = request(b"X-Forwarded-For: 203.0.113.5", b"X-Real-IP: 203.0.113.5", b"Forwarded: for=203.0.113.5")
    assert [line for line in written(head, *kinds, trusted=True) if b"Via" not in line] == lines


@pytest.mark.parametrize(
    ("host", "lines", "trusted", "port"),
    [
        (b"a.example", [], False, b"80"),
        (b"a.example:8080", [], False, b"8080"),
        (b"[2001:db8::1]", [], False, b"80"),
        (b"[2001:db8::1]:81", [], False, b"81"),
        (b"a.example", [b"X-Forwarded-Proto: https"], False, b"80"),
        (b"a.example", [b"X-Forwarded-Proto: https"], True, b"443"),
        (b"a.example:8080", [b"X-Forwarded-Host: b.example:444"], True, b"444"),
        (b"a.example", [b"X-Forwarded-Port: 4443"], True, b"4443"),
    ],
)
def test_the_port_is_the_one_that_the_client_asked_at(
    host: bytes, lines: list[bytes], trusted: bool, port: bytes
) -> None:
    found = written(request(*lines, host=b"Host: " + host), "x-forwarded-port", trusted=trusted)
    assert [line for line in found if b"-Port" in line] == [b"X-Forwarded-Port: " + port]


@pytest.mark.parametrize(
    ("peer", "host", "line"),
    [
        (b"2001:db8::7", b"a", b'Forwarded: for="[2001:db8::7]";host="a";proto=http'),
        (b"fe80::7%eth0", b"a", b'Forwarded: for="[fe80::7]";host="a";proto=http'),
        (b"unknown", b"[::1]:80", b'Forwarded: for=unknown;host="[::1]:80";proto=http'),
        (b"192.0.2.7", b"", b"Forwarded: for=192.0.2.7;proto=http"),
    ],
)
def test_forwarded_quotes_what_is_no_token(peer: bytes, host: bytes, line: bytes) -> None:
    assert written(request(host=b"Host: " + host), "forwarded", peer=peer)[-1] == line


@pytest.mark.parametrize(
    ("lines", "kinds", "found"),
    [
        ([], (), PEER),
        ([b"X-Forwarded-For: 203.0.113.5, 198.51.100.1"], (), b"198.51.100.1"),
        ([b"X-Forwarded-For: 203.0.113.5", b"X-Forwarded-For: 192.0.2.9"], (), b"203.0.113.5"),
        ([b"X-Real-IP: 203.0.113.5"], (), b"203.0.113.5"),
        ([b"X-Real-IP: 203.0.113.5", b"X-Forwarded-For: 198.51.100.1"], (), b"198.51.100.1"),
        ([b"Forwarded: for=203.0.113.5"], (), PEER),
        ([b"Forwarded: for=203.0.113.5"], ("forwarded",), b"203.0.113.5"),
        ([b"Forwarded: for=203.0.113.5"], ("forwarded", "x-forwarded"), PEER),
        ([b"X-Forwarded-For: 203.0.113.5"], ("forwarded",), PEER),
    ],
)
def test_the_client_is_whom_trusted_proxies_name(
    lines: list[bytes], kinds: tuple[str, ...], found: bytes
) -> None:
    assert client(request(*lines), *kinds) == found
    assert client(request(*lines), *kinds, trusted=("10.0.0.0/8",)) == PEER


def test_each_request_of_a_trusted_proxy_has_its_own_client() -> None:
    forwarder = Forwarder(PEER, b"http", b"ours", Trust(["192.0.2.7"]))
    heads = [request(b"X-Forwarded-For: 203.0.113.%d" % number) for number in (1, 2)]
    assert [forwarder.client(head) for head in (*heads, heads[1], heads[0])] == [
        b"203.0.113.1",
        b"203.0.113.2",
        b"203.0.113.2",
        b"203.0.113.1",
    ]


@pytest.mark.parametrize(
    ("told", "trusted", "scheme"),
    [
        (b"https", True, b"https"),
        (b"HTTPS , http", True, b"https"),
        (b"wss", True, b"http"),
        (b"https", False, b"http"),
    ],
)
def test_the_scheme_is_what_a_trusted_proxy_says(told: bytes, trusted: bool, scheme: bytes) -> None:
    trust = Trust(["192.0.2.7"]) if trusted else None
    forwarder = Forwarder(PEER, b"http", b"ours", trust)
    assert forwarder.scheme(request(b"X-Forwarded-Proto: " + told)) == scheme
    assert forwarder.scheme(request()) == b"http"


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
