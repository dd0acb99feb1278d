"""Fixtures of the fault tests: daemons that are ended whatever happens, and servers in the test's hands."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault_rig.daemon import Daemon, StartDaemon, options_of
from fault_rig.load import NamedServer
from fault_rig.peers import Server, StartServer, accept_from


@pytest.fixture
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """Starts daemons with the options given; they end with the test."""
    started: list[Daemon] = []

    def start(*options: str | Path, log: str = "none", quiet: bool = True) -> Daemon:
        started.append(Daemon(tmp_path_factory.mktemp("daemon"), *options, log=log, quiet=quiet))
        return started[-1]

    yield start
    for daemon in started:
        daemon.kill()


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Makes servers that listen; they close with the test."""
    started: list[Server] = []

    def start() -> Server:
        started.append(Server())
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """Two servers that listen."""
    both = [Server(), Server()]
    yield both
    for server in both:
        server.close()


@pytest.fixture(scope="module")
def shared_daemon(
    request: pytest.FixtureRequest, servers: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """One daemon before `servers` for a whole file, with the options of its `OPTIONS`."""
    options = getattr(request.module, "OPTIONS", [])
    daemon = Daemon(tmp_path_factory.mktemp("daemon"), *options_of([one.url for one in servers]), *options)
    try:
        warm_up(daemon, servers)
        yield daemon
        daemon.assert_at_rest()
    finally:
        daemon.kill()


LATE = ("timers: Deadlines._turn",)
"""The one timer of all deadlines, which ends with the turn after the last of them: waited for once a file."""


def warm_up(daemon: Daemon, servers: Sequence[Server]) -> None:
    """Let it meet each of ``servers`` once: what it makes for the first request to one of them, it keeps."""
    for _ in servers:
        with daemon.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") as client, accept_from(servers)[1] as backend:
            backend.read_head()
            backend.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert client.answer().status == 204
    empty = daemon.at_rest
    daemon.wait_for_state(
        lambda state: (state.timers, state.watched) == (empty.timers, empty.watched),
        "it has not come to rest",
    )
    daemon.at_rest = daemon.state()


@pytest.fixture
def daemon(shared_daemon: Daemon, servers: list[Server]) -> Iterator[Daemon]:
    """The shared daemon, at rest before and after each test."""
    yield shared_daemon
    for server in servers:
        while server.has_waiting:
            server.accept().close()
    shared_daemon.assert_at_rest(but_for=LATE)


@pytest.fixture
def named_servers() -> Iterator[list[NamedServer]]:
    """Three servers that are processes, running."""
    three = [NamedServer(name) for name in ("a", "b", "c")]
    try:
        for server in three:
            server.start()
        yield three
    finally:
        for server in three:
            server.close()
