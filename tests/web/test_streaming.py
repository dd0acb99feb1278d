"""Uploads through a `StreamingSite` reach the server while they arrive."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.interfaces import ISSLTransport
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import alsoProvides

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import Default, NeedBody
from comfyproxy.core.config import Limits
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.proxy.answering import LINGER
from comfyproxy.web.resource import RoundRobinResource
from comfyproxy.web.streaming import StreamingSite, find_placed

MakeRig = Callable[..., Any]

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: then\r\n\r\nok"
CHUNKED = b"POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def upload(size: int, *lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join(
        (b"POST /up %b" % version, b"Host: h", b"Content-Length: %d" % size, *lines, b"", b"")
    )


def body(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[2]


@pytest.fixture
def rig(make_rig: MakeRig) -> Any:
    """A resource for three servers as the root of a StreamingSite."""
    return make_rig(
        lambda reactor: RoundRobinResource("http://10.0.0.[1-3]:8188", reactor=reactor), StreamingSite
    )


def test_a_body_of_known_length_arrives_as_it_comes(rig: Any) -> None:
    client = rig.ask(upload(6))
    server = rig.accept()
    assert b"\r\nContent-Length: 6\r\n" in server.read()
    client.send(b"abc")
    assert server.read() == b"abc"
    client.send(b"def")
    assert server.read() == b"def"
    server.send(OK)
    assert client.read() == OK


def test_a_chunked_body_arrives_chunked_as_it_comes(rig: Any) -> None:
    client = rig.ask(CHUNKED)
    server = rig.accept()
    assert b"\r\nTransfer-Encoding: chunked\r\n" in server.read()
    client.send(b"3;x=y\r\nabc\r\n")
    assert server.read() == b"3\r\nabc\r\n"
    client.send(b"0\r\nX-Trailer: 1\r\n\r\n")
    assert server.read() == b"0\r\n\r\n"
    server.send(OK)
    assert client.read() == OK


@pytest.mark.parametrize(
    "request_",
    [upload(5) + b"hello", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
def test_however_it_is_cut_the_same_arrives(rig: Any, request_: bytes) -> None:
    client = rig.client()
    client.send(*(request_[at : at + 1] for at in range(len(request_))))
    server = rig.accept()
    received = body(server.read())
    if b"\r\n" in received:
        received = b"".join(received.split(b"\r\n")[1::2])
    assert received == b"hello"
    server.send(OK)
    client.send(GET)
    assert client.read() == OK
    assert rig.dialled == [("10.0.0.2", 8188)]


def test_a_request_behind_an_upload_is_the_next_request(rig: Any) -> None:
    client = rig.ask(upload(2) + b"hi" + GET)
    server = rig.accept()
    assert server.read().endswith(b"\r\n\r\nhi")
    assert rig.dialled == []
    server.send(OK)
    rig.accept().send(OK)
    assert client.read() == OK + OK


def test_a_request_without_a_body_is_rendered(rig: Any) -> None:
    client = rig.ask(GET)
    rig.accept().send(OK)
    assert client.read() == OK


def test_a_request_for_no_resource_is_twisted_web_s_own(rig: Any) -> None:
    client = rig.ask(upload(2).replace(b"POST /up", b"OPTIONS *") + b"hi")
    assert client.read().startswith(b"HTTP/1.1 200 OK\r\n")
    assert rig.dialled == []


class TestBackPressure:
    def test_the_client_waits_for_a_connection(self, rig: Any) -> None:
        client = rig.ask(upload(1_000_000) + b"x" * 1000)
        assert not client.is_read
        server = rig.accept()
        assert client.is_read
        assert body(server.read()) == b"x" * 1000

    @pytest.mark.parametrize("start", [upload(1_000_000), CHUNKED + b"f0000\r\n"], ids=["length", "chunked"])
    def test_the_client_waits_for_a_slow_server(self, rig: Any, start: bytes) -> None:
        client = rig.ask(start)
        server = rig.accept()
        client.send(b"x" * 70_000)
        assert not client.is_read
        server.read()
        assert client.is_read

    def test_who_must_wait_is_not_idle(self, rig: Any) -> None:
        client = rig.ask(upload(1_000_000))
        server = rig.accept()
        client.send(b"x" * 70_000)
        rig.reactor.pump([50] * 4)
        assert client.how_closed == ""
        server.read()
        rig.reactor.pump([50] * 4)
        assert client.how_closed == "closed"

    def test_who_sent_more_before_it_must_wait_is_not_idle_either(self, rig: Any) -> None:
        client = rig.ask(CHUNKED)
        rig.accept()
        client.send(b"11170\r\n" + b"x" * 70_000 + b"\r\n1\r\nx\r\n")
        rig.reactor.pump([50] * 4)
        assert client.how_closed == ""

    def test_who_waits_for_the_answer_is_not_idle(self, rig: Any) -> None:
        client = rig.ask(CHUNKED)
        server = rig.accept()
        client.send(b"11170\r\n" + b"x" * 70_000 + b"\r\n0\r\n\r\n")
        server.read()
        rig.reactor.pump([50] * 4)
        server.send(OK)
        assert client.read() == OK

    def test_a_body_that_never_begins_is_408(self, rig: Any) -> None:
        client = rig.ask(GET)
        server = rig.accept()
        rig.resource.reload("http://10.0.0.1:8188")
        server.send(OK)
        assert client.read() == OK
        client.send(upload(2))
        rig.reactor.pump([0.25] * 250)
        assert client.read().startswith(b"HTTP/1.1 408 ")
        assert server.how_closed == "aborted"

    def test_the_idle_timeout_is_back_for_the_next_request(self, rig: Any) -> None:
        client = rig.ask(CHUNKED)
        server = rig.accept()
        client.send(b"11170\r\n" + b"x" * 70_000 + b"\r\n0\r\n\r\n")
        server.read()
        server.send(OK)
        client.read()
        rig.reactor.pump([50] * 2)
        assert client.how_closed == "closed"

    def test_the_client_s_end_is_seen_once_the_body_is_there(self, rig: Any) -> None:
        client = rig.ask(upload(70_000))
        server = rig.accept()
        client.send(b"x" * 69_999, b"x")
        assert client.is_read
        client.leave()
        assert server.how_closed == "aborted"


class TestExpectation:
    def test_it_is_the_server_s_to_meet(self, rig: Any) -> None:
        client = rig.ask(upload(2, b"Expect: 100-continue"))
        assert client.read() == b""
        server = rig.accept()
        assert b"\r\nExpect: 100-continue\r\n" in server.read()
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hi")
        assert server.read() == b"hi"

    def test_a_refusal_comes_instead_of_it_and_ends_the_connection(self, rig: Any) -> None:
        client = rig.ask(upload(2, b"Expect: 100-continue"))
        rig.accept().send(OK.replace(b"200 OK", b"413 No"))
        answer = client.read()
        assert answer.startswith(b"HTTP/1.1 413 No\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        rig.reactor.pump([0.25] * 20)
        assert client.how_closed == "closed"

    def test_without_one_nothing_is_promised(self, rig: Any) -> None:
        client = rig.ask(upload(2))
        rig.accept()
        assert client.read() == b""


class TestEarlyAnswer:
    @pytest.fixture
    def early(self, rig: Any) -> tuple[Any, Any]:
        """A client that is sending still, and the server that has answered it."""
        client = rig.ask(upload(1_000_000))
        server = rig.accept()
        client.send(b"x" * 1000)
        server.send(OK)
        return client, server

    def test_it_passes_at_once(self, early: tuple[Any, Any]) -> None:
        client, server = early
        assert client.read() == OK.replace(b"\r\nContent", b"\r\nConnection: close\r\nContent")
        assert server.how_closed

    def test_the_rest_of_the_body_is_no_request(self, early: tuple[Any, Any], rig: Any) -> None:
        client, _ = early
        client.read()
        client.send(b"x" * 998_990 + b"x" * 10 + GET)
        assert client.how_closed == "closed"
        assert client.read() == b""
        assert rig.dialled == []

    def test_what_looks_like_a_request_in_it_is_none(self, early: tuple[Any, Any], rig: Any) -> None:
        client, _ = early
        client.send(GET)
        assert rig.dialled == []

    def test_who_sends_on_is_waited_for_in_bounds(self, early: tuple[Any, Any], rig: Any) -> None:
        client, _ = early
        rig.reactor.pump([0.25] * int(LINGER / 0.25 - 1))
        client.send(b"x")
        assert client.how_closed == ""
        rig.reactor.pump([0.25] * 4)
        assert client.how_closed == "closed"

    def test_a_client_that_leaves_then_is_forgotten(self, early: tuple[Any, Any], rig: Any) -> None:
        client, _ = early
        client.leave()
        rig.reactor.pump([0.25] * 20)
        assert client.how_closed == "by peer"

    def test_a_plain_connection_is_half_closed(self, early: tuple[Any, Any]) -> None:
        client, _ = early
        assert client.wire.half_closed
        assert client.wire.producer is None

    def test_one_under_tls_is_not(self, rig: Any) -> None:
        client = rig.client()
        alsoProvides(client.wire, ISSLTransport)
        client.send(upload(1_000_000))
        rig.accept().send(OK)
        assert client.read().endswith(b"ok")
        assert not client.wire.half_closed

    def test_errors_in_the_rest_are_not_answered_any_more(self, rig: Any) -> None:
        client = rig.ask(CHUNKED)
        rig.accept().send(OK)
        assert client.read().endswith(b"ok")
        client.send(b"zz\r\n")
        assert client.read() == b""

    def test_an_answer_in_chunks_ends_at_once_too(self, rig: Any) -> None:
        client = rig.ask(upload(1_000_000))
        rig.accept().send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        assert body(client.read()) == b"2\r\nok\r\n0\r\n\r\n"
        client.send(b"x" * 1_000_000)
        assert client.read() == b""

    def test_a_client_that_waited_for_the_server_may_send_on(self, rig: Any) -> None:
        client = rig.ask(upload(1_000_000))
        server = rig.accept()
        client.send(b"x" * 70_000)
        assert not client.is_read
        server.send(OK)
        assert client.is_read

    def test_stopping_does_not_wait(self, early: tuple[Any, Any], rig: Any) -> None:
        client, _ = early
        stopping = rig.resource.stop()
        rig.reactor.turn(1200)
        assert stopping.called
        assert client.how_closed == "closed"
        assert rig.timers == []

    def test_an_answer_that_goes_on_while_the_body_comes_passes(self, rig: Any) -> None:
        client = rig.ask(upload(4))
        server = rig.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        client.send(b"wxyz")
        server.send(b"cd")
        assert body(client.read()) == b"abcd"
        assert client.how_closed == "closed"


class TestLimit:
    @pytest.fixture
    def rig(self, make_rig: MakeRig) -> Any:
        return make_rig(
            lambda reactor: RoundRobinResource("http://10.0.0.1", reactor=reactor, limits=Limits(body=9)),
            StreamingSite,
        )

    def test_a_length_is_refused_before_the_body_comes(self, rig: Any) -> None:
        client = rig.ask(upload(10, b"Expect: 100-continue"))
        assert client.read().startswith(b"HTTP/1.1 413 ")
        assert rig.dialled == []

    def test_a_chunked_body_is_refused_when_it_is_too_much(self, rig: Any) -> None:
        client = rig.ask(CHUNKED + b"9\r\nabcdefghi\r\n")
        server = rig.accept()
        client.send(b"1\r\nj\r\n")
        assert client.read().startswith(b"HTTP/1.1 413 ")
        assert server.how_closed == "aborted"


def test_a_client_that_leaves_ends_the_upload(rig: Any) -> None:
    client = rig.ask(upload(1000) + b"x")
    server = rig.accept()
    client.leave()
    assert server.how_closed == "aborted"
    assert rig.resource.balancer.pool.backends[0].leases == 0


def test_a_body_that_breaks_off_its_framing_ends_the_upload(rig: Any) -> None:
    client = rig.ask(CHUNKED)
    server = rig.accept()
    client.send(b"zz\r\n")
    assert client.read().startswith(b"HTTP/1.1 400 ")
    assert not server.read().endswith(b"0\r\n\r\n")
    assert server.how_closed == "aborted"


def test_a_server_that_dies_during_an_upload_is_a_502(rig: Any) -> None:
    client = rig.ask(upload(1000) + b"x")
    server = rig.accept()
    server.leave()
    assert client.read().startswith(b"HTTP/1.1 502 ")


def test_an_answer_that_is_cut_off_cuts_the_upload_off(rig: Any) -> None:
    client = rig.ask(upload(1000) + b"x")
    server = rig.accept()
    server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    server.leave()
    assert client.how_closed == "closed"


def test_a_head_that_breaks_the_rules_is_refused_before_the_body_comes(rig: Any) -> None:
    client = rig.ask(upload(5).replace(b"Host: h", b"Host: h/h"))
    assert client.read().startswith(b"HTTP/1.1 400 ")
    assert rig.dialled == []
    client.send(b"hello" + GET)
    assert client.how_closed == "closed"
    assert rig.dialled == []


@pytest.mark.parametrize(
    "request_",
    [upload(5) + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
def test_a_router_that_wants_the_body_gets_it_whole(make_rig: MakeRig, request_: bytes) -> None:
    seen: list[bytes | None] = []

    class Reader:
        drop: frozenset[bytes] = frozenset()
        message_key = None

        def route(self, head: RequestHead, body: bytes | None, now: float) -> Any:
            seen.append(body)
            return NeedBody(1000) if body is None else Default()

        def place(self, head: RequestHead, body: bytes | None, backend: Backend, now: float) -> None:
            return None

    balancer = Balancer(Pool("p", [Address("http", "10.0.0.1", 1)]), router=Reader())  # type: ignore[arg-type]
    rig = make_rig(lambda reactor: RoundRobinResource(balancer, reactor=reactor), StreamingSite)
    client = rig.client()
    client.send(request_[:-3], request_[-3:])
    assert seen == [None, b"hello"]
    received = rig.accept().read()
    assert b"\r\nContent-Length: 5\r\n" in received
    assert body(received) == b"hello"


class Echo(Resource):
    """An ordinary resource, which reads the body when it is there."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        return bytes(request.content.read())


def test_other_resources_of_the_site_get_their_bodies_as_ever(make_rig: MakeRig) -> None:
    def build(reactor: Any) -> Resource:
        root = Resource()
        root.putChild(b"up", Echo())
        root.putChild(b"gpu", RoundRobinResource("http://10.0.0.1", reactor=reactor))
        return root

    rig = make_rig(build, StreamingSite)
    client = rig.ask(upload(5, b"Expect: 100-continue"))
    assert client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    assert client.read().endswith(b"\r\n\r\nhello")
    streaming = rig.ask(upload(5).replace(b"/up", b"/gpu"))
    assert rig.dialled == [("10.0.0.1", 80)]
    streaming.leave()


class TestFindPlaced:
    """Which resource is found before the body is there."""

    @staticmethod
    def find(root: Resource, *segments: bytes) -> tuple[Any, Any]:
        request = SimpleNamespace(prepath=[], postpath=list(segments))
        return find_placed(Site(root), request), request  # type: ignore[arg-type]

    def test_a_leaf_at_the_root(self) -> None:
        leaf = Echo()
        found, request = self.find(leaf, b"a", b"b")
        assert found is leaf
        assert (request.prepath, request.postpath) == ([], [b"a", b"b"])

    def test_a_leaf_that_was_put_in_its_place(self) -> None:
        root, middle, leaf = Resource(), Resource(), Echo()
        root.putChild(b"a", middle)
        middle.putChild(b"b", leaf)
        found, request = self.find(root, b"a", b"b", b"c")
        assert found is leaf
        assert (request.prepath, request.postpath) == ([b"a", b"b"], [b"c"])

    def test_nothing_that_must_be_asked_for(self) -> None:
        class Asked(Resource):
            def getChild(self, path: bytes, request: Any) -> Resource:
                raise AssertionError("asked before its time")

        assert self.find(Asked(), b"a")[0] is None

    def test_nothing_behind_a_guard(self) -> None:
        class Guard(Resource):
            def getChildWithDefault(self, path: bytes, request: Any) -> Resource:
                raise AssertionError("asked before its time")

        root = Guard()
        root.putChild(b"a", Echo())
        assert self.find(root, b"a")[0] is None

    def test_nothing_in_a_site_that_looks_for_itself(self) -> None:
        class Looking(Site):
            def getResourceFor(self, request: Any) -> Resource:
                raise AssertionError("asked before its time")

        request = SimpleNamespace(prepath=[], postpath=[b"a"])
        assert find_placed(Looking(Echo()), request) is None  # type: ignore[arg-type]
