"""The load: a process of its own, which prints what it counted as one JSON object.

    python -m benchmarks.client get PORT PATH CONNECTIONS SECONDS         bodies of any size, dropped unread
    python -m benchmarks.client upload PORT PATH CONNECTIONS SECONDS OCTETS
    python -m benchmarks.client latency PORT PATH SECONDS                 one at a time, and how long it took
    python -m benchmarks.client small PORT PATH CONNECTIONS SECONDS       what wrk does, where there is none
    python -m benchmarks.client websocket PORT PATH CONNECTIONS SECONDS OCTETS text|binary

It does as little as it can: its own processor time is not counted, but there are few cores.
"""

import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.processes import HERE

Result = dict[str, Any]
SPACE = 1 << 20


class Failed(Exception):
    """The answer is not what was asked for."""


def connect(port: int) -> socket.socket:
    """A connection to the proxy, without delays."""
    sock = socket.create_connection((HERE, port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def request(method: str, path: str, port: int, *lines: str) -> bytes:
    """The octets of a request's head."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {HERE}:{port}", *lines, "", "")).encode()


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise Failed(f"the connection ended within the head {data[:200]!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def read_answer(sock: socket.socket, space: bytearray) -> None:
    """Read one answer of known length; its body is dropped in the kernel where it can be."""
    head, rest = read_head(sock)
    status = head.split(b" ", 2)[1]
    length = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), None
    )
    if status != b"200" or length is None:
        raise Failed(f"the answer is {head[:300]!r}")
    left = length - len(rest)
    while left > 0:
        count = sock.recv_into(space, min(left, len(space)), socket.MSG_TRUNC)
        if not count:
            raise Failed(f"the body ended {left} octets early")
        left -= count


def in_threads(connections: int, seconds: float, once: Callable[[socket.socket], None], port: int) -> Result:
    """Do ``once`` again and again on that many connections, each in a thread: the work is in the kernel."""
    counts = [0] * connections
    failures: list[str] = []
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        try:
            with connect(port) as sock:
                while time.monotonic() < end:
                    once(sock)
                    counts[number] += 1
        except (OSError, Failed) as error:
            failures.append(str(error))

    started = time.monotonic()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"count": sum(counts), "seconds": time.monotonic() - started, "failures": failures}


def get(port: int, path: str, connections: int, seconds: float) -> Result:
    """Downloads."""
    head = request("GET", path, port)
    # All threads write into one space: nobody reads it.
    space = bytearray(SPACE)

    def once(sock: socket.socket) -> None:
        sock.sendall(head)
        read_answer(sock, space)

    return in_threads(connections, seconds, once, port)


def upload(port: int, path: str, connections: int, seconds: float, octets: int) -> Result:
    """Uploads, straight from the page cache."""
    head = request("POST", path, port, f"Content-Length: {octets}", "Content-Type: application/octet-stream")
    body = os.memfd_create("body")
    os.truncate(body, octets)

    def once(sock: socket.socket) -> None:
        # With a timeout of Python's the socket would not block, and sendfile would have to be waited for.
        sock.settimeout(None)
        sock.sendall(head, socket.MSG_MORE)
        sent = 0
        while sent < octets:
            sent += os.sendfile(sock.fileno(), body, sent, octets - sent)
        read_answer(sock, bytearray(4096))

    return in_threads(connections, seconds, once, port)


def latency(port: int, path: str, seconds: float) -> Result:
    """One request at a time; the median and the 99th percentile in seconds."""
    data = request("GET", path, port)
    times = []
    with connect(port) as sock:
        sock.settimeout(None)
        send, receive, clock = sock.send, sock.recv, time.perf_counter
        end = clock() + seconds
        before = clock()
        while before < end:
            send(data)
            receive(65536)
            after = clock()
            times.append(after - before)
            before = after
    times.sort()
    return {
        "count": len(times),
        "seconds": seconds,
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
    }


def ping_pong(sockets: list[socket.socket], data: bytes, expected: int, seconds: float) -> Result:
    """Send ``data``, wait for ``expected`` octets, and so on, on all of ``sockets`` at once."""
    poller = select.epoll()
    waiting: dict[int, list[Any]] = {}
    for sock in sockets:
        sock.setblocking(True)
        poller.register(sock, select.EPOLLIN)
        waiting[sock.fileno()] = [sock.send, sock.recv_into, expected, sock.sendall]
        sock.sendall(data)
    space = bytearray(SPACE)
    count = 0
    size = len(data)
    started = time.monotonic()
    end = started + seconds
    while time.monotonic() < end:
        for fd, _ in poller.poll(1):
            state = waiting[fd]
            got = state[1](space)
            if not got:
                raise Failed("a connection ended")
            state[2] -= got
            if not state[2]:
                count += 1
                state[2] = expected
                sent = state[0](data)
                if sent != size:
                    state[3](data[sent:])
    return {"count": count, "seconds": time.monotonic() - started}


def small(port: int, path: str, connections: int, seconds: float) -> Result:
    """Small requests; every answer must be as long as the first."""
    data = request("GET", path, port)
    sockets = [connect(port) for _ in range(connections)]
    expected = 0
    for sock in sockets:
        sock.sendall(data)
        expected = len(sock.recv(65536))
    return ping_pong(sockets, data, expected, seconds)


def open_websocket(port: int, path: str) -> socket.socket:
    """A WebSocket, its handshake done."""
    sock = connect(port)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
    sock.sendall(request("GET", path, port, *lines))
    head, rest = read_head(sock)
    if b" 101 " not in head or rest:
        raise Failed(f"the answer is {head[:300]!r} {rest!r}")
    return sock


def websocket(port: int, path: str, connections: int, seconds: float, octets: int, kind: str) -> Result:
    """Echoes of one frame a message."""
    opcode = b"\x81" if kind == "text" else b"\x82"
    length = bytes((octets,)) if octets < 126 else b"\x7e" + octets.to_bytes(2, "big")
    frame = opcode + bytes((length[0] | 0x80,)) + length[1:] + bytes(4) + b"x" * octets
    sockets = [open_websocket(port, path) for _ in range(connections)]
    return ping_pong(sockets, frame, len(frame) - 4, seconds)


KINDS: dict[str, Callable[..., Result]] = {
    function.__name__: function for function in (get, upload, latency, small, websocket)
}


def main(kind: str, port: str, path: str, *numbers: str) -> None:
    """Do one load and print what was counted."""
    function = KINDS[kind]
    arguments: list[Any] = [
        one if one.isalpha() else float(one) if "." in one else int(one) for one in numbers
    ]
    print(json.dumps(function(int(port), path, *arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
