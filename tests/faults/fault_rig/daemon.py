"""The daemon in a process of its own, with what can be known of it from outside and from within."""

import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from comfyproxy.core.configuration.options import OPTION
from fault_rig.peers import PATIENCE, Connection

REPOSITORY = Path(__file__).resolve().parents[3]
WATCHED = Path(__file__).with_name("watched.py")
T = TypeVar("T")

PAUSE = 0.01
"""Seconds between two looks at what tells nobody when it changes: a file, another process."""

QUIET = {"probe": "none", "eject_failures": "0"}
"""Options that keep checks of the daemon's own out of a script of exchanges."""


@dataclass(frozen=True)
class State:
    """What is alive in a daemon."""

    objects: Counter[str]
    leases: int
    timers: Counter[str]
    watched: Counter[str]
    blocks: int
    descriptors: int

    def beyond(self, other: "State") -> dict[str, Any]:
        """What there is here and not in ``other``; memory aside, which never is the same twice."""
        beyond: dict[str, Any] = {}
        for name in ("objects", "timers", "watched"):
            beyond.update(
                {f"{name}: {what}": n for what, n in (getattr(self, name) - getattr(other, name)).items()}
            )
        for name in ("leases", "descriptors"):
            if (more := getattr(self, name) - getattr(other, name)) > 0:
                beyond[name] = more
        return beyond


class Daemon:
    """A running ``comfyproxy run``, listening on loopback on a port that it chose."""

    def __init__(self, directory: Path, *options: str | Path, log: str = "none", quiet: bool = True) -> None:
        """Start it in ``directory``, where no `.env` or `tap.conf` lies, and wait until it listens."""
        self.log_path = directory / "daemon.log"
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        silence = [f"--{OPTION[key].name}={value}" for key, value in QUIET.items() if quiet]
        listen = ["--listen", "tcp:0:interface=127.0.0.1", "--access-log", log]
        with open(self.log_path, "wb") as printed:
            self.process = subprocess.Popen(
                [sys.executable, WATCHED, str(theirs.fileno()), "run", *listen, *silence, *options],
                cwd=directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=[theirs.fileno()],
            )
        theirs.close()
        self._control = ours
        self._answers = ours.makefile("rb")
        try:
            self.port = int(self.wait_for_log(r"Listening on 127\.0\.0\.1:(\d+)")[1])
            self.at_rest = self.state()
        except BaseException:
            self.kill()
            raise

    def connect(self, window: int = 0) -> Connection:
        """A client's connection, with a buffer of ``window`` octets for what it is sent, if that is given."""
        connection = socket.socket()
        if window:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        try:
            connection.connect(("127.0.0.1", self.port))
        except OSError:
            connection.close()
            raise
        return Connection(connection)

    def ask(self, request: bytes) -> Connection:
        """A client's connection on which ``request`` was sent."""
        client = self.connect()
        client.send(request)
        return client

    @property
    def log(self) -> str:
        """What it has printed."""
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait for ``pattern`` in what it prints after so many characters."""

        def found() -> re.Match[str] | None:
            return re.compile(pattern).search(self.log, after)

        return wait_until(
            lambda: found() or self._fail_if_ended(), lambda: f"{pattern!r} in the log:\n{self.log}"
        )

    def _fail_if_ended(self) -> None:
        assert self.process.poll() is None, f"it has ended:\n{self.log}"

    def state(self) -> State:
        """What is alive in it, between two turns of its reactor."""
        self._control.sendall(b"census\n")
        told = json.loads(self._answers.readline() or b"null")
        assert told is not None, f"it has ended:\n{self.log}"
        assert "error" not in told, told["error"]
        counted = {name: Counter(told[name]) for name in ("objects", "timers", "watched")}
        return State(
            **counted,
            leases=told["leases"],
            blocks=told["blocks"],
            descriptors=len(self.descriptors()) - told["spare"],
        )

    def descriptors(self) -> list[str]:
        """Its open descriptors, as the kernel names them."""
        names = []
        for entry in os.scandir(f"/proc/{self.process.pid}/fd"):
            try:
                names.append(os.readlink(entry.path))
            except FileNotFoundError:
                continue
        return sorted(names)

    @property
    def memory(self) -> int:
        """Octets of its memory that are in RAM."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def assert_at_rest(self, but_for: Collection[str] = ()) -> State:
        """Wait until nothing is alive that was not when it was at rest, save ``but_for``; returns the state.

        Fails with what is left behind.
        """
        before = self.at_rest
        left: list[Any] = [None]

        def rested() -> State | None:
            state = self.state()
            left[0] = {what: n for what, n in state.beyond(before).items() if what not in but_for}
            return None if left[0] else state

        return wait_until(rested, lambda: f"left behind: {left[0]}\n{self.descriptors()}\n{self.log[-3000:]}")

    def wait_for_state(self, wanted: Callable[[State], object], what: str) -> State:
        """Wait until ``wanted`` holds of its state."""

        def holds() -> State | None:
            state = self.state()
            return state if wanted(state) else None

        return wait_until(holds, lambda: f"{what}: {self.state()}")

    def reload(self) -> None:
        """Tell it to read its sources again."""
        self.process.send_signal(signal.SIGHUP)

    def leave_descriptors(self, count: int) -> None:
        """Let it open so many more descriptors; the limit is on their numbers, which have gaps."""
        taken = {int(name) for name in os.listdir(f"/proc/{self.process.pid}/fd")}
        free = (number for number in itertools.count() if number not in taken)
        self._limit_descriptors(next(itertools.islice(free, count, None)))

    def leave_all_descriptors(self) -> None:
        """Let it open as many as it likes again."""
        self._limit_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def _limit_descriptors(self, limit: int) -> None:
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (limit, hard))

    def stop(self, seconds: float = PATIENCE) -> int:
        """End it as an operator does; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it whatever it does, and close what the tests had of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._answers.close()
        self._control.close()


def wait_until(
    look: Callable[[], T | None], what: Callable[[], str], seconds: float = PATIENCE, pause: float = PAUSE
) -> T:
    """Wait for something that only looking can tell, and return what ``look`` saw."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{seconds:g} s waited for {what()}")
        time.sleep(pause)
    return seen


def environment() -> dict[str, str]:
    """The environment of the tests, less what would configure the proxy."""
    ours = ("COMFYPROXY_", "DEV_SERVER_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


def options_of(urls: Sequence[str]) -> list[str]:
    """The options that make these plain HTTP servers a pool in which each request is balanced."""
    return ["--app", "http", "--placement", "request", "--url", ",".join(urls)]


StartDaemon = Callable[..., Daemon]
"""The fixture `start_daemon`: options in, a listening daemon out."""
