"""Servers that break off, at every octet of the request as they got it and of the answer as they sent it."""

import select
from dataclasses import dataclass

import pytest
from fault_rig.daemon import Daemon
from fault_rig.peers import PATIENCE, Answer, Connection, Server, accept_from

GET = b"GET /thing HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /thing HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n" + b"b" * 20
CHUNKED_PUT = (
    b"PUT /thing HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"6\r\nabcdef\r\n4;ext=1\r\n0123\r\n0\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"

WAYS = {"closes": Connection.close, "resets": Connection.reset}
"""How a server ends a connection: with the request unread, even a close is a reset."""


def length_as_received(daemon: Daemon, servers: list[Server], request: bytes) -> int:
    """How many octets ``request`` has when it comes to a server."""
    with daemon.ask(request) as client, accept_from(servers)[1] as backend:
        head = backend.read_head()
        body = (
            backend.read_until(b"0\r\n\r\n") if b"chunked" in head else backend.read(20 * (b"POST" in head))
        )
        backend.send(OK)
        assert client.answer().body == b"other"
        return len(head) + len(body)


@pytest.mark.parametrize("request_", [GET, CHUNKED_PUT], ids=["GET", "PUT"])
def test_what_may_be_repeated_is_answered_by_another_server_wherever_the_first_resets(
    daemon: Daemon, servers: list[Server], request_: bytes
) -> None:
    body_at_hand = not request_.startswith(b"PUT")
    for count in range(length_as_received(daemon, servers, request_)):
        with daemon.ask(request_) as client:
            first, backend = accept_from(servers)
            backend.wait()
            backend.read(count)
            backend.reset()
            if body_at_hand:
                second, backend = accept_from(servers)
                assert second is not first
                with backend:
                    assert backend.read_head().startswith(b"GET /thing")
                    backend.send(OK)
                    answer = client.answer()
            else:
                answer = client.answer()
            assert (answer.status, answer.complete) == (200 if body_at_hand else 502, True), count
        assert not any(server.has_waiting for server in servers)


def test_what_killed_two_servers_is_not_shown_to_a_third(daemon: Daemon, servers: list[Server]) -> None:
    for count in range(length_as_received(daemon, servers, GET)):
        with daemon.ask(GET) as client:
            for _ in range(2):
                backend = accept_from(servers)[1]
                backend.wait()
                backend.read(count)
                backend.reset()
            assert client.answer().status == 502, count


def test_a_post_that_a_server_had_is_never_sent_again(daemon: Daemon, servers: list[Server]) -> None:
    for count in range(length_as_received(daemon, servers, POST)):
        with daemon.ask(POST) as client:
            backend = accept_from(servers)[1]
            backend.wait()
            backend.read(count)
            backend.reset()
            answer = client.answer()
            assert (answer.status, answer.complete) == (502, True), count
        assert not any(server.has_waiting for server in servers), count


def test_a_connection_that_is_reset_as_it_is_made_costs_no_request(
    daemon: Daemon, servers: list[Server]
) -> None:
    """Whether the request was on its way by then is a matter of luck: a POST is then not sent again."""
    for _ in range(50):
        with daemon.ask(POST) as client:
            first, backend = accept_from(servers)
            backend.reset()
            ready = select.select([client, *servers], [], [], PATIENCE)[0]
            if client in ready:
                assert client.answer().status == 502
                continue
            second, backend = accept_from(servers)
            assert second is not first
            with backend:
                backend.read_head()
                backend.read(20)
                backend.send(OK)
                assert client.answer().status == 200


@dataclass(frozen=True)
class Sent:
    """An answer as a server sends it; ``content`` is what its body means."""

    head: bytes
    body: bytes = b""
    content: bytes = b""
    method: str = "GET"
    until_close: bool = False


ANSWERS = {
    "length": Sent(
        b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 26\r\n\r\n",
        b"abcdefghijklmnopqrstuvwxyz",
        b"abcdefghijklmnopqrstuvwxyz",
    ),
    "chunked": Sent(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"A\r\n0123456789\r\n3;a=b\r\nxyz\r\n0\r\nX-Sum: t\r\n\r\n",
        b"0123456789xyz",
    ),
    "until close": Sent(
        b"HTTP/1.1 200 OK\r\nServer: s\r\n\r\n", b"until it closes", b"until it closes", until_close=True
    ),
    "no content": Sent(b"HTTP/1.1 204 No Content\r\nServer: s\r\n\r\n"),
    "HEAD": Sent(b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n", method="HEAD"),
    "hints": Sent(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        b"abc",
        b"abc",
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_cut_anywhere_is_never_taken_for_a_whole_one(
    daemon: Daemon, servers: list[Server], kind: str, way: str
) -> None:
    sent = ANSWERS[kind]
    octets = sent.head + sent.body
    request = GET.replace(b"GET", sent.method.encode(), 1)
    for count in range(len(octets) + 1):
        with daemon.ask(request) as client:
            first, backend = accept_from(servers)
            backend.read_head()
            backend.send(octets[:count])
            WAYS[way](backend)
            if not count:
                second, backend = accept_from(servers)
                assert second is not first
                with backend:
                    backend.read_head()
                    backend.send(OK)
                    assert client.answer(sent.method).status == 200
                continue
            expect_what_came(client.answer(sent.method), sent, count, way)


def expect_what_came(answer: Answer, sent: Sent, count: int, way: str) -> None:
    """The client got what the server sent, and can tell whether that was all."""
    where = f"after {count} octets: {answer}"
    if count < len(sent.head):
        assert (answer.status, answer.complete) == (502, True), where
        return
    is_whole = count == len(sent.head + sent.body)
    if sent.until_close:
        is_whole = way == "closes"
    assert answer.status in (200, 204), where
    assert answer.complete == is_whole, where
    assert sent.content.startswith(answer.body), where
    if is_whole and not sent.until_close:
        assert answer.body == sent.content, where


KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@pytest.mark.parametrize("way", WAYS)
def test_a_handshake_cut_anywhere_is_a_502_and_a_tunnel_cut_anywhere_ends_as_it_did(
    daemon: Daemon, servers: list[Server], way: str
) -> None:
    frame = b"\x82\x05hello"
    octets = SWITCHED + frame
    for count in range(1, len(octets) + 1):
        with daemon.ask(UPGRADE) as client:
            backend = accept_from(servers)[1]
            backend.read_head()
            backend.send(octets[:count])
            if count < len(SWITCHED):
                WAYS[way](backend)
                assert client.answer().status == 502, count
                continue
            assert client.read_head().startswith(b"HTTP/1.1 101 "), count
            # A tunnel's octets may be lost behind a reset, here as everywhere: so they are read before it.
            got = client.read(count - len(SWITCHED))
            assert got == frame[: len(got)]
            WAYS[way](backend)
            rest, clean = client.read_rest()
            assert (rest, clean) == (b"", way == "closes"), count


@pytest.mark.parametrize("count", [0, 1, 200_000])
def test_a_tunnel_that_a_client_resets_is_reset_at_the_server(
    daemon: Daemon, servers: list[Server], count: int
) -> None:
    client = daemon.ask(UPGRADE)
    with accept_from(servers)[1] as backend:
        backend.read_head()
        backend.send(SWITCHED)
        client.read_head()
        client.send(b"x" * count)
        assert backend.read(count) == b"x" * count
        client.reset()
        assert backend.read_rest() == (b"", False)


def test_a_client_that_leaves_anywhere_in_its_request_leaves_nothing(
    daemon: Daemon, servers: list[Server]
) -> None:
    """Every other one resets, the others close; a server learns of it only where it had the head."""
    head = POST.index(b"\r\n\r\n") + 4
    for count in range(len(POST)):
        client = daemon.connect()
        client.send(POST[:count])
        if count >= head:
            with accept_from(servers)[1] as backend:
                backend.read_head()
                (client.reset if count % 2 else client.close)()
                backend.read_rest()
        else:
            (client.reset if count % 2 else client.close)()
    daemon.assert_at_rest()
    assert not any(server.has_waiting for server in servers)


@pytest.mark.parametrize("kind", ["length", "chunked", "until close"])
def test_a_client_that_leaves_anywhere_in_its_answer_leaves_nothing(
    daemon: Daemon, servers: list[Server], kind: str
) -> None:
    """The answer goes on until the server is told that nobody listens."""
    sent = ANSWERS[kind]
    octets = sent.head + sent.body
    for count in range(len(octets)):
        client = daemon.ask(GET)
        with accept_from(servers)[1] as backend:
            backend.read_head()
            backend.send(octets[:count])
            if count >= len(sent.head):
                client.read_head()
            client.reset()
            assert backend.read_rest()[0] == b""
