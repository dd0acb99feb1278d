"""PORT COUNT: the servers among COUNT that come and go, every hundredth; each is there half of the time.

While it is away its address refuses connections, and those that it had are closed. ``127.0.0.1`` is always
there.
"""

import asyncio
import random
import sys

from benchmarks.backends import FLAPPING, SMALL, address
from benchmarks.processes import HERE

PERIOD = 0.5
"""Seconds that a server is there, and that it is away."""

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(SMALL), SMALL)


class Answers(asyncio.Protocol):
    """Answers every head with `ANSWER`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def flap(host: str, port: int) -> None:
    """Be there and away by turns, from a random moment on."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(random.uniform(0, 2 * PERIOD))
    while True:
        connections: list[Answers] = []

        def build(connections: list[Answers] = connections) -> Answers:
            connections.append(Answers())
            return connections[-1]

        server = await loop.create_server(build, host, port)
        await asyncio.sleep(PERIOD)
        server.close()
        for connection in connections:
            connection.transport.close()
        await asyncio.sleep(PERIOD)


async def main(port: int, count: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Answers, HERE, port)
    every = round(1 / FLAPPING)
    await asyncio.gather(*(flap(address(number), port) for number in range(every - 1, count, every)))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
