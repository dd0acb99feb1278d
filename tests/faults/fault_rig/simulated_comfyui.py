"""A simulated ComfyUI as a process of its own: python simulated_comfyui.py PORT NAME [JOURNAL]

It can be told to misbehave, by requests that go to it directly (``LIES`` are the ways):

    GET /misbehave?path=/queue&how=garbage      that path is answered so from now on, with or without /api
    GET /misbehave                              all is well again
    POST /say                                   the body is sent to each WebSocket, as text (?binary=1: not)

In the file JOURNAL there is a line for each prompt that begins to run: the server's name and the prompt's id.
"""

import sys
from collections.abc import Iterator
from typing import Any

from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from comfyproxy.demo.queue import QueuedPrompt
from comfyproxy.demo.server import SimulatedComfyUI

LIES: dict[str, bytes] = {
    "garbage": b"\x00\xff<html>\r\n\r\n{",
    "nothing": b"",
    "a list": b'[1, {"queue_running": null}]',
    "wrong types": b'{"queue_running": {"a": [1]}, "queue_pending": [[1], null, "x"], "prompt_id": [],'
    b' "jobs": 7, "exec_info": [], "p": {"outputs": 5, "prompt": 3, "status": []}}',
    "deep": b'{"queue_running": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no numbers": b'{"queue_running": [[NaN, "x", {}, {}, []]], "queue_pending": [[1e999, "y", {}, {}, []]]}',
}
CUT = "cut"
"""The connection is reset instead of an answer; nothing was done."""
CUT_AFTER = "cut after"
"""The same, but what was asked for is done."""
BROKEN = "broken"
"""Status 500."""


class Misbehaving(Resource):
    """What stands before everything that the server serves."""

    isLeaf = True

    def __init__(self, server: SimulatedComfyUI) -> None:
        super().__init__()
        self._server = server
        self._ways: dict[str, str] = {}

    def render(self, request: Request) -> Any:
        path = request.path.decode("latin-1")
        if path == "/misbehave":
            return self._set(request)
        if path == "/say":
            payload = request.content.read()
            for socket in tuple(self._server.machine.clients._sockets.values()):
                socket.send(payload if request.args else payload.decode("latin-1"))
            return b""
        way = self._ways.get(path.removeprefix("/api"))
        if way is None:
            return self._server.resource.render(request)
        if way in LIES:
            return LIES[way]
        if way == BROKEN:
            request.setResponseCode(500)
            return b"Server got itself in trouble"
        if way == CUT_AFTER:
            self._server.resource.render(request)
        request.channel.transport.abortConnection()
        return NOT_DONE_YET

    def _set(self, request: Request) -> bytes:
        if not request.args:
            self._ways.clear()
        else:
            self._ways[request.args[b"path"][0].decode()] = request.args[b"how"][0].decode()
        return b""


def keep_journal(server: SimulatedComfyUI, path: str) -> None:
    """Write down which prompts begin to run."""
    executor = server.machine.executor
    run = executor.run

    def journalled(prompt: QueuedPrompt, now: float) -> Iterator[float]:
        with open(path, "a") as journal:
            journal.write(f"{server.name} {prompt.prompt_id}\n")
        return run(prompt, now)

    executor.run = journalled  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    simulated = SimulatedComfyUI(sys.argv[2], reactor, speed=20)  # type: ignore[arg-type]
    simulated.site.resource = Misbehaving(simulated)
    if len(sys.argv) > 3:
        keep_journal(simulated, sys.argv[3])
    simulated.listen(int(sys.argv[1]))
    reactor.run()  # type: ignore[attr-defined]
