"""PORT: a WebSocket echo server that does no work on a message but to turn it round.

The clients of `benchmarks.client` mask with zeros, which RFC 6455 allows: an echo is the frame without its
mask.
"""

import selectors
import socket
import sys
from base64 import b64encode
from hashlib import sha1

from benchmarks.processes import HERE

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Connection:
    """One client."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.received = b""
        self.is_open = False

    def read(self) -> bool:
        """Take what is there and answer every whole frame; ``False`` at the end."""
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionError:
            return False
        if not data:
            return False
        self.received += data
        if not self.is_open:
            self._shake_hands()
        while self.is_open and (answer := self._next_echo()):
            self._send(answer)
        return True

    def _shake_hands(self) -> None:
        head, mark, rest = self.received.partition(b"\r\n\r\n")
        if not mark:
            return
        lines = head.split(b"\r\n")
        key = next((line for line in lines if line.lower().startswith(b"sec-websocket-key:")), None)
        if key is None:
            # A health check.
            self.received = rest
            self._send(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        accept = b64encode(sha1(key.partition(b":")[2].strip() + GUID).digest())
        self._send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        self.received = rest
        self.is_open = True

    def _next_echo(self) -> bytes:
        data = self.received
        if len(data) < 8:
            return b""
        length, start = data[1] & 127, 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        end = start + 4 + length
        if len(data) < end:
            return b""
        self.received = data[end:]
        return b"%b%b%b" % (data[:1], bytes((data[1] & 127,)) + data[2:start], _unmasked(data[start:end]))

    def _send(self, data: bytes) -> None:
        self.socket.setblocking(True)
        self.socket.sendall(data)
        self.socket.setblocking(False)


def _unmasked(data: bytes) -> bytes:
    """The payload behind a mask. A proxy that makes its own frames masks them anew, and not with zeros."""
    mask, payload = data[:4], data[4:]
    if mask == b"\0\0\0\0":
        return payload
    length = len(payload)
    whole = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(length, "big")


def main(port: int) -> None:
    """Serve until the process is ended."""
    selector = selectors.DefaultSelector()
    listening = socket.create_server((HERE, port), backlog=4096)
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                accepted, _ = listening.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                accepted.setblocking(False)
                selector.register(accepted, selectors.EVENT_READ, Connection(accepted))
            elif not key.data.read():
                selector.unregister(key.fileobj)
                key.data.socket.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
