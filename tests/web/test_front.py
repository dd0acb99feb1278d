"""The front over twisted.web's request: bodies in, answers out, and how they end early."""

from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.web.http import Request

from tests.web.messages import GET, OK, line


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_without_a_body_has_none(rig: Any, status: bytes) -> None:
    client = rig.ask(GET)
    answer = b"HTTP/1.1 %b\r\nETag: x\r\nDate: then\r\n\r\n" % status
    rig.accept().send(answer)
    assert client.read() == answer


def test_a_205_says_that_it_has_no_body(rig: Any) -> None:
    client = rig.ask(GET)
    rig.accept().send(b"HTTP/1.1 205 Reset Content\r\nDate: then\r\n\r\n")
    assert client.read() == b"HTTP/1.1 205 Reset Content\r\nDate: then\r\nContent-Length: 0\r\n\r\n"


def test_the_answer_to_head_keeps_its_length(rig: Any) -> None:
    client = rig.ask(GET.replace(b"GET", b"HEAD"))
    rig.accept().send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nDate: then\r\n\r\n")
    assert client.read() == b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nDate: then\r\n\r\n"
    client.send(GET)
    assert rig.dialled == [("10.0.0.2", 8188)]


def test_the_reason_phrase_is_the_server_s(rig: Any) -> None:
    client = rig.ask(GET)
    rig.accept().send(OK.replace(b"200 OK", b"200 Alright then"))
    assert line(client.read()) == b"HTTP/1.1 200 Alright then"


def test_an_answer_of_unknown_length_ends_with_the_connection_for_http_1_0(rig: Any) -> None:
    client = rig.ask(GET.replace(b"/1.1", b"/1.0"))
    rig.accept().send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert client.read().endswith(b"\r\n\r\nok")
    assert client.how_closed == "closed"


class TestBody:
    @staticmethod
    def upload(size: int) -> bytes:
        return b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size

    @pytest.mark.parametrize("size", [1, 65_536, 65_537, 1_000_000])
    def test_all_of_it_arrives(self, rig: Any, size: int) -> None:
        rig.ask(self.upload(size))
        server = rig.accept()
        received = b""
        while data := server.read():
            received += data
        assert received.partition(b"\r\n\r\n")[2] == b"x" * size

    def test_no_more_than_two_pieces_wait_for_a_connection_or_a_slow_server(self, rig: Any) -> None:
        client = rig.ask(self.upload(10_000_000))
        server = rig.accept()
        assert len(server.wire.value()) < 200_000
        server.read()
        server.read()
        server.send(OK.replace(b"200 OK", b"413 Too Much"))
        assert line(client.read()) == b"HTTP/1.1 413 Too Much"
        assert server.how_closed
        client.send(GET)
        assert rig.dialled == [("10.0.0.2", 8188)]

    def test_a_server_that_takes_everything_at_once_does_not_hold_up_the_rest(self, rig: Any) -> None:
        rig.ask(self.upload(3_000_000))
        server = rig.accept()
        server.wire.producer.pauseProducing = lambda: None
        server.wire.producer.resumeProducing()
        assert 1_000_000 < len(server.wire.value()) < 1_400_000
        rig.reactor.turn(3)
        assert len(server.wire.value()) > 3_000_000

    def test_a_client_that_leaves_ends_the_upload(self, rig: Any) -> None:
        client = rig.ask(self.upload(1_000_000))
        server = rig.accept()
        client.leave()
        assert server.how_closed == "aborted"

    def test_an_expectation_is_twisted_web_s_to_answer_and_not_the_server_s(self, rig: Any) -> None:
        client = rig.ask(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hi")
        assert b"Expect" not in rig.accept().read()


def test_a_reason_phrase_that_the_server_left_out_is_left_out(rig: Any) -> None:
    client = rig.ask(GET)
    rig.accept().send(OK.replace(b"200 OK", b"200 "))
    assert line(client.read()) == b"HTTP/1.1 200 "


def test_a_client_that_does_not_read_what_was_cut_off_is_not_waited_for(rig: Any) -> None:
    client = rig.ask(GET)
    server = rig.accept()
    server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 70_000)
    client.wire.loseConnection = lambda: None
    server.leave()
    rig.reactor.pump([1] * 15)
    assert client.how_closed == ""
    rig.reactor.pump([1] * 16)
    assert client.how_closed == "aborted"


def test_fields_that_the_application_has_set_stay(make_rig: Any, rig: Any) -> None:
    class Secure:
        """A root that adds a field to every answer."""

        isLeaf = True

        def render(self, request: Request) -> Any:
            request.setHeader(b"strict-transport-security", b"max-age=60")
            return rig.resource.render(request)

    client = make_rig(lambda reactor: Secure()).ask(GET)
    rig.accept().send(OK)
    assert b"\r\nStrict-Transport-Security: max-age=60\r\n" in client.read()


def test_pipelined_requests_are_answered_in_their_order(rig: Any) -> None:
    client = rig.ask(GET + GET)
    assert rig.dialled == [("10.0.0.1", 8188)]
    rig.accept().send(OK)
    rig.accept().send(OK.replace(b"ok", b"on"))
    assert client.read() == OK + OK.replace(b"ok", b"on")


def test_closing_the_proxy_cuts_what_is_going_on(rig: Any) -> None:
    client = rig.ask(GET)
    rig.accept()
    closing = ensureDeferred(rig.resource.proxy.close())
    rig.reactor.turn(5)
    assert closing.called
    assert client.how_closed == "aborted"


class TestLog:
    """One line of the Site's for each request that had an answer, as of any resource."""

    @pytest.fixture
    def lines(self, rig: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, int]]:
        found: list[tuple[bytes, int]] = []
        monkeypatch.setattr(rig.site, "log", lambda request: found.append((request.uri, request.code)))
        return found

    def test_an_answer(self, rig: Any, lines: list[tuple[bytes, int]]) -> None:
        rig.ask(GET)
        rig.accept().send(OK)
        assert lines == [(b"/", 200)]

    def test_an_answer_of_our_own(self, rig: Any, lines: list[tuple[bytes, int]]) -> None:
        rig.resource.reload([])
        rig.ask(GET)
        assert lines == [(b"/", 503)]

    def test_nothing_for_a_client_that_left(self, rig: Any, lines: list[tuple[bytes, int]]) -> None:
        rig.ask(GET).leave()
        assert lines == []
