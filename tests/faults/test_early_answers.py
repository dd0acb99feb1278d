"""Servers that answer before they have the request: it gets through, and the rest of a body harms nobody."""

import pytest
from fault_rig.daemon import Daemon
from fault_rig.peers import PATIENCE, Connection, Server, accept_from

SIZE = 8 * 1024 * 1024
HEADS = {
    "length": b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % SIZE,
    "chunked": b"POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
}
BLOCK = b"b" * 65536
LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large"


def send_body(client: Connection, framing: str) -> None:
    """Send the whole body, or as much as is taken."""
    client.socket.settimeout(PATIENCE)
    try:
        for _ in range(SIZE // len(BLOCK)):
            client.send(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if framing == "chunked" else BLOCK)
        if framing == "chunked":
            client.send(b"0\r\n\r\n")
    except ConnectionError:
        return


@pytest.mark.parametrize("ending", ["closes", "stays", "resets"])
@pytest.mark.parametrize("framing", HEADS)
def test_an_answer_before_the_body_reaches_a_client_that_is_still_sending(
    daemon: Daemon, servers: list[Server], framing: str, ending: str
) -> None:
    with daemon.ask(HEADS[framing]) as client:
        first = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if framing == "chunked" else BLOCK
        client.send(first)
        backend = accept_from(servers)[1]
        backend.read_head()
        backend.send(LARGE)
        answer = client.answer("POST")
        assert (answer.status, answer.body, answer.complete) == (413, b"too large", True)
        if ending == "closes":
            backend.close()
        elif ending == "resets":
            backend.reset()
        send_body(client, framing)
        rest, _ = client.read_rest()
        assert rest == b"", "a second answer, or the body taken for a request"
        if ending == "stays":
            with backend:
                backend.read_rest()
    assert not any(server.has_waiting for server in servers)


@pytest.mark.parametrize("framing", HEADS)
def test_an_answer_of_which_the_body_comes_before_the_requests_does_is_whole(
    daemon: Daemon, servers: list[Server], framing: str
) -> None:
    """Both directions are long: what is sent early must not be lost when the rest of the body is dropped."""
    body = b"a" * SIZE
    with daemon.ask(HEADS[framing]) as client, accept_from(servers)[1] as backend:
        backend.read_head()
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + body[:1000])
        client.wait()
        client.send(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if framing == "chunked" else BLOCK)
        backend.socket.settimeout(PATIENCE)
        send_while_reading(backend, body[1000:], client)


def send_while_reading(backend: Connection, body: bytes, client: Connection) -> None:
    """Send ``body`` piece by piece while the client reads; every octet arrives."""
    head = client.read_head()
    assert head.startswith(b"HTTP/1.1 200 ")
    got = 0
    view = memoryview(body)
    while view:
        got += len(client.socket.recv(65536))
        view = view[backend.socket.send(view[:32768]) :]
    while got < SIZE and (piece := client.socket.recv(65536)):
        got += len(piece)
    assert got == SIZE


def test_a_server_that_answers_early_and_takes_nothing_more_is_not_used_again(
    daemon: Daemon, servers: list[Server]
) -> None:
    head = b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n"
    with daemon.ask(head + b"12345") as client, accept_from(servers)[1] as backend:
        backend.read_head()
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.answer("POST").status == 200
        rest, _ = backend.read_rest()
        assert rest in (b"", b"12345")
    with daemon.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") as client, accept_from(servers)[1] as backend:
        assert backend.read_head().startswith(b"GET / ")
        backend.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert client.answer().status == 204
