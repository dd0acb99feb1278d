"""``splice(2)`` for the sockets of a memory network, so that whole suites can run on it step by step."""

# ruff: noqa: N802 -- addReader and addWriter are Twisted's.

import errno
import os
import sys
import termios
from itertools import count
from typing import Any

from comfyproxy.proxy import splice
from comfyproxy.proxy.transports import EagerWrites
from comfyproxy.testing import MemoryConnection, MemoryNetwork
from comfyproxy.testing.sockets import MemorySocket


class EagerMemoryConnection(EagerWrites, MemoryConnection):
    """A connection in memory that writes as the proxy's own do."""


class Kernel:
    """Stands in for ``os`` in `comfyproxy.proxy.splice`, and for ``fcntl`` where the proxy asks what a socket
    still holds; ``descriptors`` are those that are open."""

    O_CLOEXEC = os.O_CLOEXEC
    O_NONBLOCK = os.O_NONBLOCK

    def __init__(self) -> None:
        self.descriptors: dict[int, MemorySocket | bytearray] = {}
        self.moved = 0
        self._sockets: dict[int, MemorySocket] = {}
        self._numbers = count(2_000_000)

    def knows(self, socket: MemorySocket) -> None:
        """Let ``socket`` be found by its number."""
        self._sockets[socket.fileno()] = socket

    def dup(self, number: int) -> int:
        """As `os.dup`, of a socket."""
        if number not in self._sockets:
            raise OSError(errno.EBADF, "there is no such descriptor")
        return self._open(self._sockets[number])

    def pipe2(self, flags: int) -> tuple[int, int]:
        """As `os.pipe2`."""
        octets = bytearray()
        return self._open(octets), self._open(octets)

    def close(self, number: int) -> None:
        """As `os.close`."""
        del self.descriptors[number]

    def splice(self, source: int, sink: int, most: int, *, flags: int) -> int:
        """As `os.splice`, from a socket to a pipe or back."""
        giving, taking = self.descriptors[source], self.descriptors[sink]
        if isinstance(taking, bytearray):
            assert isinstance(giving, MemorySocket)
            assert not taking, "what was in the pipe would be taken for what comes now"
            data = giving.recv(most)
            taking += data
            return len(data)
        assert isinstance(giving, bytearray)
        sent = taking.send(giving[:most])
        del giving[:sent]
        self.moved += sent
        return sent

    def ioctl(self, number: int, request: int, value: bytes) -> bytes:
        """As `fcntl.ioctl` with ``TIOCOUTQ``: how much a socket has sent that its peer has not taken."""
        assert request == termios.TIOCOUTQ
        return len(self._sockets[number].outgoing.data).to_bytes(len(value), sys.byteorder)

    def _open(self, what: MemorySocket | bytearray) -> int:
        number = next(self._numbers)
        self.descriptors[number] = what
        return number


class SplicingNetwork(MemoryNetwork):
    """A memory network on which the proxy's connections are eager, and can be spliced by ``kernel``."""

    def __init__(self, kernel: Kernel, **settings: Any) -> None:
        class Connection(EagerMemoryConnection):
            def __init__(self, socket: MemorySocket, *arguments: Any) -> None:
                super().__init__(socket, *arguments)
                kernel.knows(socket)

        super().__init__(**settings | {"connection": Connection})
        self._kernel = kernel

    def addReader(self, reader: Any) -> None:
        super().addReader(self._with_socket(reader))

    def addWriter(self, writer: Any) -> None:
        super().addWriter(self._with_socket(writer))

    def _with_socket(self, selectable: Any) -> Any:
        if isinstance(selectable, splice._Descriptor):
            selectable.socket = self._kernel.descriptors[selectable.fileno()]  # type: ignore[attr-defined]
        return selectable
