"""Servers that close a kept connection in the very moment in which the next request is on its way to them."""

import pytest
from fault_rig.daemon import Daemon
from fault_rig.peers import Connection, Server, accept_from

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
ROUNDS = 100
WAYS = {"closes": Connection.close, "resets": Connection.reset}


def kept(daemon: Daemon, servers: list[Server]) -> tuple[Connection, Server, Connection]:
    """A client, and the connection to a server that is kept after its first request."""
    client = daemon.ask(GET)
    server, backend = accept_from(servers)
    backend.read_head()
    backend.send(OK)
    assert client.answer().body == b"fine"
    return client, server, backend


@pytest.mark.parametrize("way", WAYS)
def test_a_get_that_a_closing_server_had_is_sent_again_on_a_fresh_connection_to_it(
    daemon: Daemon, servers: list[Server], way: str
) -> None:
    """The same server: that it closes what is idle says nothing against it."""
    for _ in range(ROUNDS):
        client, server, backend = kept(daemon, servers)
        with client:
            other = servers[server is servers[0]]
            other_is_next(daemon, servers, other)
            client.send(GET)
            backend.wait()
            WAYS[way](backend)
            again, backend = accept_from(servers)
            assert again is server
            with backend:
                backend.read_head()
                backend.send(OK)
                assert client.answer().body == b"fine"


def other_is_next(daemon: Daemon, servers: list[Server], other: Server) -> None:
    """Take the turn of ``other``, so that the server with the kept connection is the next in rotation."""
    with daemon.ask(GET) as client:
        server, backend = accept_from(servers)
        assert server is other
        with backend:
            backend.read_head()
            backend.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            assert client.answer().status == 204
            backend.read_rest()


def test_a_post_that_a_closing_server_may_have_had_is_a_502_and_goes_nowhere_else(
    daemon: Daemon, servers: list[Server]
) -> None:
    for _ in range(ROUNDS):
        client, server, backend = kept(daemon, servers)
        with client:
            other_is_next(daemon, servers, servers[server is servers[0]])
            client.send(POST)
            backend.wait()
            backend.reset()
            assert client.answer("POST").status == 502
        assert not any(one.has_waiting for one in servers)


@pytest.mark.parametrize("way", WAYS)
def test_whoever_wins_the_race_a_get_is_answered(daemon: Daemon, servers: list[Server], way: str) -> None:
    """Close and request set out at once: the daemon sees the one first, or the other."""
    for count in range(ROUNDS):
        client, server, backend = kept(daemon, servers)
        with client:
            other_is_next(daemon, servers, servers[server is servers[0]])
            if count % 2:
                WAYS[way](backend)
                client.send(GET)
            else:
                client.send(GET)
                WAYS[way](backend)
            with accept_from(servers)[1] as backend:
                backend.read_head()
                backend.send(OK)
                assert client.answer().body == b"fine", count


def test_a_post_on_a_connection_that_had_been_closed_before_is_served(
    daemon: Daemon, servers: list[Server]
) -> None:
    """The daemon has seen the close, so nothing was sent into it."""
    for _ in range(20):
        client, _, backend = kept(daemon, servers)
        with client:
            backend.close()
            daemon.assert_at_rest(but_for=CLIENT)
            client.send(POST)
            with accept_from(servers)[1] as backend:
                backend.read_head()
                backend.read(4)
                backend.send(OK)
                assert client.answer("POST").body == b"fine"


CLIENT = (
    *("objects: Downstream", "objects: EagerServer", "watched: EagerServer"),
    *("descriptors", "timers: Deadlines._turn"),
)
"""What a client that waits for its next request makes of the daemon's state."""
