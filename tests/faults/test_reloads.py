"""A thousand SIGHUPs under load, good and bad: nothing is lost, nothing piles up."""

from pathlib import Path

import pytest
from fault_rig.daemon import Daemon, StartDaemon, wait_until
from fault_rig.load import NamedServer, load
from fault_rig.peers import StartServer

HANGUPS = 1000
PLAIN = ("--app", "http", "--placement", "request")
ONCE = ("objects: Connector",)
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"


def reload_and_wait(daemon: Daemon, told: str, since: int | None = None) -> None:
    """Send SIGHUP, and wait until the log tells of it, from now or from octet ``since`` on."""
    size = daemon.log_path.stat().st_size if since is None else since
    daemon.reload()

    def has_told() -> bool:
        with open(daemon.log_path, "rb") as log:
            log.seek(size)
            return told.encode() in log.read()

    wait_until(has_told, lambda: f"a reload: {daemon.log[-2000:]}", pause=0.001)


@pytest.mark.timeout(120)
def test_a_thousand_reloads_under_load_lose_nothing_and_leave_nothing(
    start_daemon: StartDaemon, named_servers: list[NamedServer], tmp_path: Path
) -> None:
    a, b, c = named_servers
    pools = [(a, b), (b, c), (c,), (c, b, a)]
    file = tmp_path / "servers.txt"

    def name(count: int) -> None:
        file.write_text("".join(f"{server.url}\n" for server in pools[count % len(pools)]))

    name(0)
    daemon = start_daemon(*PLAIN, "--file", file)
    blocks = []
    for _ in range(2):
        with load(daemon.port, clients=3) as asking:
            for count in range(1, HANGUPS // 2 + 1):
                name(count)
                reload_and_wait(daemon, "Pool default: ")
        asking.assert_nothing_lost()
        assert asking.reopened == 0
        assert set(asking.servers) == {"a", "b", "c"}
        blocks.append(daemon.state().blocks)
    for server in named_servers:
        server.kill()
    # A server that was removed while it was being asked is forgotten with the next reload.
    reload_and_wait(daemon, "Pool default: ")
    daemon.assert_at_rest(but_for=ONCE)
    assert blocks[1] - blocks[0] < HANGUPS, "a reload must leave less than two blocks of memory"


def test_a_hundred_reloads_of_what_is_broken_change_nothing(
    start_daemon: StartDaemon, named_servers: list[NamedServer], tmp_path: Path
) -> None:
    file = tmp_path / "servers.txt"
    file.write_text(f"{named_servers[0].url}\n")
    daemon = start_daemon(*PLAIN, "--file", file)
    with load(daemon.port, clients=2) as asking:
        for count in range(100):
            if count % 3 == 2:
                file.unlink(missing_ok=True)
            else:
                file.write_text("http://127.0.0.1:818[8-0]\n" if count % 3 else "\0\n")
            reload_and_wait(daemon, "Nothing changes")
    asking.assert_nothing_lost()
    assert list(asking.servers) == ["a"]
    named_servers[0].kill()
    daemon.assert_at_rest(but_for=ONCE)


def test_hangups_that_come_faster_than_they_are_done_are_one(
    start_daemon: StartDaemon, named_servers: list[NamedServer], tmp_path: Path
) -> None:
    file = tmp_path / "servers.txt"
    file.write_text(f"{named_servers[0].url}\n")
    daemon = start_daemon(*PLAIN, "--file", file)
    with load(daemon.port, clients=2) as asking:
        for _ in range(500):
            daemon.reload()
        # One of these may come to pass once the file is another already.
        size = daemon.log_path.stat().st_size
        file.write_text(f"{named_servers[1].url}\n")
        reload_and_wait(daemon, named_servers[1].url, since=size)
        asking.wait_for(20, of="b")
    asking.assert_nothing_lost()


def test_a_timeout_that_a_reload_changes_holds_for_servers_that_are_known_already(
    start_daemon: StartDaemon, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server()
    config = tmp_path / "tap.conf"
    lines = 'app = "http"\nplacement = "request"\nurl = "{}"\nbackend_keepalive_timeout = "{}"\n'
    config.write_text(lines.format(server.url, "1h"))
    daemon = start_daemon("--config", config)
    with daemon.ask(GET) as client, server.accept() as backend:
        backend.read_head()
        backend.send(OK)
        client.answer()
        config.write_text(lines.format(server.url, "0.2s"))
        reload_and_wait(daemon, "Pool default: ")
        client.send(GET)
        backend.read_head()
        backend.send(OK)
        client.answer()
        assert backend.read_rest() == (b"", True), "it was kept for an hour"
