"""`RoundRobinResource` in a stock Site; what `ReverseProxyResource` does wrong is called a classic fault."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from twisted.web.proxy import ReverseProxyResource
from twisted.web.resource import Resource

from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.web.resource import RoundRobinResource
from tests.web.messages import GET, OK, fields, get, line

MakeRig = Callable[..., Any]


def forwarded(rig: Any, data: bytes) -> bytes:
    """What the server gets of ``data``."""
    rig.ask(data)
    received: bytes = rig.accept().read()
    return received


def test_it_is_a_reverse_proxy_resource(rig: Any) -> None:
    assert isinstance(rig.resource, ReverseProxyResource)
    assert (rig.resource.host, rig.resource.port) == ("10.0.0.1", 8188)


def test_requests_take_turns(rig: Any) -> None:
    clients = [rig.ask(GET) for _ in range(4)]
    assert [host for host, _ in rig.dialled] == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]
    for client in clients:
        rig.accept().send(OK)
        assert client.read() == OK


class TestClassicFaults:
    def test_a_subclass_is_asked_below_its_place_too(self, make_rig: MakeRig) -> None:
        asked = []

        class Counting(RoundRobinResource):
            def render(self, request: Any) -> int:
                asked.append(request.uri)
                return super().render(request)

        rig = make_rig(lambda reactor: Counting("http://10.0.0.1:8188", reactor=reactor))
        rig.ask(get(b"/a/b/c"))
        assert asked == [b"/a/b/c"]

    @pytest.mark.parametrize(
        "target",
        [
            b"/a@b:c",
            b"/x;p=1?q;r",
            b"/a+b",
            b"/%2e%2e/x",
            b"/a%2Fb",
            b"//x",
            b"/a/",
            b"/?",
            b"/a?b=%20?c",
            b"/%zz",
        ],
    )
    def test_the_target_stays_what_it_is(self, rig: Any, target: bytes) -> None:
        assert line(forwarded(rig, get(target))) == b"GET %b HTTP/1.1" % target

    def test_repeated_fields_survive(self, rig: Any) -> None:
        received = forwarded(rig, get(b"/", b"X-M: 1", b"Cookie: a=1", b"X-M: 2"))
        assert [one for one in fields(received) if one.startswith(b"X-M")] == [b"X-M: 1", b"X-M: 2"]

    def test_fields_of_the_connection_end_here(self, rig: Any) -> None:
        received = forwarded(
            rig,
            get(
                b"/", b"Connection: close, X-Hop", b"X-Hop: 1", b"Keep-Alive: 5", b"TE: gzip", b"Upgrade: h2c"
            ),
        )
        names = {one.partition(b":")[0].lower() for one in fields(received)}
        assert names.isdisjoint({b"connection", b"x-hop", b"keep-alive", b"te", b"upgrade"})

    def test_the_host_passes_and_the_client_is_named(self, rig: Any) -> None:
        received = fields(forwarded(rig, GET))
        assert b"Host: proxy.example" in received
        assert b"X-Forwarded-For: 192.0.2.7" in received
        assert b"X-Forwarded-Proto: http" in received

    def test_connections_to_servers_are_kept(self, make_rig: MakeRig) -> None:
        rig = make_rig(lambda reactor: RoundRobinResource("http://10.0.0.1:8188", reactor=reactor))
        client = rig.ask(GET)
        server = rig.accept()
        server.read()
        server.send(OK)
        client.send(GET)
        assert line(server.read()) == b"GET / HTTP/1.1"
        server.send(OK)
        assert client.read() == OK * 2
        assert rig.dialled == []

    def test_a_chunked_upload_arrives_as_a_body(self, rig: Any) -> None:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        received = forwarded(rig, head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert b"Content-Length: 5" in fields(received)
        assert received.endswith(b"\r\n\r\nabcde")

    def test_a_chunked_answer_is_not_chunked_twice(self, rig: Any) -> None:
        client = rig.ask(GET)
        rig.accept().send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert client.read().partition(b"\r\n\r\n")[2] == b"5\r\nhello\r\n0\r\n\r\n"

    def test_an_early_hint_is_not_the_answer(self, rig: Any) -> None:
        client = rig.ask(GET)
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
        rig.accept().send(hint + OK)
        assert client.read() == hint + OK

    def test_an_early_hint_is_nothing_for_http_1_0(self, rig: Any) -> None:
        client = rig.ask(get(b"/", version=b"HTTP/1.0"))
        rig.accept().send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
        assert line(client.read()) == b"HTTP/1.0 200 OK"

    def test_nothing_is_added_that_the_server_left_out(self, rig: Any) -> None:
        client = rig.ask(GET)
        rig.accept().send(OK)
        assert fields(client.read()) == [b"Content-Length: 2", b"Date: then"]

    def test_nothing_is_doubled_or_merged_that_the_server_sent(self, rig: Any) -> None:
        client = rig.ask(GET)
        answer = OK.replace(
            b"\r\nDate", b"\r\nServer: s\r\nContent-Type: t/x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nDate"
        )
        rig.accept().send(answer)
        assert client.read() == answer

    def test_fields_of_the_server_s_connection_end_here(self, rig: Any) -> None:
        client = rig.ask(GET)
        rig.accept().send(
            OK.replace(b"\r\nDate", b"\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nDate")
        )
        assert fields(client.read()) == [b"Content-Length: 2", b"Date: then"]

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
        ],
    )
    def test_half_an_answer_is_never_a_finished_one(self, rig: Any, answer: bytes) -> None:
        client = rig.ask(GET)
        server = rig.accept()
        server.send(answer)
        server.leave()
        assert not client.read().endswith(b"0\r\n\r\n")
        assert client.how_closed == "closed"

    def test_half_an_answer_is_a_reset_for_http_1_0(self, rig: Any) -> None:
        client = rig.ask(get(b"/", version=b"HTTP/1.0"))
        server = rig.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf")
        server.leave()
        assert client.how_closed == "aborted"

    def test_a_server_that_refuses_is_passed_over(self, rig: Any) -> None:
        client = rig.ask(GET)
        rig.refuse()
        assert rig.dialled == [("10.0.0.2", 8188)]
        rig.accept().send(OK)
        assert client.read() == OK

    def test_no_server_left_is_a_503_that_says_so(self, rig: Any) -> None:
        client = rig.ask(GET)
        for _ in range(3):
            rig.refuse()
        answer = client.read()
        assert line(answer) == b"HTTP/1.1 503 Service Unavailable"
        assert b"no server that can be reached" in answer
        assert b"Server: comfyproxy" in fields(answer)

    def test_a_client_that_leaves_ends_the_request(self, rig: Any) -> None:
        client = rig.ask(GET)
        server = rig.accept()
        client.leave()
        assert server.how_closed == "aborted"
        assert rig.resource.balancer.pool.backends[0].leases == 0

    def test_a_client_that_leaves_early_is_never_dialled_for(self, rig: Any) -> None:
        client = rig.ask(GET)
        client.leave()
        late = rig.accept()
        assert late.how_closed == "aborted"
        assert late.read() == b""

    def test_a_slow_client_stops_the_server(self, rig: Any) -> None:
        client = rig.ask(GET)
        server = rig.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x" * 70_000)
        assert not server.is_read
        client.read()
        assert server.is_read

    def test_a_malformed_answer_is_a_502(self, rig: Any) -> None:
        client = rig.ask(GET)
        server = rig.accept()
        server.send(b"ICY 200 OK\r\n\r\n")
        assert line(client.read()) == b"HTTP/1.1 502 Bad Gateway"
        assert server.how_closed == "aborted"

    def test_an_answer_that_does_not_come_is_a_504(self, make_rig: MakeRig) -> None:
        timeouts = Timeouts(response=5)
        rig = make_rig(
            lambda reactor: RoundRobinResource("http://10.0.0.1:8188", reactor=reactor, timeouts=timeouts)
        )
        client = rig.ask(GET)
        rig.accept()
        rig.reactor.pump([0.25] * 24)
        assert line(client.read()) == b"HTTP/1.1 504 Gateway Timeout"


def test_any_method_passes(rig: Any) -> None:
    assert line(forwarded(rig, GET.replace(b"GET", b"PROPFIND"))) == b"PROPFIND / HTTP/1.1"


def test_trace_does_not(rig: Any) -> None:
    assert line(rig.ask(GET.replace(b"GET", b"TRACE")).read()) == b"HTTP/1.1 405 Method Not Allowed"


def test_the_absolute_form_is_taken_apart(rig: Any) -> None:
    received = forwarded(rig, get(b"http://other.example/a?b"))
    assert line(received) == b"GET /a?b HTTP/1.1"
    assert b"Host: other.example" in fields(received)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x0bc\r\n\r\n",
        b"GET http:x HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_twisted_web_lets_through_is_refused_all_the_same(rig: Any, request_: bytes) -> None:
    client = rig.ask(request_ + GET)
    answer = client.read()
    assert line(answer) == b"HTTP/1.1 400 Bad Request"
    assert answer.count(b"HTTP/1.1 ") == 1
    assert client.how_closed == "closed"
    assert rig.dialled == []


def test_a_large_body_is_refused_by_its_limit(make_rig: MakeRig) -> None:
    rig = make_rig(
        lambda reactor: RoundRobinResource("http://10.0.0.1:8188", reactor=reactor, limits=Limits(body=4))
    )
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde")
    assert line(client.read()) == b"HTTP/1.1 413 Content Too Large"


def test_errors_are_json_for_who_asks_for_it(rig: Any) -> None:
    client = rig.ask(get(b"/", b"Accept: application/json", b"Expect: miracles"))
    answer = client.read()
    assert line(answer) == b"HTTP/1.1 417 Expectation Failed"
    assert answer.partition(b"\r\n\r\n")[2].startswith(b'{"error": "Of expectations')


def test_comfyui_s_paths_get_comfyui_s_errors(make_rig: MakeRig) -> None:
    rig = make_rig(lambda reactor: RoundRobinResource([], reactor=reactor, comfyui=True))
    assert b'"node_errors": {}' in rig.ask(get(b"/prompt")).read()


def test_a_trusted_proxy_is_believed(make_rig: MakeRig) -> None:
    rig = make_rig(
        lambda reactor: RoundRobinResource("http://10.0.0.1", reactor=reactor, trusted=("192.0.2.0/24",))
    )
    received = forwarded(rig, get(b"/", b"X-Forwarded-For: 203.0.113.9"))
    assert b"X-Forwarded-For: 203.0.113.9, 192.0.2.7" in fields(received)


def test_what_backends_are_told_and_rules_for_fields_can_be_chosen(make_rig: MakeRig) -> None:
    rig = make_rig(
        lambda reactor: RoundRobinResource(
            "http://10.0.0.1",
            reactor=reactor,
            forwarding=("forwarded",),
            request_headers=["set X-A: {client}", "remove X-B"],
            response_headers=["remove Server"],
        )
    )
    client = rig.ask(get(b"/", b"X-B: 1", b"X-Forwarded-For: 9.9.9.9"))
    server = rig.accept()
    received = fields(server.read())
    assert b"X-A: 192.0.2.7" in received
    assert b'Forwarded: for=192.0.2.7;host="proxy.example";proto=http' in received
    assert not [one for one in received if one.startswith((b"X-B", b"X-Forwarded"))]
    server.send(b"HTTP/1.1 200 OK\r\nServer: gpu\r\nContent-Length: 0\r\n\r\n")
    assert b"Server" not in client.read()


def test_retries_and_request_ids_can_be_chosen(make_rig: MakeRig) -> None:
    rig = make_rig(
        lambda reactor: RoundRobinResource(
            "http://10.0.0.1, http://10.0.0.2, http://10.0.0.3",
            reactor=reactor,
            retries=1,
            retry_on=[503],
            request_ids="answers",
        )
    )
    client = rig.ask(get(b"/"))
    ids = []
    for _ in range(2):
        server = rig.accept()
        ids += [one for one in fields(server.read()) if one.startswith(b"X-Request-ID: ")]
        server.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    received = client.read()
    assert line(received) == b"HTTP/1.1 503 Busy"
    assert [ids[0].lower()] * 2 == [one.lower() for one in (ids[1], *fields(received)) if b"equest-" in one]


def test_a_rule_that_is_none_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="is not a rule for header fields"):
        RoundRobinResource("http://10.0.0.1", request_headers=["X-A: 1"])


class TestPath:
    """Where the resource stands and which path it has, against what the server is asked for."""

    @pytest.mark.parametrize(
        ("place", "path", "target", "expected"),
        [
            (None, None, b"/a/b?c", b"/a/b?c"),
            (None, b"", b"/a/b?c", b"/a/b?c"),
            (None, b"/base", b"/a/b?c", b"/base/a/b?c"),
            (None, b"/base", b"/", b"/base/"),
            (b"gpu", None, b"/gpu/a?b", b"/gpu/a?b"),
            (b"gpu", None, b"/%67pu/%61", b"/%67pu/%61"),
            (b"gpu", b"", b"/gpu/a%2Fb/./c;d?e", b"/a%2Fb/./c;d?e"),
            (b"gpu", b"", b"/gpu/", b"/"),
            (b"gpu", b"", b"/gpu", b"/"),
            (b"gpu", b"", b"/gpu?x", b"/?x"),
            (b"gpu", b"", b"/gpu//a", b"//a"),
            (b"gpu", b"/base", b"/gpu/a", b"/base/a"),
            (b"gpu", b"/base", b"/gpu", b"/base"),
            (None, b"/base", b"http://other.example/a", b"/base/a"),
        ],
    )
    def test_target(
        self, make_rig: MakeRig, place: bytes | None, path: bytes | None, target: bytes, expected: bytes
    ) -> None:
        def build(reactor: Any) -> Resource:
            ours: Resource = RoundRobinResource("http://10.0.0.1:8188", path, reactor)
            if place is None:
                return ours
            root = Resource()
            root.putChild(place, ours)
            return root

        assert line(forwarded(make_rig(build), get(target))) == b"GET %b HTTP/1.1" % expected

    def test_another_resource_is_asked_for_what_it_is_asked_for(self, make_rig: MakeRig, rig: Any) -> None:
        based = make_rig(lambda reactor: RoundRobinResource("http://10.0.0.1:8188", b"/base", reactor))
        assert line(forwarded(based, GET)) == b"GET /base/ HTTP/1.1"
        assert line(forwarded(rig, GET)) == b"GET / HTTP/1.1"

    def test_get_child_stays_here(self, rig: Any) -> None:
        assert rig.resource.getChild(b"a", None) is rig.resource


def test_only_the_resource_s_own_module_imports_twisted_web_proxy() -> None:
    program = (
        "import sys, comfyproxy.web, comfyproxy.web.streaming\n"
        "assert 'twisted.web.proxy' not in sys.modules\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
        "import comfyproxy.web.resource\n"
        "assert 'twisted.web.proxy' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=50)
