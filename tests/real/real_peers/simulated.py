"""The project's own simulated ComfyUI as a process of its own, which can be killed."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import requests

from real_peers.processes import ServerProcess, ServerProcesses, free_port, present

APP = Path(__file__).with_name("simulated_app.py")

STARTS_WITHIN = 20.0
"""Seconds for it to open its port; one on a free core."""


class SimulatedServer:
    """One simulated server; it starts in a second, and its pictures say which prompt made them."""

    def __init__(self, processes: ServerProcesses, name: str, *options: str) -> None:
        """Start it; ``options`` are those of simulated_app.py. `wait` tells when it can be used."""
        self.name = name
        self.port = free_port()
        self.directory = processes.logs / f"{name}-{self.port}"
        self.directory.mkdir()
        self._processes = processes
        self._options = options
        self.process = self._start()

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        """Wait until it listens."""
        self.process.wait_for_port(self.port, seconds=STARTS_WITHIN)

    def kill(self) -> None:
        """End it at once: its queue, its history and its files are gone."""
        self.process.kill()

    def restart(self) -> None:
        """Start it again, empty, and wait until it listens."""
        self._processes.stop(self.process)
        self.process = self._start()
        self.wait()

    def released(self) -> AbstractContextManager[None]:
        """End the waiting of its jobs, those that run and those that come."""
        return present(self.directory / "released")

    def history(self, prompt_id: str) -> dict[str, Any]:
        """Its own record of a finished prompt, asked of it directly; empty when it did not run here."""
        answer: dict[str, Any] = requests.get(f"{self.url}/history/{prompt_id}", timeout=10).json()
        return answer

    def _start(self) -> ServerProcess:
        command = [sys.executable, APP, str(self.port), self.name, *self._options]
        return self._processes.start(self.name, command, cwd=self.directory)
