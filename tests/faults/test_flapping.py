"""Servers that come and go: under a client's nose, and by SIGKILL and SIGSTOP under load."""

import pytest
from fault_rig.daemon import Daemon, StartDaemon, options_of
from fault_rig.load import NamedServer, load
from fault_rig.peers import Server, accept_from

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine"

ONCE = ("objects: Connector",)
"""What a daemon keeps of a server once it was asked to connect to it."""

OPTIONS = ["--connect-timeout", "5s"]


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
def test_while_one_server_listens_every_request_is_answered(
    daemon: Daemon, servers: list[Server], request_: bytes
) -> None:
    """Nothing was sent to the one that refused, so a POST goes on to the other as well."""
    try:
        for count in range(100):
            listening, refusing = servers[count % 2], servers[(count + 1) % 2]
            listening.listen()
            refusing.refuse()
            for _ in range(3):
                with daemon.ask(request_) as client, listening.accept() as backend:
                    backend.read_head()
                    backend.read(4 * (request_ is POST))
                    backend.send(OK)
                    assert client.answer().body == b"fine"
                    backend.read_rest()
    finally:
        for server in servers:
            server.refuse()
            server.listen()


def test_with_no_server_a_client_is_told_to_try_again_and_served_as_soon_as_one_is_back(
    daemon: Daemon, servers: list[Server]
) -> None:
    for _ in range(50):
        for server in servers:
            server.refuse()
        with daemon.ask(POST) as client:
            answer = client.answer("POST")
            assert (answer.status, answer.complete) == (503, True)
            for server in servers:
                server.listen()
            client.send(POST)
            with accept_from(servers)[1] as backend:
                backend.read_head()
                backend.send(OK)
                assert client.answer("POST").status == 200
                backend.read(4)
                backend.read_rest()


def test_no_get_is_lost_when_servers_are_killed_under_load(
    start_daemon: StartDaemon, named_servers: list[NamedServer]
) -> None:
    daemon = start_daemon(*options_of([one.url for one in named_servers]))
    with load(daemon.port) as asking:
        for server in (*named_servers, *named_servers):
            asking.wait_for(50, of=server.name)
            server.kill()
            asking.wait_for(100)
            server.start()
    asking.assert_nothing_lost()
    assert asking.reopened == 0
    for server in named_servers:
        server.kill()
    daemon.assert_at_rest(but_for=ONCE)


def test_a_post_is_answered_or_refused_when_servers_are_killed_under_load(
    start_daemon: StartDaemon, named_servers: list[NamedServer]
) -> None:
    daemon = start_daemon(*options_of([one.url for one in named_servers]))
    with load(daemon.port, method="POST", body=b"b" * 1000) as asking:
        for server in named_servers:
            asking.wait_for(50, of=server.name)
            server.kill()
            asking.wait_for(100)
            server.start()
    assert not asking.cut
    assert set(asking.answers) <= {200, 502}, asking
    assert asking.answers[502] <= 8 * len(named_servers), "more than were on their way to it"


def test_a_server_that_stands_still_costs_those_who_wait_for_it_and_nobody_else(
    start_daemon: StartDaemon, named_servers: list[NamedServer]
) -> None:
    daemon = start_daemon(*options_of([one.url for one in named_servers]), "--response-timeout", "0.5s")
    stopped, *others = named_servers
    with load(daemon.port) as asking:
        asking.wait_for(50, of=stopped.name)
        stopped.stop()
        for other in others:
            asking.wait_for(5, of=other.name)
        stopped.go_on()
        asking.wait_for(50, of=stopped.name)
    assert not asking.cut
    assert set(asking.answers) <= {200, 504}, asking
