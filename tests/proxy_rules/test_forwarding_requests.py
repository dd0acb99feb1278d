"""Rules 12 to 17: what of a request reaches a backend, and how often."""

import pytest

from comfyproxy.core.config import Timeouts
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

OURS = [b"host", b"x-forwarded-for", b"x-real-ip", b"x-forwarded-proto", b"via", b"x-forwarded-host"]
"""What is in every request that is passed on."""


def get(*fields: bytes, target: bytes = b"/", method: bytes = b"GET") -> bytes:
    return b"\r\n".join((method + b" " + target + b" HTTP/1.1", b"Host: a.example", *fields, b"", b""))


def passed(rig, *fields: bytes) -> list[bytes]:
    """The names of what passes of ``fields``, ours left out."""
    rig.ask(get(*fields))
    return [name for name in rig.request().names if name not in OURS]


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: close",
        b"Connection: keep-alive",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: Basic eA==",
        b"TE: gzip",
        b"Upgrade: foo/2",
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        b"CONNECTION: close",
        b"keep-ALIVE: 300",
    ],
)
def test_rule_12_hop_by_hop_fields_end_here(rig, field):
    assert passed(rig, b"A: 1", field, b"B: 2") == [b"a", b"b"]


@pytest.mark.parametrize(
    "connection",
    [
        [b"Connection: X-Hop, X-Other"],
        [b"Connection: x-hop", b"Connection: close,X-OTHER"],
        [b"connection: , ,X-Hop ,\t x-other,"],
    ],
)
def test_rule_12_what_connection_names_ends_here(rig, connection):
    assert passed(rig, b"X-Hop: 1", *connection, b"X-Other: 2", b"X-Hop: 3", b"Stays: 1") == [b"stays"]


@pytest.mark.parametrize(
    "field",
    [
        b"Authorization: Bearer x",
        b"Cookie: a=b",
        b"Content-Type: text/plain",
        b"Cache-Control: no-cache",
        b"Origin: http://a.example",
        b"X-Request-ID: 7",
        b"Expect: 100-continue",
    ],
)
def test_rule_12_connection_cannot_name_away_what_is_for_everybody(rig, field):
    name = field.partition(b":")[0]
    assert passed(rig, field, b"Connection: " + name) == [name.lower()]


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"X-Real-IP", b"Via", b"X-Forwarded-Proto", b"Host"])
def test_rule_12_connection_cannot_name_away_what_we_write(rig, name):
    rig.ask(get(b"Connection: close, " + name))
    assert name.lower() in rig.request().names


@pytest.mark.parametrize("framing", [b"Content-Length", b"Transfer-Encoding"])
def test_rule_12_connection_cannot_name_away_the_framing(make_rig, framing):
    rig = make_rig(ScriptedBackend())
    body = {
        b"Content-Length": b"4\r\n\r\nbody",
        b"Transfer-Encoding": b"chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    }
    rig.ask(
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: " + framing + b"\r\n" + framing + b": " + body[framing]
    )
    assert rig.request().body == b"body"
    rig.backend.connections[0].send(OK)
    rig.network.run()


def test_rule_12_te_trailers_is_said_anew(rig):
    rig.ask(get(b"Connection: TE", b"TE: trailers, deflate;q=0.5"))
    request = rig.request()
    assert request.value(b"te") == b"trailers"
    assert request.value(b"connection") == b"TE"


def test_rule_13_order_case_and_repeats_survive(rig):
    given = [
        b"x-lower: 1",
        b"X-UPPER: 2",
        b"Cookie: a=1",
        b"X-Repeated: one",
        b"Accept: */*",
        b"X-Repeated: two",
        b"Cookie: b=2",
        b"x-repeated: THREE",
        b"X-Empty:",
        b"X-Octets: \xe4\xff",
        b'X-Quoted: "a,b"; c=\t d',
        b"Range: bytes=0-1",
        b'If-None-Match: "x"',
        b"Trailer: X-Sum",
    ]
    rig.ask(get(*given))
    (raw,) = rig.backend.requests
    lines = raw.split(b"\r\n")
    ours = {b"Host", b"X-Forwarded-For", b"X-Real-IP", b"X-Forwarded-Proto", b"Via", b"X-Forwarded-Host"}
    assert [line for line in lines[1:-2] if line.partition(b":")[0] not in ours] == given


@pytest.mark.parametrize(
    "target",
    [
        b"/a/../b/./c",
        b"/%2e%2e/%2F%00%zz",
        b"//double//slash",
        b"/?",
        b"/?a=b&a=%26;c",
        b"/view?filename=a%20b.png&subfolder=../x",
        b'/a|b^c`d{e}"<f>\\g',
        b"/" + b"x" * 8000,
        b"/a:b@c",
        b"/http://inside",
    ],
)
def test_rule_13_the_target_passes_octet_by_octet(rig, target):
    rig.ask(get(target=target))
    assert rig.backend.requests[0].startswith(b"GET " + target + b" HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("target", "passed_on", "host"),
    [
        (b"http://b.example/x?y", b"/x?y", b"b.example"),
        (b"HTTP://b.example:81", b"/", b"b.example:81"),
        (b"https://b.example?q", b"/?q", b"b.example"),
    ],
)
def test_rule_07_an_absolute_target_wins_over_the_host_field(rig, target, passed_on, host):
    rig.ask(get(target=target))
    request = rig.request()
    assert request.start == b"GET " + passed_on
    assert request.value(b"host") == request.value(b"x-forwarded-host") == host


def test_rule_07_a_backend_may_be_addressed_by_its_own_name(make_rig):
    rig = make_rig(keep_host=False)
    rig.ask(get())
    assert rig.request().value(b"host") == b"10.0.0.1:8188"
    assert rig.request().value(b"x-forwarded-host") == b"a.example"


SPOOFED = (
    b"X-Forwarded-For: 9.9.9.9",
    b"X-Real-IP: 9.9.9.9",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: evil.example",
    b"X-Forwarded-Port: 1",
    b"X-Forwarded-Server: evil",
    b"X-Forwarded-Prefix: /evil",
    b"X-Forwarded-SSL: on",
    b"Forwarded: for=9.9.9.9",
)


def test_rule_14_what_a_stranger_says_of_itself_is_replaced(rig):
    rig.ask(get(*SPOOFED))
    request = rig.request()
    assert request.names == OURS
    assert [request.value(name) for name in OURS if name != b"via"] == [
        b"a.example",
        b"192.0.2.1",
        b"192.0.2.1",
        b"http",
        b"a.example",
    ]


@pytest.mark.parametrize("trusted", ["192.0.2.1", "192.0.2.0/24", "0.0.0.0/0"])
def test_rule_14_what_a_trusted_proxy_says_is_extended(make_rig, trusted):
    rig = make_rig(trusted=("2001:db8::/32", trusted))
    rig.ask(
        get(
            b"X-Forwarded-For: 203.0.113.9, 198.51.100.2",
            b"X-Forwarded-For: 198.51.100.3",
            b"X-Real-IP: 203.0.113.9",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: outside.example",
        )
    )
    request = rig.request()
    assert request.value(b"x-forwarded-for") == b"203.0.113.9, 198.51.100.2, 198.51.100.3, 192.0.2.1"
    # The farthest, where everybody is trusted.
    assert request.value(b"x-real-ip") == (b"203.0.113.9" if trusted == "0.0.0.0/0" else b"198.51.100.3")
    assert request.value(b"x-forwarded-proto") == b"https"
    assert request.value(b"x-forwarded-host") == b"outside.example"


def test_rule_14_trust_ends_at_the_networks_edge(make_rig):
    rig = make_rig(trusted=("192.0.2.0/24",))
    rig.ask(get(*SPOOFED), client=rig.client("192.0.3.1"))
    assert rig.request().value(b"x-forwarded-for") == b"192.0.3.1"


def test_rule_14_what_a_trusted_proxy_does_not_say_is_said_for_it(make_rig):
    rig = make_rig(trusted=("192.0.2.1",))
    rig.ask(get())
    request = rig.request()
    assert sorted(request.names) == sorted(OURS)
    assert request.value(b"x-forwarded-for") == request.value(b"x-real-ip") == b"192.0.2.1"


@pytest.mark.parametrize(("version", "via"), [(b"1.1", b"1.1 "), (b"1.0", b"1.0 ")])
def test_rule_14_via_is_extended_by_one(rig, version, via):
    rig.ask(get(b"Via: 1.1 first").replace(b"HTTP/1.1", b"HTTP/" + version))
    first, ours = rig.request().values(b"via")
    assert first == b"1.1 first"
    assert ours == via + rig.proxy.name


def test_rule_14_two_proxies_have_different_names(make_rig):
    assert make_rig().proxy.name != make_rig().proxy.name


def test_rule_14_a_request_that_comes_round_again_is_508(rig):
    rig.ask(get())
    via = rig.request().value(b"via")
    client = rig.ask(get(b"Via: 1.0 other, " + via + b", 1.1 another"))
    assert rig.answer(client).status == 508
    assert len(rig.backend.requests) == 1


@pytest.mark.parametrize(
    "field",
    [
        b"X_Forwarded_For: 9.9.9.9",
        b"x_forwarded-for: 9.9.9.9",
        b"X_Real_IP: 9.9.9.9",
        b"X-Forwarded_Proto: https",
        b"Content_Length: 5",
        b"Transfer_Encoding: chunked",
        b"X.Forwarded.For: 9.9.9.9",
    ],
)
def test_rule_15_no_other_spelling_of_ours_passes(rig, field):
    disguised = field.partition(b":")[0].lower().replace(b"_", b"-").replace(b".", b"-")
    rig.ask(get(field, b"X_Mine: stays"))
    names = [name.replace(b"_", b"-").replace(b".", b"-") for name in rig.request().names]
    assert names.count(disguised) == (disguised in OURS)
    assert rig.request().value(b"x_mine") == b"stays"


def test_rule_16_connections_to_backends_are_reused_by_all_clients(rig):
    for _ in range(5):
        assert rig.answer(rig.ask(get())).status == 200
    assert len(rig.backend.connections) == 1
    assert [request.value(b"connection") for request in rig.requests()] == [None] * 5


def test_rule_16_a_client_that_closes_does_not_close_the_backends_connection(rig):
    client = rig.ask(get(b"Connection: close"))
    assert (rig.answer(client).value(b"connection"), client.ended) == (b"close", "closed")
    rig.ask(get())
    assert len(rig.backend.connections) == 1


def test_rule_16_at_the_same_time_takes_as_many_connections(make_rig):
    rig = make_rig(ScriptedBackend())
    clients = [rig.ask(get()) for _ in range(3)]
    assert len(rig.backend.connections) == 3
    for connection in rig.backend.connections:
        connection.send(OK)
    rig.network.run()
    assert [rig.answer(client).status for client in clients] == [200] * 3


@pytest.mark.parametrize("piece", [0, 1])
def test_rule_16_a_body_keeps_its_length(make_rig, piece):
    rig = make_rig(ScriptedBackend([Step(after=b"hello", send=OK)]))
    client = rig.ask(get(b"Content-Length: 5", method=b"POST") + b"hello", piece)
    assert rig.answer(client).status == 200
    request = rig.request()
    assert (request.values(b"content-length"), request.body) == ([b"5"], b"hello")
    assert request.values(b"transfer-encoding") == []


@pytest.mark.parametrize("piece", [0, 1])
def test_rule_16_a_body_keeps_its_chunks_and_trailers_and_loses_extensions(make_rig, piece):
    rig = make_rig(ScriptedBackend([Step(after=b"\r\n\r\n"), Step(after=b"\r\n\r\n", send=OK)]))
    chunks = b"3;a=b\r\nhel\r\n02\r\nlo\r\n0\r\nX-Sum: 5\r\nX-Sum: 6\r\n\r\n"
    client = rig.ask(get(b"Transfer-Encoding: chunked", b"Trailer: X-Sum", method=b"POST") + chunks, piece)
    assert rig.answer(client).status == 200
    request = rig.request()
    assert (request.body, request.values(b"transfer-encoding")) == (b"hello", [b"chunked"])
    assert request.trailers == ((b"X-Sum", b"5"), (b"X-Sum", b"6"))
    assert b";a=b" not in b"".join(rig.backend.requests)
    assert b"3\r\nhel\r\n2\r\nlo\r\n" in b"".join(rig.backend.requests)


def test_rule_16_a_client_of_1_0_without_length_has_no_body(rig):
    client = rig.ask(b"POST / HTTP/1.0\r\nHost: a\r\n\r\nnot a body")
    assert rig.answer(client).status == 200
    assert (rig.request().body, rig.request().start) == (b"", b"POST /")


def test_rule_16_an_idle_connection_is_kept_for_as_long_as_the_timeout_says(make_rig):
    rig = make_rig(timeouts=Timeouts(backend_keepalive=55))
    rig.ask(get())
    rig.advance(54)
    assert len(rig.backend.open_connections) == 1
    rig.advance(2)
    assert rig.backend.open_connections == []
    assert rig.answer(rig.ask(get())).status == 200


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"OPTIONS"])
def test_rule_17_a_reused_connection_that_dies_is_replaced_once(make_rig, method, end):
    rig = make_rig(ScriptedBackend([Step(send=OK), Step(end=end)], [Step(send=OK)]))
    client = rig.ask(get())
    client.take()
    rig.ask(get(method=method), client=client)
    assert rig.answer(client).status == 200
    assert len(rig.backend.connections) == 2


def test_rule_17_a_backend_that_goes_on_dying_is_not_asked_for_ever(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=OK), Step(end="close")], [Step(end="close")]))
    rig.ask(get())
    client = rig.ask(get())
    assert rig.answer(client).status == 502
    assert len(rig.backend.connections) == 2


@pytest.mark.parametrize("length", [b"0", b"4"])
def test_rule_17_a_post_that_was_sent_is_not_sent_again(make_rig, length):
    rig = make_rig(ScriptedBackend([Step(send=OK), Step(end="close")], [Step(send=OK)]))
    rig.ask(get())
    client = rig.ask(get(b"Content-Length: " + length, method=b"POST") + b"body"[: int(length)])
    assert rig.answer(client).status == 502
    assert len(rig.backend.connections) == 1


def test_rule_17_a_connection_that_the_backend_closed_while_idle_is_not_used(make_rig):
    backend = ScriptedBackend([Step(send=OK)])
    rig = make_rig(backend)
    rig.ask(get())
    backend.connections[0].close()
    rig.network.run()
    client = rig.ask(get(b"Content-Length: 4", method=b"POST") + b"body")
    assert rig.answer(client).status == 200
    assert len(backend.connections) == 2


def test_rule_17_half_an_answer_is_never_asked_for_again(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=OK), Step(send=b"HTTP/1.1 2", end="close")], [Step(send=OK)]))
    rig.ask(get())
    client = rig.ask(get())
    assert rig.answer(client).status == 502
    assert len(rig.backend.connections) == 1
