"""The server behind each proxy: it notes what it gets, and answers what a trial wants."""

import asyncio
from dataclasses import dataclass, field

from conformance.anchors.wire import Message, read_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
OK_TO_HEAD = OK.removesuffix(b"ok")


@dataclass
class Script:
    """What the server does in one trial: says ``early`` when a head is there, and then answers.

    ``answer`` is sent when the request is complete, and the connection closed; without one the answer is
    `OK`.
    """

    answer: bytes = b""
    early: bytes = b""


@dataclass
class Received:
    """What came to the server in one trial."""

    messages: list[Message] = field(default_factory=list)
    octets: bytes = b""


class Backend:
    """A server at a port of its own; one trial at a time."""

    def __init__(self) -> None:
        self.script = Script()
        self.received = Received()
        self.port = 0
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    def begin(self, script: Script) -> None:
        """Begin a trial."""
        self.script, self.received = script, Received()

    async def end(self) -> Received:
        """End a trial: whoever is still connected is let go. Returns what came."""
        if self._open:
            await asyncio.wait(self._open, timeout=0.2)
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)
        return self.received

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script, received = self.script, self.received
        data, number, early = b"", len(received.messages), script.early
        while True:
            piece = await reader.read(65536)
            data += piece
            received.octets += piece
            message, _ = read_request(data)
            if message is not None:
                received.messages[number:] = [message]
                if early:
                    writer.write(early)
                    early = b""
                if message.complete:
                    is_head = message.start.startswith(b"HEAD ")
                    writer.write(script.answer or (OK_TO_HEAD if is_head else OK))
                    await writer.drain()
                    return
            if not piece:
                return
