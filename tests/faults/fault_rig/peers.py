"""Both ends of the daemon in the test's own hands: a test is the client and the servers at once.

Everything blocks and nothing runs beside it, so what happens between two lines of a test is what the daemon
does. Each wait ends after `PATIENCE` seconds with an error.
"""

import select
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import h11

PATIENCE = 15.0
"""Seconds that something may take that should take none."""

RESET = struct.pack("ii", 1, 0)


@dataclass
class Answer:
    """An answer as h11 reads it; ``complete`` says whether its framing was kept to the end."""

    status: int
    fields: dict[str, str]
    body: bytes = b""
    complete: bool = False
    informational: list[int] = field(default_factory=list)


class Connection:
    """One connected socket; a context manager that closes it."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        connected.settimeout(PATIENCE)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def fileno(self) -> int:
        """For `select`."""
        return self.socket.fileno()

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        self.socket.sendall(data)

    def dribble(self, data: bytes) -> None:
        """Send ``data`` if the other side still takes any."""
        with suppress(ConnectionError):
            self.socket.send(data)

    def wait(self) -> None:
        """Wait until there is something to read, and leave it."""
        self.socket.recv(1, socket.MSG_PEEK)

    def read(self, count: int) -> bytes:
        """Exactly ``count`` octets, or what came before the end."""
        data = b""
        while len(data) < count and (piece := self.socket.recv(count - len(data))):
            data += piece
        return data

    def read_until(self, mark: bytes) -> bytes:
        """All that comes up to ``mark`` and not an octet more."""
        data = b""
        while not data.endswith(mark):
            piece = self.socket.recv(1)
            assert piece, f"it ended after {data!r}"
            data += piece
        return data

    def read_head(self) -> bytes:
        """All that comes up to an empty line."""
        return self.read_until(b"\r\n\r\n")

    def read_rest(self) -> tuple[bytes, bool]:
        """All that comes until the end, and whether the end was clean (not a reset)."""
        data = b""
        try:
            while piece := self.socket.recv(65536):
                data += piece
        except ConnectionResetError:
            return data, False
        return data, True

    def answer(self, method: str = "GET") -> Answer:
        """The answer to a request of ``method``, as far as it comes."""
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
        reader.send(h11.EndOfMessage())
        answer = Answer(0, {})
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError:
                return answer
            if event is h11.NEED_DATA:
                reader.receive_data(self._receive())
            elif isinstance(event, h11.InformationalResponse):
                answer.informational.append(event.status_code)
                if event.status_code == 101:
                    return answer
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.fields = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                answer.body += event.data
            else:
                answer.complete = isinstance(event, h11.EndOfMessage)
                return answer

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def end(self) -> None:
        """Send no more (FIN), and read on; nothing where the other side has reset already."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close (FIN, or RST where octets were not read)."""
        self.socket.close()

    def reset(self) -> None:
        """Close with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()


class Server:
    """A listening port of the test's own that can refuse, and change its mind."""

    def __init__(self, backlog: int = 128) -> None:
        self._backlog = backlog
        self._socket = bind(0)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.name = f"127.0.0.1:{self.port}"
        self.listen()

    def listen(self) -> None:
        """Take connections."""
        self._socket.listen(self._backlog)
        self._socket.settimeout(PATIENCE)

    def refuse(self) -> None:
        """Refuse connections; the port stays ours."""
        self._socket.close()
        self._socket = bind(self.port)

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def accept(self) -> Connection:
        """The next connection."""
        return Connection(self._socket.accept()[0])

    @property
    def has_waiting(self) -> bool:
        """Whether a connection waits to be accepted."""
        return bool(select.select([self], [], [], 0)[0])

    def close(self) -> None:
        """Refuse for good."""
        self._socket.close()


StartServer = Callable[[], Server]
"""The fixture `start_server`: a listening server out."""


def accept_from(servers: Sequence[Server]) -> tuple[Server, Connection]:
    """The next connection to any of ``servers``."""
    ready = select.select(servers, [], [], PATIENCE)[0]
    assert ready, "nobody was asked"
    return ready[0], ready[0].accept()


def bind(port: int) -> socket.socket:
    """A socket that owns ``port`` of loopback (0: any that is free) and does not listen."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
