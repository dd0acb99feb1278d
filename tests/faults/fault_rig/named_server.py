"""A small HTTP/1.1 server as a process of its own: each answer is the name it was started with.

    python named_server.py PORT NAME

The answer to a target with a query repeats it in a field. `/slow` is answered once half a second has passed,
`/large` with 4 MiB; a body is read and dropped.
"""

import asyncio
import re
import socket
import sys

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
LARGE = 4 * 1024 * 1024
SLOW = 0.5


class Named(asyncio.Protocol):
    """One connection."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._data = b""
        self._left = 0
        self._target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._take_body(data)
            return
        self._data += data
        if b"\r\n\r\n" not in self._data:
            return
        head, _, rest = self._data.partition(b"\r\n\r\n")
        self._data = b""
        self._target = head.split(b" ", 2)[1]
        found = LENGTH.search(head)
        self._left = int(found[1]) if found else 0
        if self._left:
            self._take_body(rest)
        else:
            self._answer()

    def _take_body(self, data: bytes) -> None:
        self._left -= len(data)
        if not self._left:
            self._answer()

    def _answer(self) -> None:
        if self._target.endswith(b"/slow"):
            asyncio.get_running_loop().call_later(SLOW, self._send, self._name)
        else:
            self._send(self._name.ljust(LARGE) if self._target.endswith(b"/large") else self._name)

    def _send(self, body: bytes) -> None:
        echo = b"X-Target: %b\r\n" % self._target if b"?" in self._target else b""
        self._transport.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (echo, len(body), body))


async def serve(port: int, name: bytes) -> None:
    """Serve until killed."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    server = await asyncio.get_running_loop().create_server(lambda: Named(name), sock=listening, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2].encode()))
