"""A service on aiohttp, on the tests' own event loop, that says who it is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

BLOCK = bytes(range(256)) * 256
"""What a slow download is made of: 64 KiB."""


class NamedService:
    """Answers `/name` with its name, `/slow?blocks=` with blocks `let_go` frees, and echoes at `/echo`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.url = ""
        self._free = asyncio.Semaphore(0)

    def let_go(self, blocks: int) -> None:
        """Let so many more blocks of slow downloads be sent."""
        for _ in range(blocks):
            self._free.release()

    async def answer_name(self, request: web.Request) -> web.Response:
        return web.Response(text=self.name)

    async def answer_slowly(self, request: web.Request) -> web.StreamResponse:
        blocks = int(request.query["blocks"])
        response = web.StreamResponse(
            headers={"Content-Length": str(blocks * len(BLOCK)), "Served-By": self.name}
        )
        await response.prepare(request)
        for _ in range(blocks):
            await self._free.acquire()
            await response.write(BLOCK)
        return response

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            assert message.type is aiohttp.WSMsgType.TEXT
            await socket.send_str(f"{self.name}: {message.data}")
        return socket


@asynccontextmanager
async def serve_named(*names: str) -> AsyncIterator[list[NamedService]]:
    """Run one service for each name."""
    services, runners = [], []
    for name in names:
        service = NamedService(name)
        application = web.Application()
        application.router.add_get("/name", service.answer_name)
        application.router.add_get("/slow", service.answer_slowly)
        application.router.add_get("/echo", service.echo)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        services.append(service)
        runners.append(runner)
    try:
        yield services
    finally:
        await asyncio.gather(*(runner.cleanup() for runner in runners))
