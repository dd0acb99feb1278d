"""Servers and clients that stop in the middle, in every phase: each wait has an end, and the end an answer.

All stalls of a test go on at once, so that it takes as long as the longest of them.
"""

import select
import socket
import time
from collections.abc import Iterator

import pytest
from fault_rig.daemon import Daemon, StartDaemon, options_of
from fault_rig.peers import PATIENCE, Connection, Server, StartServer, accept_from

OPTIONS = [
    *("--connect-timeout", "0.3s", "--head-timeout", "0.3s", "--body-timeout", "0.3s"),
    *("--response-timeout", "0.7s", "--idle-timeout", "0.3s", "--keepalive-timeout", "0.3s"),
]

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LONGEST = 5.0
"""Seconds after which something that should end in 0.7 has not been ended by that, even on a busy machine."""


ONCE = ("objects: Connector",)
"""What a daemon keeps of a server once it was asked to connect to it."""


class FullServer:
    """A port whose queue of connections is full: the handshake of TCP itself gets no answer."""

    def __init__(self) -> None:
        self._server = Server(backlog=0)
        self.url = self._server.url
        self._waiting: list[socket.socket] = []
        # The queue takes one more than it is told; Linux drops what comes then.
        for _ in range(3):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", self._server.port))
            self._waiting.append(waiting)

    def close(self) -> None:
        """Let all go."""
        for one in [self._server, *self._waiting]:
            one.close()


@pytest.fixture
def full_server() -> Iterator[FullServer]:
    server = FullServer()
    yield server
    server.close()


def test_a_server_that_takes_no_connection_is_passed_over(
    start_daemon: StartDaemon, start_server: StartServer, full_server: FullServer
) -> None:
    server = start_server()
    daemon = start_daemon(*options_of([full_server.url, server.url]), *OPTIONS)
    clients = [daemon.ask(GET) for _ in range(4)]
    for _ in clients:
        with server.accept() as backend:
            backend.read_head()
            backend.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    for client in clients:
        with client:
            assert client.answer().status == 204


def test_when_no_server_takes_a_connection_the_client_is_told_in_time(
    start_daemon: StartDaemon, full_server: FullServer
) -> None:
    daemon = start_daemon(*options_of([full_server.url]), *OPTIONS)
    began = time.monotonic()
    with daemon.ask(GET) as client:
        assert client.answer().status == 503
    assert time.monotonic() - began < LONGEST
    daemon.assert_at_rest(but_for=ONCE)


def test_a_server_that_stalls_in_the_handshake_of_tls_is_passed_over(
    start_daemon: StartDaemon, start_server: StartServer
) -> None:
    silent, plain = start_server(), start_server()
    urls = [silent.url.replace("http", "https"), plain.url]
    daemon = start_daemon(*options_of(urls), *OPTIONS)
    for _ in range(2):
        with daemon.ask(GET) as client:
            server, backend = accept_from([silent, plain])
            if server is silent:
                hello = backend.read(5)
                assert hello[:1] == b"\x16", "a record of TLS's handshake"
                stalled, (server, backend) = backend, accept_from([plain])
                stalled.close()
            with backend:
                backend.read_head()
                backend.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                assert client.answer().status == 204


SILENCES = {
    "before a head": b"",
    "in a head": HEAD[:20],
    "after hints": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "at a body": HEAD,
    "in a body": HEAD + b"12345",
    "in the size of a chunk": CHUNKED + b"1",
    "in a chunk": CHUNKED + b"A\r\n12345",
    "before the last chunk": CHUNKED + b"1\r\nx\r\n",
    "in the trailers": CHUNKED + b"1\r\nx\r\n0\r\nX-Sum",
    "in a body without a length": b"HTTP/1.1 200 OK\r\n\r\n12345",
}


def test_a_server_that_falls_silent_anywhere_is_given_up(daemon: Daemon, servers: list[Server]) -> None:
    asked: list[tuple[str, Connection, Connection]] = []
    for where, sent in SILENCES.items():
        client = daemon.ask(GET)
        backend = accept_from(servers)[1]
        backend.read_head()
        backend.send(sent)
        asked.append((where, client, backend))
    began = time.monotonic()
    for where, client, backend in asked:
        with client, backend:
            answer = client.answer()
            has_begun = b"\r\n\r\n" in SILENCES[where] and "hints" not in where
            assert answer.status == (200 if has_begun else 504), where
            assert answer.complete is not has_begun, where
            assert backend.read_rest()[0] == b"", where
    assert time.monotonic() - began < PATIENCE
    assert not any(server.has_waiting for server in servers), "the work would be done twice"


def test_a_server_that_takes_no_body_is_given_up(daemon: Daemon, servers: list[Server]) -> None:
    """It reads the head and no more: the kernel's buffers fill, then ours, then the client waits."""
    size = 64 * 1024 * 1024
    client = daemon.ask(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
    with client, accept_from(servers)[1] as backend:
        backend.read_head()
        sent = 0
        block = b"x" * 262_144
        while not (ready := select.select([client], [client], [], PATIENCE))[0]:
            assert ready[1], "neither is it answered, nor is more of it taken"
            sent += client.socket.send(block)
            assert sent < size / 2
        answer = client.answer()
        assert answer.status == 504, answer


FIRST_HALVES = {
    "a head": b"GET / HTTP/1.1\r\nHo",
    "a line": b"GE",
    "a body": b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345",
    "a chunk": b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n12345",
}


def test_a_client_that_stops_in_its_request_is_told_so(daemon: Daemon, servers: list[Server]) -> None:
    clients = {where: daemon.ask(half) for where, half in FIRST_HALVES.items()}
    backends = [accept_from(servers)[1] for half in FIRST_HALVES.values() if b"PUT" in half]
    began = time.monotonic()
    for where, client in clients.items():
        with client:
            assert client.answer().status == 408, where
    assert time.monotonic() - began < PATIENCE
    for backend in backends:
        with backend:
            assert backend.read_rest()[0].startswith(b"PUT / HTTP/1.1\r\n")


def test_a_client_that_says_nothing_is_closed_without_a_word(daemon: Daemon) -> None:
    with daemon.connect() as client:
        assert client.read_rest() == (b"", True)


def test_a_client_that_takes_no_answer_holds_up_its_own_server_only_and_is_cut(
    daemon: Daemon, servers: list[Server]
) -> None:
    size = 256 * 1024 * 1024
    before = daemon.memory
    client = daemon.ask(GET)
    with client, accept_from(servers)[1] as backend:
        backend.read_head()
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        sent = 0
        block = b"x" * 262_144
        try:
            while sent < size:
                sent += backend.socket.send(block)
        except ConnectionError:
            pass
        assert sent < size / 2, "nobody took it, so it must not have been taken from the server"
        assert daemon.memory - before < 8 * 1024 * 1024


def test_a_server_that_stalls_in_the_handshake_holds_nothing_after_the_client_has_left(
    start_daemon: StartDaemon, start_server: StartServer
) -> None:
    """The other way round: here it is the client who waits no longer."""
    silent = start_server()
    daemon = start_daemon(*options_of([silent.url.replace("http", "https")]), "--connect-timeout", "1h")
    client = daemon.ask(GET)
    backend = silent.accept()
    assert backend.read(1) == b"\x16"
    client.close()
    backend.read_rest()
    backend.close()
    daemon.assert_at_rest(but_for=ONCE)
