"""An access log that cannot be written: requests go on, the loss is told once, lines come again after it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_rig.daemon import Daemon, StartDaemon, options_of, wait_until
from fault_rig.load import NamedServer, load

REQUESTS = 500
LOST = "cannot be written, its lines are lost: [Errno 28] No space left on device"


def ask(daemon: Daemon, server: NamedServer, requests: int = REQUESTS) -> None:
    """Send so many requests; all are answered."""
    with load(daemon.port, clients=4) as asking:
        asking.wait_for(requests, of=server.name)
    asking.assert_nothing_lost()


def test_on_a_full_disk_requests_go_on_and_the_loss_is_told_once(
    start_daemon: StartDaemon, named_servers: list[NamedServer]
) -> None:
    server = named_servers[0]
    daemon = start_daemon(*options_of([server.url]), "--access-log-file", "/dev/full", log="combined")
    ask(daemon, server)
    daemon.wait_for_log("lines are lost")
    memory = daemon.memory
    ask(daemon, server, 4 * REQUESTS)
    assert daemon.log.count(LOST) == 1
    assert daemon.memory - memory < 2 * 1024 * 1024, "the lines wait for better times"
    server.kill()
    daemon.assert_at_rest(but_for=("objects: Connector",))


def test_after_a_reload_to_a_disk_with_room_the_lines_come_again(
    start_daemon: StartDaemon, named_servers: list[NamedServer], tmp_path: Path
) -> None:
    server, log, room = named_servers[0], tmp_path / "access.log", tmp_path / "room.log"
    log.symlink_to("/dev/full")
    daemon = start_daemon(*options_of([server.url]), "--access-log-file", log, log="json")
    ask(daemon, server)
    daemon.wait_for_log("lines are lost")
    log.unlink()
    log.symlink_to(room)
    printed = len(daemon.log)
    daemon.reload()
    daemon.wait_for_log("Pool default: ", after=printed)
    ask(daemon, server)
    assert daemon.stop() == 0
    lines = room.read_text().splitlines()
    assert len(lines) >= REQUESTS
    assert all(line.startswith('{"time":') and line.endswith("}") for line in lines)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_fills_up_and_is_emptied_is_written_on_without_a_reload(
    start_daemon: StartDaemon, named_servers: list[NamedServer], small_disk: Path
) -> None:
    server, log = named_servers[0], small_disk / "access.log"
    daemon = start_daemon(*options_of([server.url]), "--access-log-file", log, log="json")
    with load(daemon.port, clients=4) as asking:
        daemon.wait_for_log(r"lines are lost")
        assert log.stat().st_size == 64 * 1024, "as much as fits"
        with open(log, "wb"):
            pass
        wait_until(lambda: log.stat().st_size > 0, lambda: "a line")
    asking.assert_nothing_lost()
    daemon.stop()
