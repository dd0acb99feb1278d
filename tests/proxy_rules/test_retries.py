"""Which server is asked next when one fails, and what the client is told when none is left."""

import json

import pytest

from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.routing import Default, NeedBody, Pin, Refuse
from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"


def ok() -> ScriptedBackend:
    return ScriptedBackend([Step(send=OK)])


def dying(end: str = "close") -> ScriptedBackend:
    """A backend that takes a request and ends the connection without an answer."""
    return ScriptedBackend([Step(end=end)])


class BodyRouter:
    """Asks for bodies of up to ``limit`` octets, then lets the policy choose, or pins ``backend``."""

    drop = frozenset()

    def __init__(self, limit=1000, backend=None, strict=False):
        self.limit, self.backend, self.strict = limit, backend, strict
        self.bodies = []

    def route(self, head, body, now):
        if body is None and head.body:
            return NeedBody(self.limit)
        self.bodies.append(body)
        return Default() if self.backend is None else Pin(self.backend(), strict=self.strict)

    def place(self, head, body, backend, now):
        return None

    def cookies(self, value):
        return value

    message_key = None


@pytest.mark.parametrize("request_", [GET, POST, POST.replace(b"POST", b"PROPPATCH")])
def test_a_server_that_refuses_means_the_next_one_whatever_the_method(make_rig, request_):
    rig = make_rig(None, ok(), None, ok())
    for number in (1, 3):
        assert rig.answer(rig.ask(request_)).status == 200
        assert len(rig.backends[number].requests) == 1
    assert rig.leases == 0


def test_a_server_that_does_not_answer_the_call_means_the_next_one(make_rig):
    rig = make_rig(ok(), ok(), timeouts=Timeouts(connect=5))
    rig.network.silent.add("10.0.0.1")
    client = rig.ask(POST)
    rig.advance(4.9)
    assert client.received == b""
    rig.advance(0.2)
    assert rig.answer(client).status == 200
    assert len(rig.backends[1].requests) == 1


def test_all_refusing_is_503_that_names_the_pool(make_rig):
    rig = make_rig(None, None, None)
    answer = rig.answer(rig.ask(GET))
    assert answer.status == 503
    assert answer.value(b"content-type") == b"text/plain; charset=utf-8"
    assert answer.body == (
        b"The pool 'default' has no server that can be reached: all 3 were tried. Try again in a moment.\n"
    )
    assert answer.value(b"server") == b"comfyproxy"
    assert answer.value(b"x-request-id")


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        (b"application/json", True),
        (b"application/problem+json, text/plain;q=0.5", True),
        (b"text/html, application/json;q=0.9, */*;q=0.1", False),
        (b"*/*", False),
    ],
)
def test_own_answers_are_in_the_form_that_the_client_accepts(make_rig, accept, is_json):
    rig = make_rig(None)
    answer = rig.answer(rig.ask(GET.replace(b"\r\n\r\n", b"\r\nAccept: " + accept + b"\r\n\r\n")))
    assert answer.status == 503
    assert answer.value(b"content-type").startswith(b"application/json" if is_json else b"text/plain")
    if is_json:
        assert json.loads(answer.body)["status"] == 503
    assert b"'default'" in answer.body


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_own_answers_have_their_length_and_head_no_body(make_rig, method):
    rig = make_rig(None)
    client = rig.ask(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = rig.answer(client, method.decode())
    assert int(answer.value(b"content-length")) > 20
    assert (len(answer.body) > 0) == (method == b"GET")
    assert client.ended == ""


@pytest.mark.parametrize("debug", [False, True])
def test_own_answers_name_servers_only_to_who_debugs(make_rig, debug):
    rig = make_rig(dying(), debug=debug)
    answer = rig.answer(rig.ask(POST))
    assert answer.status == 502
    assert (b"10.0.0.1" in answer.body) == debug


def test_on_its_own_paths_comfyui_gets_its_own_kind_of_error(make_rig):
    rig = make_rig(None, comfyui=True)
    answer = rig.answer(rig.ask(GET.replace(b"/ ", b"/api/prompt ")))
    assert json.loads(answer.body)["error"]["type"].startswith("comfyproxy_")
    assert json.loads(answer.body)["node_errors"] == {}


def test_the_clients_request_id_is_given_back_if_it_is_harmless(make_rig):
    rig = make_rig(None)
    for given, same in ((b"abc-123", True), (b'"><script>', False), (b"x" * 200, False)):
        answer = rig.answer(rig.ask(GET.replace(b"\r\n\r\n", b"\r\nX-Request-ID: " + given + b"\r\n\r\n")))
        assert (answer.value(b"x-request-id") == given) == same


def test_a_pool_without_servers_says_so(make_rig):
    rig = make_rig()
    rig.balancer.apply(diff(rig.pool.addresses, ()))
    answer = rig.answer(rig.ask(GET))
    assert (answer.status, b"has no servers" in answer.body) == (503, True)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_get_goes_on_to_another_server_when_the_first_dies(make_rig, end):
    rig = make_rig(dying(end), ok())
    assert rig.answer(rig.ask(GET)).status == 200
    assert [len(backend.requests) for backend in rig.backends] == [1, 1]


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"get", b"LOCK"])
def test_what_may_not_be_repeated_is_502_when_the_server_dies(make_rig, method):
    rig = make_rig(dying(), ok())
    answer = rig.answer(rig.ask(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert answer.status == 502
    assert rig.backends[1].requests == []


def test_a_body_that_is_under_way_is_not_sent_to_another_server(make_rig):
    rig = make_rig(dying(), ok())
    client = rig.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbody")
    assert rig.answer(client).status == 502
    assert rig.backends[1].requests == []


def test_no_response_in_time_is_504_and_no_other_server_is_asked(make_rig):
    rig = make_rig(ScriptedBackend(), ok(), timeouts=Timeouts(response=1800))
    client = rig.ask(GET)
    rig.advance(1799, step=1)
    assert client.received == b""
    rig.advance(2)
    answer = rig.answer(client)
    assert (answer.status, answer.body[:50]) == (504, b"The server did not answer within 1800 seconds. Try")
    assert (rig.backends[0].open_connections, rig.backends[1].requests) == ([], [])


def test_no_timeout_waits_for_ever(make_rig):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(0, 0, 0, 0, 0, 0, 0))
    client = rig.ask(GET)
    rig.network.advance(10_000_000)
    rig.backend.connections[0].send(OK)
    rig.network.run()
    assert rig.answer(client).status == 200


def test_a_malformed_answer_is_not_asked_for_again(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=b"HTTP/1.1 banana\r\n\r\n")]), ok())
    assert rig.answer(rig.ask(GET)).status == 502
    assert rig.backends[1].requests == []


def test_after_a_1xx_a_request_is_not_sent_again(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=b"HTTP/1.1 103 Early Hints\r\n\r\n", end="finish")]), ok())
    assert [one.status for one in rig.answers(rig.ask(GET))] == [103, 502]
    assert rig.backends[1].requests == []


def test_one_request_does_not_bring_down_all_servers_one_after_the_other(make_rig):
    rig = make_rig(*[dying() for _ in range(10)])
    assert rig.answer(rig.ask(GET)).status == 502
    assert sum(len(backend.requests) for backend in rig.backends) == 2


def test_time_spent_on_servers_that_do_not_answer_the_call_is_bounded(make_rig):
    rig = make_rig(*[ok() for _ in range(10)], timeouts=Timeouts(connect=5))
    rig.network.silent |= {address.host for address in rig.pool.addresses}
    client = rig.ask(GET)
    rig.advance(60)
    assert rig.answer(client).status == 503


def test_only_time_spent_connecting_counts_for_that(make_rig):
    rig = make_rig(ScriptedBackend([Step(after=b"never")]), None, ok(), timeouts=Timeouts(connect=1))
    client = rig.ask(GET)
    rig.advance(100)
    rig.backends[0].connections[0].close()
    rig.network.run()
    assert rig.answer(client).status == 200


def test_a_body_that_waited_goes_to_the_next_server_whole(make_rig):
    rig = make_rig(ok(), ScriptedBackend([Step(after=b"end", send=OK)]), timeouts=Timeouts(connect=5))
    rig.network.silent.add("10.0.0.1")
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200003\r\n\r\n")
    rig.ask(b"x" * 100_000, client=client)
    # While there is no connection, what was on its way is kept and nothing more is read.
    assert rig.held < 150_000
    client.send(b"x" * 100_000 + b"end")
    rig.advance(6)
    assert rig.answer(client).status == 200
    assert rig.request(1).body == b"x" * 200_000 + b"end"


def test_a_body_that_waited_goes_on_over_an_idle_connection_too(make_rig):
    rig = make_rig(ok(), ScriptedBackend([Step(send=OK), Step(after=b"end", send=OK)]))
    rig.network.silent.add("10.0.0.1")
    rig.ask(GET)
    rig.advance(6)
    assert len(rig.backends[1].requests) == 1
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200003\r\n\r\n")
    rig.ask(b"x", client=client)
    client.send(b"x" * 199_999 + b"end")
    rig.advance(6)
    assert rig.answer(client).status == 200
    assert len(rig.backends[1].connections) == 1


def test_a_name_is_tried_at_all_its_addresses(make_rig):
    backend = ok()
    rig = make_rig(backend, addresses=[Address("http", "gpu1", 8188)])
    rig.network.names["gpu1"] = ["10.9.0.1", "::5", "10.9.0.2"]
    rig.network.listenTCP(8188, backend, interface="10.9.0.2")
    assert rig.answer(rig.ask(GET)).status == 200
    assert len(backend.requests) == 1


def test_a_name_without_an_address_is_as_good_as_refused(make_rig):
    rig = make_rig(
        ok(), ok(), addresses=[Address("http", "nowhere", 8188), Address("http", "10.0.0.2", 8188)]
    )
    assert rig.answer(rig.ask(POST)).status == 200


def test_the_log_says_why_a_server_was_passed_over_but_not_a_thousand_times(make_rig, caplog):
    rig = make_rig(None)
    for _ in range(50):
        rig.ask(GET)
    lines = [record.getMessage() for record in caplog.records if "10.0.0.1" in record.getMessage()]
    assert lines == ["http://10.0.0.1:8188: connection refused"]
    rig.advance(6)
    rig.ask(GET)
    lines = [record.getMessage() for record in caplog.records if "10.0.0.1" in record.getMessage()]
    assert lines[1:] == [
        "http://10.0.0.1:8188: connection refused (49 more failures since the last such line)"
    ]


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\n\r\nbody",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n3;x\r\nody\r\n0\r\nT: 1\r\n\r\n",
    ],
)
def test_a_router_that_needs_the_body_gets_it_whole_and_it_is_sent_with_its_length(make_rig, framing, piece):
    router = BodyRouter()
    rig = make_rig(None, ScriptedBackend([Step(after=b"body", send=OK)]), router=router)
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing, piece)
    assert rig.answer(client).status == 200
    request = rig.request(1)
    assert (request.body, request.value(b"content-length")) == (b"body", b"4")
    assert request.values(b"transfer-encoding") == []
    assert router.bodies == [b"body"]


def test_a_body_at_hand_may_be_sent_to_another_server_again_if_the_method_may(make_rig):
    rig = make_rig(dying(), ScriptedBackend([Step(after=b"body", send=OK)]), router=BodyRouter())
    client = rig.ask(POST.replace(b"POST", b"PUT"))
    assert rig.answer(client).status == 200
    assert rig.request(1).body == b"body"


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked_if_a_router_needs_it(make_rig):
    rig = make_rig(ScriptedBackend([Step(after=b"body", send=OK)]), router=BodyRouter())
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    rig.ask(b"body", client=client)
    assert [one.status for one in rig.answers(client, "POST")] == [100, 200]
    assert rig.request().values(b"expect") == []


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 1001\r\n\r\n" + b"x" * 500,
        b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001,
    ],
)
def test_a_body_larger_than_a_router_takes_is_413(make_rig, framing):
    rig = make_rig(router=BodyRouter(limit=1000), limits=Limits(body=0))
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
    assert rig.answer(client).status == 413
    assert rig.backend.requests == []


def test_a_body_in_thousands_of_pieces_is_gathered_in_time_that_grows_with_their_number_only(make_rig):
    router = BodyRouter(limit=1_000_000)
    rig = make_rig(ScriptedBackend([Step(after=b"end", send=OK)]), router=router)
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"1\r\nx\r\n" * 20_000 + b"3\r\nend\r\n0\r\n\r\n", piece=6)
    rig.network.run()
    assert rig.answer(client).status == 200
    assert len(router.bodies[0]) == 20_003


def test_what_can_only_be_answered_by_one_server_is_asked_of_no_other(make_rig):
    rig = make_rig(None, ok(), router=(router := BodyRouter(strict=True)))
    router.backend = lambda: rig.pool.backends[0]
    answer = rig.answer(rig.ask(GET))
    assert (answer.status, rig.backends[1].requests) == (503, [])
    assert b"that this belongs to" in answer.body


def test_a_preference_gives_way_to_another_server(make_rig):
    rig = make_rig(None, ok(), router=(router := BodyRouter()))
    router.backend = lambda: rig.pool.backends[0]
    assert rig.answer(rig.ask(GET)).status == 200


def test_what_a_router_refuses_reaches_no_server(make_rig):
    router = BodyRouter()
    router.route = lambda head, body, now: Refuse(403, "Not from here.")
    rig = make_rig(router=router)
    client = rig.ask(POST)
    answer = rig.answer(client)
    assert (answer.status, answer.body) == (403, b"Not from here.\n")
    assert rig.backend.requests == []


@pytest.mark.parametrize("keep_host", [True, False])
def test_a_request_without_a_host_gets_its_servers(make_rig, keep_host):
    rig = make_rig(keep_host=keep_host)
    rig.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert rig.request().value(b"host") == b"10.0.0.1:8188"
