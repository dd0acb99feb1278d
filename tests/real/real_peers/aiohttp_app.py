"""A service on aiohttp for tests/real: `python aiohttp_app.py PORT FILE`.

It has the same routes as flask_app.py, which are described there, and `/refused`.
"""

import asyncio
import hashlib
import os
import sys
from pathlib import Path

from aiohttp import web

FILE = web.AppKey("FILE", Path)
ACKNOWLEDGED = web.AppKey("ACKNOWLEDGED", dict[str, asyncio.Semaphore])
routes = web.RouteTableDef()


@routes.get("/file")
async def file(request: web.Request) -> web.FileResponse:
    return web.FileResponse(request.app[FILE])


@routes.get("/stream")
async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with request.app[FILE].open("rb") as content:
        while block := content.read(2**16):
            await response.write(block)
    return response


@routes.route("*", "/digest")
async def digest(request: web.Request) -> web.Response:
    sha256, length = hashlib.sha256(), 0
    async for block in request.content.iter_any():
        sha256.update(block)
        length += len(block)
    framing = {name: request.headers.get(name) for name in ("Content-Length", "Transfer-Encoding")}
    return web.json_response({"sha256": sha256.hexdigest(), "length": length, **framing})


@routes.get("/compressed")
async def compressed(request: web.Request) -> web.Response:
    response = web.Response(text="all work and no play " * 10_000)
    response.enable_compression()
    return response


@routes.get("/events/{name}")
async def events(request: web.Request) -> web.StreamResponse:
    acknowledged = request.app[ACKNOWLEDGED].setdefault(request.match_info["name"], asyncio.Semaphore(0))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(int(request.query["count"])):
        await response.write(f"data: token {number}\n\n".encode())
        await acknowledged.acquire()
    return response


@routes.post("/acknowledge/{name}")
async def acknowledge(request: web.Request) -> web.Response:
    request.app[ACKNOWLEDGED][request.match_info["name"]].release()
    return web.Response()


@routes.get("/process")
async def process(request: web.Request) -> web.Response:
    return web.Response(text=str(os.getpid()))


async def refuse_before_the_body(request: web.Request) -> web.StreamResponse | None:
    """Answer an `Expect: 100-continue` with the final answer instead of asking for the body."""
    return web.Response(status=413, text="refused before the body")


@routes.post("/refused", expect_handler=refuse_before_the_body)
async def refused(request: web.Request) -> web.Response:
    """For a client that sends its body without asking: the answer comes while the body is on its way."""
    return web.Response(status=413, text="refused while the body came")


def main(port: str, path: str) -> None:
    app = web.Application(client_max_size=0)
    app[FILE] = Path(path)
    app[ACKNOWLEDGED] = {}
    app.add_routes(routes)
    web.run_app(app, host="127.0.0.1", port=int(port), print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
