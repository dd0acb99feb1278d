"""The daemon under test, started as its users start it: `twistd -n comfyproxy ...`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from real_peers.processes import POLL, ServerProcess, ServerProcesses, accepts_connections, free_port

REPOSITORY = Path(__file__).resolve().parents[3]
TWISTD = Path(sys.executable).with_name("twistd")

DIRECT = bool(os.environ.get("COMFYPROXY_REAL_DIRECT"))
"""Whether the tests speak to the servers with no proxy between: this proves the tests, not the proxy."""


def proxy_environment() -> dict[str, str]:
    """The environment of the tests, less what would configure the proxy, and with its plugin on the path."""
    ours = ("COMFYPROXY_", "DEV_SERVER_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


class Proxy:
    """A running daemon and its address."""

    def __init__(self, processes: ServerProcesses, arguments: Sequence[str | Path], directory: Path) -> None:
        """Start the daemon in `directory`, where no `.env` or `tap.conf` lies, and wait until it listens."""
        self.port = free_port()
        self._processes = processes
        self._arguments = arguments
        self._directory = directory
        self.process = self._start()

    @property
    def url(self) -> str:
        """Its address for HTTP, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def reload(self) -> None:
        """Tell it to read its sources again."""
        self.process.send_signal(signal.SIGHUP)

    def restart(self, *, kill: bool = False) -> None:
        """End it, as an operator does or (`kill`) as a crash does, and start it again at the same port."""
        if kill:
            self.process.kill()
        self._processes.stop(self.process)
        self.process = self._start()

    def _start(self) -> ServerProcess:
        listen = ("--listen", f"tcp:{self.port}:interface=127.0.0.1")
        process = self._processes.start(
            "comfyproxy",
            [TWISTD, "-n", "--pidfile=", "comfyproxy", *listen, *self._arguments],
            cwd=self._directory,
            env=proxy_environment(),
        )
        process.wait_for_port(self.port)
        return process


class BackgroundProxy:
    """A `twistd` in the background, which has forgotten the terminal and the directory it was started in."""

    def __init__(
        self, home: Path, rundir: Path, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Start it from `home`, where relative paths belong; `rundir` is the directory that it works in."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "proxy.log"
        pidfile = home / "proxy.pid"
        options = ["--rundir", str(rundir), "--pidfile", pidfile.name, "--logfile", self.log.name]
        subprocess.run(
            [
                str(TWISTD),
                *options,
                "comfyproxy",
                "--listen",
                f"tcp:{self.port}:interface=127.0.0.1",
                *arguments,
            ],
            cwd=home,
            env={**proxy_environment(), **environment},
            check=True,
            timeout=20,
        )
        self.wait_until(lambda: pidfile.exists() and pidfile.read_text())
        self.process_id = int(pidfile.read_text())

    def wait(self) -> None:
        """Wait until it listens."""
        self.wait_until(lambda: accepts_connections("127.0.0.1", self.port))

    def wait_until(self, done: Callable[[], object], seconds: float = 15.0) -> None:
        """Wait for something that only looking can tell; fails with the end of the log."""
        deadline = time.monotonic() + seconds
        while not done():
            log = self.log.read_text() if self.log.exists() else "no log"
            assert time.monotonic() < deadline, f"{seconds:g} s waited; the log:\n{log[-4000:]}"
            time.sleep(POLL)

    def reload(self) -> None:
        """Tell it to read its sources again."""
        os.kill(self.process_id, signal.SIGHUP)

    @property
    def running(self) -> bool:
        """Whether the process is still there."""
        try:
            os.kill(self.process_id, 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> None:
        """End it as an operator does, by its process id."""
        os.kill(self.process_id, signal.SIGTERM)
        self.wait_until(lambda: not self.running)


StartProxy = Callable[..., Proxy]
"""The fixtures `proxy` and `start_proxy`: command-line arguments in, a listening daemon out."""

Front = Callable[..., str]
"""The fixture `front`: the URLs of some servers in, the address under test out."""


def websocket_url(url: str) -> str:
    """The `ws:` URL of an `http:` URL."""
    return url.replace("http", "ws", 1)
