"""What stands behind every proxy: one nginx, a WebSocket echo server, and servers that come and go."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import Place, program
from benchmarks.processes import HERE, Process, free_ports

SMALL = b'["checkpoints", "loras", "vae", "unet"]'
"""The small answer: as ComfyUI's to ``GET /models``, 39 octets."""

PICTURE = 1024 * 1024
LARGE = 10 * 1024 * 1024
"""Octets of a picture and of a long body."""

FLAPPING = 0.01
"""The share of the many servers that come and go."""


@dataclass(frozen=True)
class Backends:
    """Addresses, as host:port: ``three`` of one nginx, ``sockets`` of the echo server, `many` by thousand."""

    three: tuple[str, ...]
    sockets: tuple[str, ...]
    anywhere: int
    flapping: int

    def many(self, count: int) -> tuple[str, ...]:
        """That many servers, of which every hundredth comes and goes."""
        every = round(1 / FLAPPING)
        return tuple(
            f"{address(number)}:{self.anywhere if (number + 1) % every else self.flapping}"
            for number in range(count)
        )


def address(number: int) -> str:
    """An address of the loopback for server ``number``."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


@contextmanager
def running_backends(directory: Path, many: int) -> Iterator[Backends]:
    """Run all of them in ``directory``, for up to ``many`` servers."""
    nginx = program("nginx")()
    if nginx is None:
        raise SystemExit("The backend of every measurement is nginx; it is not here (Debian: nginx-light).")
    *ports, anywhere, sockets, flapping = free_ports(6)
    place = Place(ports[0], directory)
    listen = " ".join(f"listen {HERE}:{port} backlog=4096;" for port in ports)
    path = place.write("backend.conf", listen=listen, small=SMALL.decode(), anywhere=anywhere)
    (directory / "picture.png").write_bytes(os.urandom(PICTURE))
    (directory / "large").write_bytes(os.urandom(LARGE))
    commands = [
        ([nginx, "-e", "stderr", "-p", str(directory), "-c", str(path)], ports[0]),
        ([sys.executable, "-m", "benchmarks.echo", str(sockets)], sockets),
        ([sys.executable, "-m", "benchmarks.flapping", str(flapping), str(many)], flapping),
    ]
    root = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    processes = [
        Process(command, port, directory / f"output{number}", root)
        for number, (command, port) in enumerate(commands)
    ]
    try:
        for process in processes:
            process.wait_until_listening()
        yield Backends(tuple(f"{HERE}:{port}" for port in ports), (f"{HERE}:{sockets}",), anywhere, flapping)
    finally:
        for process in processes:
            process.stop()
