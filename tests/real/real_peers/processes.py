"""Server processes: started with a log of their own, awaited by what they do, and certainly ended."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import randrange

POLL = 0.05
"""Seconds between two looks at something that only polling can see, such as a port that opens."""

STOP_WITHIN = 10.0
"""Seconds that a server has to end after SIGTERM before it is killed."""


class ServerFailed(Exception):
    """A server ended by itself, or did not do in time what was waited for; the message ends with its log."""


class ServerProcess:
    """One server: a child process in a group of its own, whose output goes to a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command`; without `env` it gets the environment of the tests."""
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._child.poll() is None

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for the signal that killed it; None while it runs."""
        return self._child.poll()

    def log_text(self) -> str:
        """Everything that it has printed up to now."""
        return self.log.read_text(errors="replace")

    def log_tail(self, lines: int = 60) -> str:
        """The last lines that it has printed."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def wait_until(self, ready: Callable[[], object], what: str, seconds: float = 20.0) -> None:
        """Wait until `ready()` is true, while the server runs; raises ServerFailed with its log otherwise."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise ServerFailed(self._report(f"ended with status {self.exit_status} before {what}"))
            if time.monotonic() > deadline:
                raise ServerFailed(self._report(f"after {seconds:g} s still waiting for: {what}"))
            time.sleep(POLL)

    def wait_for_port(self, port: int, host: str = "127.0.0.1", seconds: float = 20.0) -> None:
        """Wait until something accepts connections on the port."""
        self.wait_until(lambda: accepts_connections(host, port), f"listening on {host}:{port}", seconds)

    def wait_for_log(self, text: str, *, after: int = 0, seconds: float = 20.0) -> str:
        """Wait until `text` is in what was printed after the first `after` characters; returns that part."""
        self.wait_until(lambda: text in self.log_text()[after:], f"{text!r} in its log", seconds)
        return self.log_text()[after:]

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, not to its children."""
        self._child.send_signal(number)

    def stop(self) -> None:
        """End it with SIGTERM, or after ten seconds kill it and its children; not running is fine."""
        self._child.terminate()
        try:
            self._child.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and its children at once, as a crash or the system's out-of-memory killer would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait(STOP_WITHIN)

    def _report(self, what: str) -> str:
        return f"{self.name} {what}\n{' '.join(self.command)}\n--- end of {self.log} ---\n{self.log_tail()}"


class ServerProcesses:
    """All servers of a test session: each gets a log file in one directory, and none outlives the session."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: list[ServerProcess] = []
        self._numbers = itertools.count(1)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ServerProcess:
        """Start a server; see ServerProcess."""
        log = self.logs / f"{next(self._numbers):03}-{name}.log"
        server = ServerProcess(name, command, log=log, cwd=cwd, env=env)
        self.running.append(server)
        return server

    def stop(self, server: ServerProcess) -> None:
        """End one server."""
        self.running.remove(server)
        server.stop()

    def stop_all(self) -> None:
        """End every server that still runs, the youngest first."""
        while self.running:
            self.stop(self.running[-1])


def accepts_connections(host: str, port: int) -> bool:
    """Whether something listens there now."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def present(file: Path) -> Iterator[None]:
    """There is such a file for a while: a sign for a process that looks for it."""
    file.touch()
    try:
        yield
    finally:
        file.unlink()


LOWEST = 10_081
"""Above all ports that browsers refuse to ask (https://fetch.spec.whatwg.org/#port-blocking)."""

EPHEMERAL = 32_768
"""The lowest port that Linux, and any other system, gives to whoever asks for none in particular."""


def free_port() -> int:
    """A free loopback port, for servers that cannot be told to choose and say which.

    Nobody gets it by chance before the server has it, or while that is started again: it is below those
    that the system gives away by itself.
    """
    while True:
        port = randrange(LOWEST, EPHEMERAL)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
