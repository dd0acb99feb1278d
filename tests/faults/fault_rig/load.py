"""Servers that are processes, to be killed, and clients that ask without a pause, counting what they get."""

import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fault_rig.daemon import environment, wait_until
from fault_rig.peers import PATIENCE, bind

NAMED = Path(__file__).with_name("named_server.py")
SIMULATED_COMFYUI = Path(__file__).with_name("simulated_comfyui.py")


class NamedServer:
    """A server in a process of its own on a port that stays its own."""

    def __init__(self, name: str, program: Path = NAMED, *arguments: str | Path) -> None:
        self.name = name
        self._arguments = arguments
        self._program = program
        self._reserved = bind(0)
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run, and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, self._program, str(self.port), self.name, *self._arguments], env=environment()
        )

        def accepts() -> bool:
            try:
                socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
            except ConnectionRefusedError:
                return False
            return True

        wait_until(accepts, lambda: f"server {self.name}")

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Let it stand still, with all its connections (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on where it was stopped."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, and give its port back."""
        self.kill()
        self._reserved.close()


class Load:
    """Clients in threads of their own, each asking again as soon as it is answered, on one connection.

    ``answers`` counts the statuses, ``servers`` the names in bodies of 200, ``cut`` the answers that ended
    early or never came, ``reopened`` the connections that were closed between an answer and the next.
    """

    def __init__(self, port: int, request: bytes, pause: float = 0) -> None:
        self._port = port
        self._request = request
        self._pause = pause
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.answers: Counter[int] = Counter()
        self.servers: Counter[str] = Counter()
        self.cut: list[str] = []
        self.refused = 0
        self.reopened = 0

    @property
    def count(self) -> int:
        """Answers so far."""
        return self.answers.total()

    def wait_for(self, more: int, of: str | None = None) -> None:
        """Wait until so many more answers have come, in all or from one server."""
        before = self.servers[of] if of else self.count
        wait_until(
            lambda: (self.servers[of] if of else self.count) - before >= more,
            lambda: f"{more} more answers of {of or 'all'}: {self}",
        )

    def end(self) -> None:
        """Ask no more once what was asked is answered."""
        self._ended.set()

    def assert_nothing_lost(self) -> None:
        """Every request was answered by a server."""
        assert not self.cut, self
        assert set(self.answers) == {200}, self

    def __repr__(self) -> str:
        return f"<Load {dict(self.answers)} {dict(self.servers)} reopened={self.reopened} cut={self.cut[:5]}>"

    def run(self) -> None:
        """Be one client until the end."""
        connection: socket.socket | None = None
        while not self._ended.wait(self._pause):
            is_fresh = connection is None
            if connection is None:
                try:
                    connection = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
                except OSError:
                    self.refused += 1
                    return
            if not self._ask(connection, is_fresh):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _ask(self, connection: socket.socket, is_fresh: bool) -> bool:
        """One request; ``False`` if the connection is used up."""
        data = b""
        wanted = -1
        try:
            connection.sendall(self._request)
            while wanted < 0 or len(data) < wanted:
                piece = connection.recv(262_144)
                if not piece:
                    raise ConnectionError("closed")
                data += piece
                if wanted < 0 and (end := data.find(b"\r\n\r\n")) >= 0:
                    head = data[:end].lower() + b"\r\n"
                    wanted = end + 4 + int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        except OSError as error:
            with self._lock:
                if data or is_fresh or isinstance(error, TimeoutError):
                    self.cut.append(f"{error!r} after {data[:80]!r}")
                else:
                    self.reopened += 1
            return False
        with self._lock:
            status = int(data[9:12])
            self.answers[status] += 1
            if status == 200:
                self.servers[data[end + 4 :].decode().strip()] += 1
        return b"\r\nconnection: close\r\n" not in head


@contextmanager
def load(
    port: int,
    target: str = "/",
    clients: int = 8,
    method: str = "GET",
    body: bytes = b"",
    fields: str = "",
    pause: float = 0,
) -> Iterator[Load]:
    """``clients`` that ask the daemon at ``port`` for ``target`` until the end of the block.

    ``fields`` are lines of the requests' heads; each client waits ``pause`` seconds between its requests.
    """
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}{length}\r\n"
    asking = Load(port, head.encode() + body, pause)
    threads = [threading.Thread(target=asking.run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield asking
    finally:
        asking.end()
        for thread in threads:
            thread.join()
