"""Rules 18 to 26: what a client gets of a backend's answer."""

import pytest

from comfyproxy.core.config import Timeouts
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def answering(*steps: bytes | Step) -> ScriptedBackend:
    """A backend that answers each head with the next step."""
    return ScriptedBackend([step if isinstance(step, Step) else Step(send=step) for step in steps])


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.1 404 Not here\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 299 \r\nContent-Length: 1\r\n\r\n!", b"!"),
        (b"HTTP/1.1 500\r\nContent-Length: 1\r\n\r\n!", b"!"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    ],
)
def test_rule_18_an_answer_passes_however_it_arrives(make_rig, raw, body, piece):
    rig = make_rig(answering(Step(send=raw, piece=piece)))
    client = rig.ask(GET * 2)
    first, second = rig.answers(client, "GET", "GET")
    assert first.status == second.status == int(raw.split()[1])
    assert first.body == second.body == body


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\r\nHTTP/1.1 200 OK\r\n",
    ],
)
def test_rule_18_what_can_never_become_an_answer_is_502_at_once(make_rig, raw):
    rig = make_rig(answering(raw))
    client = rig.ask(GET)
    assert rig.answer(client).status == 502
    assert rig.backend.open_connections == []


def test_rule_18_a_head_without_end_is_502(make_rig):
    rig = make_rig(answering(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 300_000))
    assert rig.answer(rig.ask(GET)).status == 502


def test_rule_18_a_large_head_passes(make_rig):
    rig = make_rig(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"))
    assert len(rig.answer(rig.ask(GET)).value(b"x")) == 200_000


@pytest.mark.parametrize(
    ("method", "raw", "lengths"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", [b"5"]),
        (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n", []),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", []),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", [b"5"]),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", []),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", []),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", []),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", []),
        (b"GET", b"HTTP/1.1 205 Reset Content\r\n\r\n", [b"0"]),
        (b"GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", [b"0"]),
    ],
)
def test_rule_19_what_has_no_body_gets_none(make_rig, method, raw, lengths):
    rig = make_rig(answering(raw))
    request = method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
    client = rig.ask(request * 2)
    first, second = rig.answers(client, method.decode(), method.decode())
    assert first.body == second.body == b""
    assert first.values(b"content-length") == lengths
    assert first.values(b"transfer-encoding") == []
    assert len(rig.backend.connections) == 1


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\nhello"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"),
        (b"GET", b"HTTP/1.1 205 Reset Content\r\n\r\nhello"),
    ],
)
def test_rule_19_a_body_that_should_not_be_is_dropped_with_its_connection(make_rig, method, raw):
    rig = make_rig(answering(raw))
    client = rig.ask(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert rig.answer(client, method.decode()).body == b""
    assert b"hello" not in client.received
    assert rig.backend.open_connections == []


@pytest.mark.parametrize("piece", [0, 1])
def test_rule_20_informational_answers_pass_in_order(make_rig, piece):
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nLink: </b.css>\r\nConnection: x\r\nX: 1\r\n\r\n"
    rig = make_rig(answering(Step(send=early + b"HTTP/1.1 102 Processing\r\n\r\n" + OK, piece=piece)))
    client = rig.ask(GET)
    hints, processing, final = rig.answers(client)
    assert (hints.status, hints.values(b"link")) == (103, [b"</a.css>", b"</b.css>"])
    assert hints.names == [b"link", b"link"]
    assert (processing.status, final.status, final.body) == (102, 200, b"ok")


def test_rule_20_a_client_of_1_0_gets_none(make_rig):
    rig = make_rig(answering(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK))
    client = rig.ask(GET_1_0)
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_rule_20_an_endless_run_of_them_is_cut(make_rig):
    rig = make_rig(answering(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000))
    client = rig.ask(GET)
    answers = rig.answers(client)
    assert answers[-1].status == 502
    assert len(answers) < 50
    assert rig.backend.open_connections == []


def test_rule_20_they_do_not_put_off_the_timeout(make_rig):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(response=100))
    client = rig.ask(GET)
    for _ in range(9):
        rig.backend.connections[0].send(b"HTTP/1.1 102 Processing\r\n\r\n")
        rig.advance(12)
    assert rig.answers(client)[-1].status == 504


@pytest.mark.parametrize("fields", [b"", b"Upgrade: websocket\r\nConnection: upgrade\r\n"])
def test_rule_20_a_101_that_nobody_asked_for_is_502(make_rig, fields):
    rig = make_rig(answering(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n" + OK))
    client = rig.ask(GET)
    assert rig.answer(client).status == 502
    assert rig.backend.open_connections == []


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_rule_21_an_answer_until_the_end_goes_on_in_chunks(make_rig, version):
    head = b"HTTP/" + version + b" 200 OK\r\n\r\n"
    rig = make_rig(answering(Step(send=head + b"hello" * 5000, end="close")))
    client = rig.ask(GET * 2)
    for answer in rig.answers(client, "GET", "GET"):
        assert (answer.body, answer.complete) == (b"hello" * 5000, True)
        assert answer.values(b"transfer-encoding") == [b"chunked"]
    assert client.ended == ""


def test_rule_21_an_empty_answer_until_the_end_is_complete(make_rig):
    rig = make_rig(answering(Step(send=b"HTTP/1.1 200 OK\r\n\r\n", end="close")))
    assert rig.answer(rig.ask(GET)).body == b""


@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\n"])
@pytest.mark.parametrize(
    "step",
    [
        Step(send=b"HTTP/1.1 200 OK\r\n\r\nhello", end="close"),
        Step(send=CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 5\r\n\r\n"),
    ],
)
def test_rule_21_a_client_of_1_0_gets_it_until_the_end(make_rig, step, keep):
    rig = make_rig(answering(step))
    client = rig.ask(b"GET / HTTP/1.0\r\nHost: a\r\n" + keep + b"\r\n")
    answer = rig.answer(client)
    assert answer.body == b"hello"
    assert answer.values(b"transfer-encoding") == answer.values(b"content-length") == []
    assert client.received.endswith(b"\r\n\r\nhello")
    assert (answer.value(b"connection"), client.ended) == (b"close", "closed")


def test_rule_21_chunks_go_on_as_they_are_with_their_trailers(make_rig):
    chunks = b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 5\r\nX-Sum: 6\r\n\r\n"
    rig = make_rig(answering(CHUNKED + chunks))
    client = rig.ask(GET)
    answer = rig.answer(client)
    assert answer.trailers == ((b"X-Sum", b"5"), (b"X-Sum", b"6"))
    assert answer.body == b"hello"


def test_rule_21_pieces_pass_as_they_come(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(GET)
    backend = rig.backend.connections[0]
    backend.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        backend.send(event)
        rig.network.run()
        assert event in client.take()
    backend.close()
    rig.network.run()


CUT_SHORT = [
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", id="length"),
    pytest.param(CHUNKED + b"5\r\nhello\r\n", id="between chunks"),
    pytest.param(CHUNKED + b"9\r\nhello", id="within a chunk"),
    pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\n", id="in the trailers"),
]


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("raw", CUT_SHORT)
def test_rule_22_an_answer_that_is_cut_short_looks_so(make_rig, raw, end):
    rig = make_rig(answering(raw))
    client = rig.ask(GET)
    getattr(rig.backend.connections[0], end)()
    rig.network.run()
    (answer,) = rig.answers(client)
    assert (answer.body, answer.complete) == (b"hello", False)
    assert client.is_gone


@pytest.mark.parametrize("raw", CUT_SHORT[1:])
def test_rule_22_where_only_the_end_tells_it_is_a_reset(make_rig, raw):
    rig = make_rig(answering(Step(send=raw, end="close")))
    client = rig.ask(GET_1_0)
    assert client.received.endswith(b"hello")
    assert client.ended == "reset"


@pytest.mark.parametrize("request_", [GET, GET_1_0])
def test_rule_22_an_answer_until_the_end_that_is_reset_is_cut_short(make_rig, request_):
    rig = make_rig(answering(Step(send=b"HTTP/1.1 200 OK\r\n\r\nhello")))
    client = rig.ask(request_)
    rig.backend.connections[0].reset()
    rig.network.run()
    if request_ is GET_1_0:
        assert client.ended == "reset"
    else:
        (answer,) = rig.answers(client)
        assert not answer.complete
    assert client.is_gone


def test_rule_22_an_answer_that_stops_coming_is_cut_short(make_rig):
    rig = make_rig(
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"), timeouts=Timeouts(idle=600)
    )
    client = rig.ask(GET)
    rig.advance(599)
    assert client.ended == ""
    rig.advance(2)
    assert client.is_gone
    assert rig.backend.open_connections == []


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_rule_23_what_comes_behind_an_answer_reaches_nobody(make_rig, raw, piece):
    split = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    rig = make_rig(answering(Step(send=raw + split, piece=piece)))
    first = rig.ask(GET)
    second = rig.ask(GET)
    for client in (first, second):
        assert rig.answer(client).status in (200, 204)
        assert b"poison" not in client.received
    assert rig.backend.open_connections == []
    assert len(rig.backend.connections) == 2


def test_rule_23_octets_on_an_idle_connection_end_it(make_rig):
    rig = make_rig(answering(OK))
    rig.ask(GET)
    rig.backend.connections[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    rig.network.run()
    assert rig.backend.open_connections == []
    assert rig.answer(rig.ask(GET)).body == b"ok"


def test_rule_23_a_request_that_comes_while_such_a_connection_ends_takes_another(make_rig):
    rig = make_rig(answering(OK))
    rig.ask(GET)
    waiting = rig.client()
    # In one turn the proxy reads both, the backend's octets first.
    rig.backend.connections[0].send(b"unasked")
    waiting.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    rig.network.run()
    assert rig.answer(waiting, "POST").status == 200
    assert len(rig.backend.connections) == 2


@pytest.mark.parametrize("sent", [0, 5])
def test_rule_24_an_answer_before_the_request_is_complete_passes_at_once(make_rig, sent):
    rig = make_rig(answering(b"HTTP/1.1 413 Too much\r\nContent-Length: 4\r\n\r\nless"))
    client = rig.client()
    client.stays_open = True
    rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * sent, client=client)
    answer = rig.answer(client, "POST")
    assert (answer.status, answer.body, answer.value(b"connection")) == (413, b"less", b"close")
    assert rig.backend.open_connections == []
    assert rig.leases == 0
    # The client may go on sending for a while, and is not reset for it.
    rig.ask(b"x" * 50_000, client=client)
    assert (client.ended, client.is_gone) == ("closed", False)
    assert client.transport.line.outgoing.dropped == 0
    client.close()
    rig.network.run()


def test_rule_24_who_goes_on_sending_for_ever_is_reset_in_the_end(make_rig):
    rig = make_rig(answering(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n"))
    client = rig.client()
    client.stays_open = True
    rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", client=client)
    rig.advance(10)
    client.send(b"x")
    rig.network.run()
    client.send(b"x")
    rig.network.run()
    assert client.is_gone
    assert rig.proxy.connections == set()


def test_rule_24_a_backend_that_does_not_read_the_rest_is_let_go(make_rig):
    backend = ScriptedBackend(stays_open=True)
    rig = make_rig(backend)
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
    connection = backend.connections[0]
    connection.pause()
    rig.ask(b"x" * 2_000_000, client=client)
    connection.send(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n")
    rig.network.run()
    assert client.received.startswith(b"HTTP/1.1 413 ")
    client.close()
    connection.resume()
    rig.network.run()
    assert connection.ended == "reset"
    assert len(connection.received) < 2_000_000


def test_rule_24_an_early_answer_streams_while_the_request_does(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
    backend = rig.backend.connections[0]
    backend.send(CHUNKED + b"1\r\n1\r\n")
    rig.network.run()
    rig.ask(b"dy", client=client)
    assert rig.request().body == b"body"
    backend.send(b"1\r\n2\r\n0\r\n\r\n")
    rig.network.run()
    assert rig.answer(client, "POST").body == b"12"
    assert (client.ended, backend.ended) == ("", "")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_rule_25_a_backend_that_closes_does_not_close_the_client(make_rig, raw):
    rig = make_rig(answering(raw))
    client = rig.ask(GET)
    assert (rig.answer(client).value(b"connection"), client.ended) == (None, "")
    assert rig.backend.open_connections == []


def test_rule_25_a_backend_of_1_0_may_keep_its_connection(make_rig):
    rig = make_rig(answering(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"))
    rig.ask(GET)
    assert rig.answer(rig.ask(GET)).body == b"ok"
    assert len(rig.backend.connections) == 1


def test_rule_25_a_client_of_1_0_may_keep_its_connection(rig):
    request = b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n"
    client = rig.ask(request)
    assert rig.answer(client).value(b"connection").lower() == b"keep-alive"
    client.take()
    rig.ask(GET_1_0, client=client)
    assert rig.answer(client).value(b"connection") == b"close"
    assert client.ended == "closed"


def test_rule_25_hop_by_hop_fields_of_an_answer_end_here(make_rig):
    rig = make_rig(
        answering(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
            b"Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n"
            b"X-Stays: 1\r\nDate: today\r\n\r\nok"
        )
    )
    answer = rig.answer(rig.ask(GET))
    assert answer.names == [b"content-length", b"x-stays", b"date"]


def test_rule_25_date_is_added_when_missing_and_kept_when_not(make_rig):
    rig = make_rig(answering(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Then\r\n\r\nok"))
    client = rig.ask(GET * 2)
    first, second = rig.answers(client, "GET", "GET")
    assert first.value(b"date") == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert second.value(b"date") == b"Then"


def test_rule_25_server_passes_and_is_not_added(make_rig):
    rig = make_rig(answering(b"HTTP/1.1 200 OK\r\nServer: aiohttp/3\r\nContent-Length: 2\r\n\r\nok", OK))
    first, second = rig.answers(rig.ask(GET * 2), "GET", "GET")
    assert (first.value(b"server"), second.value(b"server")) == (b"aiohttp/3", None)


def test_rule_25_order_case_and_repeats_survive(make_rig):
    given = [
        b"set-cookie: a=1; Path=/",
        b"X-UPPER: 1",
        b"Set-Cookie: b=2, c=3",
        b"x-octets: \xe4\xff",
        b"Set-Cookie: a=1; Path=/",
        b"Content-Length: 2",
        b"Date: x",
    ]
    rig = make_rig(answering(b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(given) + b"\r\n\r\nok"))
    client = rig.ask(GET)
    assert client.received == b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(given) + b"\r\n\r\nok"


WAYS_TO_LEAVE = ["close", "reset"]


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
def test_rule_26_who_leaves_while_waiting_for_the_answer_takes_the_request_along(make_rig, how):
    rig = make_rig(ScriptedBackend(), log="combined")
    client = rig.ask(GET)
    assert rig.leases == 1
    getattr(client, how)()
    rig.network.run()
    assert rig.leases == 0
    assert rig.backend.connections[0].ended == "reset"
    rig.advance(1)
    assert b'"GET / HTTP/1.1" 499 ' in rig.logged


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
def test_rule_26_who_leaves_in_the_middle_of_its_body(make_rig, how):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbody")
    getattr(client, how)()
    rig.network.run()
    assert (rig.leases, rig.backend.connections[0].ended) == (0, "reset")
    assert not rig.requests()[0].complete


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
def test_rule_26_who_leaves_in_the_middle_of_the_answer(make_rig, how):
    rig = make_rig(answering(CHUNKED + b"5\r\nhello\r\n"))
    client = rig.ask(GET)
    getattr(client, how)()
    rig.network.run()
    assert (rig.leases, rig.backend.connections[0].ended) == (0, "reset")


@pytest.mark.parametrize("how", WAYS_TO_LEAVE)
def test_rule_26_who_leaves_while_the_connection_is_being_made(make_rig, how):
    rig = make_rig(ScriptedBackend())
    rig.network.silent.add("10.0.0.1")
    client = rig.ask(GET)
    assert rig.leases == 1
    getattr(client, how)()
    rig.network.run()
    assert rig.leases == 0
    rig.network.silent.clear()
    rig.advance(10)
    assert rig.backend.connections == []


def test_rule_26_who_leaves_before_its_head_is_complete_costs_nothing(make_rig):
    rig = make_rig()
    client = rig.ask(b"GET / HT")
    client.close()
    rig.network.run()
    assert (rig.backend.connections, rig.proxy.connections) == ([], set())


def test_rule_26_who_leaves_takes_its_pipelined_requests_along(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(GET * 5)
    client.reset()
    rig.network.run()
    assert len(rig.backend.requests or rig.requests()) == 1


def test_rule_26_a_stalled_client_that_leaves_ends_it_too(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(GET)
    client.pause()
    rig.backend.connections[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 3_000_000)
    rig.network.run()
    client.reset()
    rig.network.run()
    assert (rig.leases, rig.backend.connections[0].ended) == (0, "reset")
