"""The request as a backend gets it."""

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.routing import Decision, Default, Rewrite
from comfyproxy.core.http.forwarding import (
    UPGRADE,
    answer_fields,
    compose_request,
    informational_fields,
    with_request_id,
)
from comfyproxy.core.http.headers import Forwarder
from comfyproxy.core.http.http1 import RequestHead, ResponseHead, parse_request_head, parse_response_head

FORWARDER = Forwarder(b"192.0.2.7", b"http", b"us")
OURS = (
    b"X-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"
    b"X-Forwarded-Host: front\r\n"
)


class CookieRouter:
    """Drops ``Origin``, and its own cookie, which is all of a value that is ``own``."""

    drop = frozenset((b"origin",))

    def route(self, head: RequestHead, body: bytes | None, now: float) -> Decision:
        return Default()

    def place(self, head: RequestHead, body: bytes | None, backend: Backend, now: float) -> Rewrite | None:
        return None

    def learn(self, answer: ResponseHead, body: bytes, backend: Backend, now: float) -> None:
        pass

    def message_key(self, payload: bytes, is_binary: bool) -> None:
        return None

    def cookies(self, value: bytes) -> bytes:
        return b"" if value == b"own" else value


def compose(  # type: ignore[no-untyped-def]
    lines: bytes, start: bytes = b"GET /a?b HTTP/1.1", router=None, body=None, handshake=b"", request_id=""
) -> bytes:
    head = parse_request_head(start + b"\r\nHost: front\r\n" + lines + b"\r\n")
    return compose_request(
        head,
        target=head.target,
        host=b"backend:8188",
        forwarder=FORWARDER,
        router=router,
        body=body,
        handshake=handshake,
        request_id=request_id,
    )


def test_host_comes_first_and_the_rest_as_it_came_with_ours_behind() -> None:
    sent = compose(b"X-b: 1\r\nAccept: */*\r\nx-B: 2\r\n")
    expected = (
        b"GET /a?b HTTP/1.1\r\nHost: backend:8188\r\nX-b: 1\r\nAccept: */*\r\nx-B: 2\r\n" + OURS + b"\r\n"
    )
    assert sent == expected


def test_a_known_body_has_its_own_length_and_goes_with_the_head() -> None:
    sent = compose(b"Content-Length: 5\r\n", b"POST /prompt HTTP/1.1", body=b"longer body")
    assert sent.endswith(b"\r\nContent-Length: 11\r\n\r\nlonger body")
    assert sent.count(b"Content-Length") == 1


def test_a_chunked_body_stays_chunked() -> None:
    sent = compose(b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.1")
    assert sent.endswith(b"Transfer-Encoding: chunked\r\n\r\n")


def test_a_chunked_body_that_was_gathered_gets_a_length() -> None:
    sent = compose(b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.1", body=b"{}")
    assert b"Transfer-Encoding" not in sent
    assert sent.endswith(b"Content-Length: 2\r\n\r\n{}")


def test_a_body_that_streams_keeps_the_length_it_came_with() -> None:
    assert b"Content-Length: 0005\r\n" in compose(b"Content-Length: 0005\r\n", b"PUT / HTTP/1.1")


def test_an_edit_has_the_last_word_but_for_the_framing() -> None:
    head = parse_request_head(
        b"PUT / HTTP/1.1\r\nHost: front\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    seen = []

    def edit(fields: bytes) -> bytes:
        seen.append(fields)
        return b"X-B: 2\r\n"

    sent = compose_request(
        head, target=b"/", host=b"back", forwarder=FORWARDER, router=None, body=None, edit=edit
    )
    assert sent == b"PUT / HTTP/1.1\r\nHost: back\r\nX-B: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert seen == [b"X-A: 1\r\n" + OURS]


def test_what_a_router_drops_and_its_cookies_do_not_pass() -> None:
    sent = compose(b"Origin: http://x\r\nCookie: own\r\nCookie: other=1\r\n", router=CookieRouter())
    assert b"Origin" not in sent
    assert b"own" not in sent
    assert b"\r\nCookie: other=1\r\n" in sent


def test_a_websocket_handshake_passes_whole() -> None:
    lines = UPGRADE + b"Sec-WebSocket-Key: k\r\nSec-WebSocket-Extensions: e\r\n"
    sent = compose(lines, handshake=UPGRADE)
    assert sent.endswith(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert b"Sec-WebSocket-Key: k\r\n" in sent
    assert b"Sec-WebSocket-Extensions: e\r\n" in sent


def test_a_handshake_of_this_hop_replaces_key_and_extensions() -> None:
    lines = b"Sec-WebSocket-Key: k\r\nSec-WebSocket-Extensions: e\r\nSec-WebSocket-Protocol: p\r\n"
    sent = compose(lines, handshake=UPGRADE + b"Sec-WebSocket-Key: ours\r\n")
    assert b"Key: k" not in sent
    assert b"Extensions" not in sent
    assert b"Sec-WebSocket-Protocol: p\r\n" in sent
    assert sent.endswith(b"Sec-WebSocket-Key: ours\r\n\r\n")


def test_an_upgrade_that_is_not_one_loses_its_hop_by_hop_fields() -> None:
    sent = compose(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n")
    assert b"Upgrade" not in sent
    assert b"HTTP2-Settings" not in sent
    assert b"Connection" not in sent


def test_te_passes_only_as_trailers() -> None:
    assert compose(b"TE: gzip, Trailers\r\n").endswith(b"Connection: TE\r\nTE: trailers\r\n\r\n")
    assert b"TE:" not in compose(b"TE: gzip\r\n")
    assert b"TE:" not in compose(b"TE: x-trailers\r\n")


def test_max_forwards_of_options_goes_down_by_one() -> None:
    assert b"\r\nMax-Forwards: 4\r\n" in compose(b"max-forwards: 05\r\n", b"OPTIONS /x HTTP/1.1")
    assert b"\r\nmax-forwards: 05\r\n" in compose(b"max-forwards: 05\r\n", b"GET /x HTTP/1.1")


def answer(lines: bytes, status: bytes = b"200 OK", method: bytes = b"GET") -> ResponseHead:
    return parse_response_head(b"HTTP/1.1 " + status + b"\r\n" + lines + b"\r\n", method)


def test_an_answer_of_known_length_passes_as_it_is() -> None:
    lines = b"Server: x\r\nContent-Length: 3\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
    assert answer_fields(answer(lines + b"Keep-Alive: 5\r\n"), takes_chunks=True) == lines


def test_an_answer_of_unknown_length_is_chunked_for_who_takes_chunks() -> None:
    assert answer_fields(answer(b"A: 1\r\n"), takes_chunks=True) == b"A: 1\r\nTransfer-Encoding: chunked\r\n"
    assert answer_fields(answer(b"A: 1\r\n"), takes_chunks=False) == b"A: 1\r\n"


def test_trailers_are_announced_only_where_they_can_follow() -> None:
    head = answer(b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n")
    chunked = b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n"
    assert answer_fields(head, takes_chunks=True) == chunked
    assert answer_fields(head, takes_chunks=False) == b""


def test_answers_that_never_have_a_body_have_no_length() -> None:
    assert answer_fields(answer(b"Content-Length: 3\r\n", b"204 No Content"), takes_chunks=True) == b""
    assert (
        informational_fields(answer(b"Link: x\r\nContent-Length: 0\r\n", b"103 Early Hints"))
        == b"Link: x\r\n"
    )


def test_a_205_says_that_it_is_empty() -> None:
    assert answer_fields(answer(b"", b"205 Reset Content"), takes_chunks=True) == b"Content-Length: 0\r\n"


def test_a_request_id_takes_the_place_of_what_the_client_sent_in_whatever_spelling() -> None:
    sent = compose(b"x-request-id: theirs\r\nX_Request_ID: theirs\r\nA: b\r\n", request_id="ours")
    assert b"theirs" not in sent
    assert sent.count(b"X-Request-ID: ours\r\n") == 1
    assert b"x-request-id: theirs\r\n" in compose(b"x-request-id: theirs\r\n")


def test_an_answer_has_one_request_id() -> None:
    fields = b"A: b\r\nx-Request-id: theirs\r\nX-Request-ID: again\r\nC: d\r\n"
    assert with_request_id(fields, "ours") == b"A: b\r\nC: d\r\nX-Request-ID: ours\r\n"
