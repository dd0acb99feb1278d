"""Servers that answer what is no HTTP: the files in garbage/ and tests/vectors, octets without end, too much.

No octet of it may come to a client as an answer, and none to the next request on the same connection.
"""

import contextlib
import select
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_rig.daemon import Daemon
from fault_rig.peers import PATIENCE, Connection, Server, accept_from

GARBAGE = sorted((Path(__file__).parent / "garbage").glob("*.bin"))
VECTORS = Path(__file__).parent.parent / "vectors/responses/invalid"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

OPTIONS = ["--response-timeout", "5s"]


def malformed() -> Iterator[tuple[str, str, bytes]]:
    """The name, the request's method and the octets of each malformed answer there is."""
    for path in GARBAGE:
        yield path.stem, "GET", path.read_bytes()
    for name, expected in tomllib.loads((VECTORS / "expected.toml").read_text()).items():
        yield name, expected.get("request", "GET"), (VECTORS / f"{name}.http").read_bytes()


def next_request_is_answered(client: Connection, servers: list[Server]) -> None:
    """Whatever was before, a request gets its own answer."""
    client.send(GET)
    with accept_from(servers)[1] as backend:
        backend.read_head()
        backend.send(OK)
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"fine")


@pytest.mark.parametrize("ending", ["and closes", "and waits"])
def test_garbage_is_a_502_and_nothing_of_it_is_left_for_the_next(
    daemon: Daemon, servers: list[Server], ending: str
) -> None:
    for name, method, octets in malformed():
        with daemon.ask(GET.replace(b"GET", method.encode())) as client:
            backend = accept_from(servers)[1]
            with backend:
                backend.read_head()
                backend.send(octets)
                if ending == "and closes":
                    backend.end()
                answer = client.answer(method)
                has_begun = b"chunked" in octets and answer.status == 200
                assert has_begun or (answer.status, answer.complete) == (502, True), (name, answer)
                assert not (has_begun and answer.complete), name
                assert not any(server.has_waiting for server in servers), f"{name}: it was shown to another"
                backend.read_rest()
            if not has_begun:
                next_request_is_answered(client, servers)


def test_garbage_on_a_kept_connection_is_a_502_too(daemon: Daemon, servers: list[Server]) -> None:
    for name, method, octets in malformed():
        with daemon.ask(GET) as client, contextlib.ExitStack() as kept:
            backends = []
            for server in servers:
                backends.append(kept.enter_context(accept_from(servers)[1]))
                backends[-1].read_head()
                backends[-1].send(OK)
                assert client.answer().body == b"fine"
                client.send(GET.replace(b"GET", method.encode()) if server is servers[-1] else GET)
            (backend,) = select.select(backends, [], [], PATIENCE)[0]
            backend.read_head()
            backend.send(octets)
            answer = client.answer(method)
            assert answer.status == 502 or not answer.complete, name
            backend.read_rest()


@pytest.mark.parametrize("path", GARBAGE, ids=lambda path: path.stem)
def test_what_an_idle_server_says_unasked_answers_nobody(
    daemon: Daemon, servers: list[Server], path: Path
) -> None:
    with daemon.ask(GET) as client:
        with accept_from(servers)[1] as backend:
            backend.read_head()
            backend.send(OK)
            assert client.answer().body == b"fine"
            backend.send(path.read_bytes())
            backend.read_rest()
        next_request_is_answered(client, servers)


def test_what_follows_an_answer_answers_nobody(daemon: Daemon, servers: list[Server]) -> None:
    """A second answer in the same segment is the classic poison for whoever comes next."""
    for _ in range(20):
        with daemon.ask(GET) as client:
            with accept_from(servers)[1] as backend:
                backend.read_head()
                backend.send(OK + OK.replace(b"fine", b"evil"))
                assert client.answer().body == b"fine"
                backend.read_rest()
            next_request_is_answered(client, servers)


ENDLESS = {
    "a status line": (b"HTTP/1.1 200 ", b"O" * 65536, 502),
    "a head": (b"HTTP/1.1 200 OK\r\n", b"X-Field: more of it\r\n" * 4096, 502),
    "a field": (b"HTTP/1.1 200 OK\r\nX-Field: ", b"x" * 65536, 502),
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 64, 502),
    "the size of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 65536, 200),
    "a chunk's extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 65536, 200),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X-Field: more of it\r\n" * 4096,
        200,
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_server_that_never_comes_to_an_end_is_cut_off_and_costs_no_memory(
    daemon: Daemon, servers: list[Server], what: str
) -> None:
    start, more, status = ENDLESS[what]
    before = daemon.memory
    with daemon.ask(GET) as client, accept_from(servers)[1] as backend:
        backend.read_head()
        sent = 0
        try:
            backend.send(start)
            while sent < 64 * 1024 * 1024:
                sent += backend.socket.send(more)
        except ConnectionError:
            pass
        assert sent < 32 * 1024 * 1024, "it was not cut off"
        answer = client.answer()
        assert (answer.status, answer.complete) == (status, status == 502)
    assert daemon.memory - before < 4 * 1024 * 1024
