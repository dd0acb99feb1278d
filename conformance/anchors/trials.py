"""One case at one proxy: what was sent, what the server behind it got, and what came back."""

import asyncio
from dataclasses import dataclass, field

from conformance.anchors.backend import Backend, Script
from conformance.anchors.wire import Message, read_answer

PATIENCE = 1.5
"""Seconds until a proxy that has not answered is taken to wait for more."""

SECOND_PATIENCE = 10.0
"""Seconds for one that is asked again, lest a busy machine be taken for a proxy that waits."""

SETTLING = 0.05
"""Seconds for a proxy to send on what it had begun with."""


@dataclass
class Result:
    """What came of one trial: ``answers`` to the client, ``requests`` at the server.

    ``closed`` says that the proxy ended the client's connection, ``octets`` is what the server got.
    """

    answers: list[Message] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    closed: bool = False
    octets: bytes = b""

    @property
    def final(self) -> Message | None:
        """The first answer that is not a 1xx."""
        return next((one for one in self.answers if one.status >= 200 or one.status == 101), None)

    @property
    def arrived(self) -> Message | None:
        """The first request that reached the server whole."""
        return next((one for one in self.requests if one.complete), None)


async def try_one(
    backend: Backend, port: int, sent: bytes, method: str, script: Script, patience: float = PATIENCE
) -> Result:
    """Send ``sent`` to the proxy at ``port``, which leads to ``backend``, and wait for what comes of it."""
    backend.begin(script)
    result = Result()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        async with asyncio.timeout(patience):
            await _read(reader, method, result)
    except TimeoutError:
        pass
    except ConnectionError:
        result.closed = True
    finally:
        writer.transport.abort()
    if result.final is None or backend.received.messages:
        # What is still on its way to the server belongs to this trial and not to the next.
        await asyncio.sleep(SETTLING)
    received = await backend.end()
    result.requests, result.octets = received.messages, received.octets
    return result


async def _read(reader: asyncio.StreamReader, method: str, result: Result) -> None:
    """Read until a final answer is there whole, or the connection ends."""
    data = b""
    while not result.closed:
        piece = await reader.read(65536)
        data += piece
        result.closed = not piece
        result.answers, rest = [], data
        while rest:
            answer, rest = read_answer(rest, method, result.closed)
            if answer is None:
                break
            result.answers.append(answer)
            if answer.complete and (answer.status >= 200 or answer.status == 101):
                return
            if not answer.complete:
                break
