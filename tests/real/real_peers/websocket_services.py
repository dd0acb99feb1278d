"""WebSocket servers of two makes, `websockets` and aiohttp, on the tests' own event loop.

The path says what a server does: `/echo` sends every message back; `/push` sends three messages at once;
`/close?code=&reason=` closes with these; `/wait` says nothing. What a server saw is in `seen`.
"""

import asyncio
import http
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import aiohttp
import websockets.asyncio.server
import websockets.exceptions
import websockets.http11
from aiohttp import web

Make = Literal["websockets", "aiohttp"]

SUBPROTOCOLS = ("chat.v1",)
PUSHED = ("first", "second", "third")
TOKEN = "open sesame"


@dataclass
class Seen:
    """What a server saw of one connection."""

    offered_subprotocols: list[str]
    headers: dict[str, str]
    ended: asyncio.Future[tuple[int, str]] = field(default_factory=asyncio.Future)
    """The close code and reason with which the connection ended, 1006 when it broke."""


@dataclass
class WebSocketService:
    """A running server: its address, what it saw (one entry a connection), and a way to break off."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    transports: list[asyncio.Transport] = field(default_factory=list)

    def abort_connections(self) -> None:
        """Cut every connection without a close frame, as a server that is killed does."""
        for transport in self.transports:
            transport.abort()


def wanted_close(path: str) -> tuple[int, str]:
    """The code and reason in `/close?code=&reason=`."""
    query = parse_qs(urlsplit(path).query)
    return int(query["code"][0]), query.get("reason", [""])[0]


@asynccontextmanager
async def serve(make: Make) -> AsyncIterator[WebSocketService]:
    """Run a server of this make."""
    async with {"websockets": _serve_websockets, "aiohttp": _serve_aiohttp}[make]() as service:
        yield service


@asynccontextmanager
async def _serve_websockets() -> AsyncIterator[WebSocketService]:
    service = WebSocketService()

    async def handle(connection: websockets.asyncio.server.ServerConnection) -> None:
        assert connection.request is not None
        headers = connection.request.headers
        seen = Seen(headers.get("Sec-WebSocket-Protocol", "").split(", "), dict(headers.raw_items()))
        service.seen.append(seen)
        service.transports.append(connection.transport)
        path = connection.request.path
        try:
            if path.startswith("/close"):
                await connection.close(*wanted_close(path))
            for text in PUSHED if path == "/push" else ():
                await connection.send(text)
            async for message in connection:
                await connection.send(message)
        except websockets.exceptions.ConnectionClosedError:
            pass
        finally:
            await connection.wait_closed()
            seen.ended.set_result((connection.close_code or 1006, connection.close_reason or ""))

    def admit(
        connection: websockets.asyncio.server.ServerConnection, request: websockets.http11.Request
    ) -> websockets.http11.Response | None:
        if request.path == "/secret" and request.headers.get("Authorization") != TOKEN:
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "who are you?")
        return None

    def choose(
        connection: websockets.asyncio.server.ServerConnection, offered: Sequence[websockets.Subprotocol]
    ) -> websockets.Subprotocol | None:
        # The library's own choice refuses clients that offer none.
        return next((one for one in offered if one in SUBPROTOCOLS), None)

    async with websockets.asyncio.server.serve(
        handle,
        "127.0.0.1",
        0,
        select_subprotocol=choose,
        process_request=admit,
        max_size=None,
        ping_interval=None,
    ) as server:
        [socket] = server.sockets
        service.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        yield service


@asynccontextmanager
async def _serve_aiohttp() -> AsyncIterator[WebSocketService]:
    service = WebSocketService()

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/secret" and request.headers.get("Authorization") != TOKEN:
            return web.Response(status=401, text="who are you?")
        socket = web.WebSocketResponse(protocols=SUBPROTOCOLS, max_msg_size=0)
        await socket.prepare(request)
        seen = Seen(request.headers.get("Sec-WebSocket-Protocol", "").split(", "), dict(request.headers))
        service.seen.append(seen)
        assert request.transport is not None
        service.transports.append(request.transport)
        if request.path == "/close":
            code, reason = wanted_close(request.path_qs)
            await socket.close(code=code, message=reason.encode())
        for text in PUSHED if request.path == "/push" else ():
            await socket.send_str(text)
        reason = ""
        while not socket.closed:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.CLOSE:
                reason = message.extra or ""
        seen.ended.set_result((socket.close_code or 1006, reason))
        return socket

    application = web.Application()
    application.router.add_get("/{any:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        await runner.cleanup()
