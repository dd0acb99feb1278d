"""Processes that are measured: started, waited for, asked what they have used, and stopped. Linux only."""

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = "127.0.0.1"
PAGE = os.sysconf("SC_PAGE_SIZE")
STARTED_WITHIN = 20.0
"""Seconds that a program has until it accepts connections."""


class DidNotStart(Exception):
    """The program ended, or did not listen in time; the message is what it wrote."""


class Process:
    """A program that listens on ``port`` of the loopback; what it writes goes to ``output``."""

    def __init__(
        self, command: Sequence[str], port: int, output: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self._output = output
        with output.open("wb") as file:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=output.parent,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """The id of the process that was started; it may have others below it."""
        return self._popen.pid

    def wait_until_listening(self) -> None:
        """Return once a connection is accepted; raises `DidNotStart`."""
        deadline = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < deadline and self._popen.poll() is None:
            try:
                socket.create_connection((HERE, self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise DidNotStart(self._output.read_text(errors="replace")[-2000:])

    def cpu(self) -> float:
        """Seconds of processor time, user and system, used so far by it and the processes below it."""
        # The clock of another process, as clock_getcpuclockid(3) makes it: nanoseconds, and all its threads.
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in _tree(self.pid))

    def memory(self) -> int:
        """Octets of resident memory now, of it and the processes below it."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in _tree(self.pid))

    def stop(self) -> None:
        """End it."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(5)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


def free_ports(count: int) -> list[int]:
    """That many ports of the loopback that nobody listens on."""
    sockets = [socket.create_server((HERE, 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _tree(pid: int) -> list[int]:
    pids = [pid]
    for one in pids:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            pids.extend(int(child) for child in children.read_text().split())
    return pids
