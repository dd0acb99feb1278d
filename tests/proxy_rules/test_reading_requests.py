"""Rules 1 to 11: what is read from a client, and what is refused."""

import pytest

from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def get(*fields: bytes, target: bytes = b"/") -> bytes:
    return b"\r\n".join((b"GET " + target + b" HTTP/1.1", b"Host: a.example", *fields, b"", b""))


def post(body: bytes, *fields: bytes) -> bytes:
    head = (b"POST / HTTP/1.1", b"Host: a.example", b"Content-Length: %d" % len(body))
    return b"\r\n".join((*head, *fields, b"", body))


LIMITS = Limits(line=200, head=300, fields=10, body=1000)


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(get(target=b"/" + b"x" * 190), 414, id="request line"),
        pytest.param(get(b"X: " + b"x" * 300), 431, id="one field"),
        pytest.param(get(*[b"X: " + b"x" * 60] * 5), 431, id="all fields together"),
        pytest.param(get(*[b"X: 1"] * 10), 431, id="number of fields"),
        pytest.param(post(b"x" * 1001), 413, id="length"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n0\r\n\r\n",
            413,
            id="chunks",
        ),
    ],
)
def test_rule_08_too_much_is_refused_with_its_own_status(make_rig, request_, status, piece):
    rig = make_rig(ScriptedBackend(), limits=LIMITS)
    client = rig.ask(request_, piece)
    answer = rig.answer(client)
    assert answer.status == status
    assert answer.value(b"connection") == b"close"
    assert client.transport.line.outgoing.dropped == 0
    assert [request for request in rig.requests() if request.complete] == []


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(get(target=b"/" + b"x" * (200 - len("GET / HTTP/1.1"))), id="request line"),
        pytest.param(get(b"X: " + b"x" * (300 - len("\r\nHost: a.example\r\nX: \r\n\r\n"))), id="fields"),
        pytest.param(get(*[b"X: 1"] * 9), id="number of fields"),
        pytest.param(post(b"x" * 1000), id="body"),
    ],
)
def test_rule_08_as_much_as_the_limits_say_passes(make_rig, request_):
    assert rig_answers(make_rig, request_) == 200


def rig_answers(make_rig, request_: bytes) -> int:
    rig = make_rig(limits=LIMITS)
    return rig.answer(rig.ask(request_)).status


def test_rule_08_a_body_too_large_by_its_length_is_refused_before_it_is_sent(make_rig):
    rig = make_rig(limits=LIMITS)
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
    assert rig.answer(client).status == 413
    assert rig.backend.requests == []


def test_rule_08_a_limit_of_zero_on_bodies_is_no_limit(make_rig):
    rig = make_rig(ScriptedBackend([Step(after=b"end", send=OK)]), limits=Limits(body=0))
    client = rig.ask(post(b"x" * 3_000_000 + b"end"))
    assert rig.answer(client).status == 200
    assert len(rig.request().body) == 3_000_003


@pytest.mark.parametrize("beginning", [b"G", b"GET / HTTP/1.1\r\nHost: a", b"\r\n"])
def test_rule_08_a_head_that_does_not_come_to_an_end_is_408(make_rig, beginning):
    rig = make_rig(timeouts=Timeouts(head=30))
    client = rig.ask(beginning)
    rig.advance(29)
    assert client.received == b""
    rig.advance(2)
    assert rig.answer(client).status == 408
    assert client.is_gone


def test_rule_08_a_head_that_trickles_in_has_no_more_time(make_rig):
    rig = make_rig(timeouts=Timeouts(head=30))
    client = rig.client()
    for octet in GET[:-1]:
        client.send(bytes((octet,)))
        rig.advance(1)
    assert rig.answer(client).status == 408


def test_rule_08_a_body_that_stops_coming_is_408_and_ends_at_the_backend(make_rig):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(body=60), limits=Limits(min_rate=0))
    client = rig.ask(post(b"x" * 100)[:-50])
    rig.advance(59)
    client.send(b"x")
    rig.advance(59)
    assert client.received == b""
    rig.advance(2)
    assert rig.answer(client).status == 408
    assert not rig.requests()[0].complete
    assert rig.backend.open_connections == []


def test_rule_08_a_connection_that_says_nothing_is_closed_without_a_word(make_rig):
    rig = make_rig(timeouts=Timeouts(head=30, keepalive=75))
    silent = rig.client()
    idle = rig.ask(GET)
    idle.take()
    rig.advance(31)
    assert (silent.received, silent.ended) == (b"", "closed")
    assert idle.ended == ""
    rig.advance(46)
    assert (idle.received, idle.ended) == (b"", "closed")


def test_rule_09_pipelined_requests_are_answered_in_order(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(b"".join(get(target=b"/%d" % number) for number in range(3)))
    for number in range(3):
        assert len(rig.requests()) == number + 1
        assert rig.requests()[-1].start == b"GET /%d" % number
        backend = rig.backend.connections[-1]
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        rig.network.run()
    assert [answer.body for answer in rig.answers(client, "GET", "GET", "GET")] == [b"0", b"1", b"2"]
    assert len(rig.backend.connections) == 1


def test_rule_09_a_thousand_requests_in_one_write_are_answered_in_order(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=OK)]))
    count = 1000
    client = rig.ask(b"".join(get(target=b"/%d" % number) for number in range(count)))
    assert len(rig.answers(client, *["GET"] * count)) == count
    assert [request.start for request in rig.requests()] == [b"GET /%d" % number for number in range(count)]
    assert len(rig.backend.connections) == 1


def test_rule_09_a_thousand_requests_that_we_answer_ourselves_do_not_recurse(make_rig):
    rig = make_rig()
    count = 1000
    client = rig.ask(get(b"Expect: something", target=b"/x") * count)
    answers = rig.answers(client, *["GET"] * count)
    assert {answer.status for answer in answers} == {417}
    assert len(answers) == count
    assert rig.backend.requests == []


def test_rule_09_what_is_read_ahead_is_bounded(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(GET * 100_000)
    assert len(rig.requests()) == 1
    # One read is 64 KiB, and what is held is looked at after each.
    assert 60 * 1024 < rig.held <= 2 * 64 * 1024
    client.reset()
    rig.network.run()
    rig.backend.connections[0].send(OK)
    rig.network.run()


def test_rule_09_the_body_of_one_request_is_not_taken_for_the_next(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=OK)]))
    inner = get(target=b"/inner")
    client = rig.ask(post(inner) + get(target=b"/after"))
    assert [answer.status for answer in rig.answers(client, "POST", "GET")] == [200, 200]
    assert next((one.start, one.body) for one in rig.requests()) == (b"POST /", inner)
    assert rig.requests()[-1].start == b"GET /after"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: x\r\nTransfer-Encoding: chunked\r\n\r\n", 417),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 50\r\n\r\n", 417),
        (b"TRACE /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 405),
    ],
)
def test_rule_09_the_body_of_a_request_that_is_refused_at_once_is_not_the_next_request(rig, request_, status):
    client = rig.ask(request_)
    rig.ask(b"23\r\n" + get(target=b"/smuggled"), client=client)
    answer = rig.answer(client)
    assert answer.status == status
    assert answer.value(b"connection") == b"close"
    assert rig.backend.requests == []


def test_rule_10_expect_passes_and_so_does_the_100(make_rig):
    backend = ScriptedBackend()
    rig = make_rig(backend)
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert client.received == b""
    assert rig.requests()[0].value(b"expect") == b"100-continue"
    backend.connections[0].send(b"HTTP/1.1 100 Continue\r\n\r\n")
    rig.network.run()
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    rig.ask(b"body", client=client)
    assert rig.request().body == b"body"
    backend.connections[0].send(OK)
    rig.network.run()
    assert [one.status for one in rig.answers(client, "POST")] == [100, 200]


def test_rule_10_who_expects_and_does_not_wait_is_served(make_rig):
    rig = make_rig(ScriptedBackend([Step(after=b"body", send=b"HTTP/1.1 100 Continue\r\n\r\n" + OK)]))
    client = rig.ask(post(b"body", b"Expect: 100-Continue"))
    assert rig.answers(client, "POST")[-1].status == 200
    assert rig.request().body == b"body"


def test_rule_10_an_expectation_may_be_answered_without_the_body(make_rig):
    backend = ScriptedBackend([Step(send=b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")])
    rig = make_rig(backend)
    client = rig.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert rig.answer(client, "PUT").status == 401


@pytest.mark.parametrize("expect", [b"200-ok", b"100-continue, x", b"100-continue;x", b""])
def test_rule_10_another_expectation_is_417(rig, expect):
    client = rig.ask(get(b"Expect: " + expect))
    assert rig.answer(client).status == 417
    assert rig.backend.requests == []


def test_rule_10_an_expectation_of_a_client_that_speaks_1_0_is_ignored(rig):
    client = rig.ask(b"GET / HTTP/1.0\r\nHost: a\r\nExpect: anything\r\n\r\n")
    assert rig.answer(client).status == 200


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"OPTIONS", b"PROPFIND"])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
)
def test_rule_11_the_body_of_any_method_passes(make_rig, method, framing):
    rig = make_rig(ScriptedBackend())
    rig.ask(method + b" / HTTP/1.1\r\nHost: a\r\n" + framing)
    request = rig.request()
    assert (request.start, request.body) == (method + b" /", b"body")
    rig.backend.connections[0].send(OK)
    rig.network.run()


def test_rule_11_head_may_have_a_body_too(make_rig):
    rig = make_rig(
        ScriptedBackend([Step(after=b"body", send=b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")])
    )
    client = rig.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    assert rig.answer(client, "HEAD").status == 200
    assert rig.request().body == b"body"


@pytest.mark.parametrize("fields", [(), (b"Max-Forwards: 0",), (b"Max-Forwards: 5",)])
def test_rule_11_trace_is_refused(rig, fields):
    client = rig.ask(get(*fields).replace(b"GET", b"TRACE"))
    answer = rig.answer(client)
    assert answer.status == 405
    assert b"GET" in answer.value(b"allow")
    assert rig.backend.requests == []


@pytest.mark.parametrize(
    ("given", "passed"), [(b"1", b"0"), (b"10", b"9"), (b"007", b"6"), (b"many", b"many"), (b"-1", b"-1")]
)
def test_rule_11_max_forwards_counts_down_for_options(rig, given, passed):
    client = rig.ask(get(b"Max-Forwards: " + given).replace(b"GET", b"OPTIONS"))
    assert rig.answer(client).status == 200
    assert rig.request().value(b"max-forwards") == passed


def test_rule_11_max_forwards_means_nothing_for_other_methods(rig):
    rig.ask(get(b"Max-Forwards: 0"))
    assert rig.request().value(b"max-forwards") == b"0"


@pytest.mark.parametrize("zero", [b"0", b"000"])
def test_rule_11_at_zero_options_are_answered_here(rig, zero):
    client = rig.ask(get(b"Max-Forwards: " + zero).replace(b"GET", b"OPTIONS"))
    assert rig.answer(client).status == 200
    assert rig.backend.requests == []
