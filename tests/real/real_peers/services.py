"""Plain HTTP services of other makes, and the programs that serve them."""

import os
import re
import signal
import sys
from pathlib import Path

from real_peers.processes import ServerProcess, ServerProcesses, free_port

HERE = Path(__file__).parent


class AiohttpService:
    """aiohttp_app.py on aiohttp's own server."""

    def __init__(self, processes: ServerProcesses, file: Path) -> None:
        """Start it and wait until it listens."""
        self.port = free_port()
        self.process: ServerProcess = processes.start(
            "aiohttp", [sys.executable, HERE / "aiohttp_app.py", str(self.port), file]
        )
        self.process.wait_for_port(self.port)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"


class GunicornService:
    """flask_app.py on gunicorn."""

    def __init__(
        self,
        processes: ServerProcesses,
        file: Path,
        *options: str,
        worker: str = "gthread",
        port: int | None = None,
    ) -> None:
        """Start it and wait until it listens; `worker` is gunicorn's word for how it handles connections."""
        self.port = port or free_port()
        self.process: ServerProcess = processes.start(
            f"gunicorn-{worker}",
            [
                *(sys.executable, "-m", "gunicorn", "flask_app:app", "--chdir", HERE),
                *("--bind", f"127.0.0.1:{self.port}", "--worker-class", worker),
                *options,
            ],
            # gunicorn keeps a control socket under the home directory.
            env={
                **os.environ,
                "FILE": str(file),
                "HOME": str(processes.logs),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )
        self.process.wait_for_log("Booting worker")

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker(self) -> str:
        """The id of the worker process that was started last."""
        started: list[str] = re.findall(r"Booting worker with pid: (\d+)", self.process.log_text())
        return started[-1]

    def replace_worker(self) -> None:
        """Let a new worker take over from the old one, as after a change of the application."""
        before = len(self.process.log_text())
        self.process.send_signal(signal.SIGHUP)
        self.process.wait_for_log("Worker exiting", after=before)

    def kill_worker(self) -> None:
        """End the worker at once, with the connections it holds; gunicorn starts another."""
        before = len(self.process.log_text())
        os.kill(int(self.worker), signal.SIGKILL)
        self.process.wait_for_log("Booting worker", after=before)
