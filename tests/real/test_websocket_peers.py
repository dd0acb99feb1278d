"""A `websockets` client through the proxy to `websockets` and aiohttp servers."""

import asyncio
import contextlib
import random
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets.asyncio.client
import websockets.exceptions
from real_peers.proxy import Front, websocket_url
from real_peers.websocket_services import PUSHED, TOKEN, Make, WebSocketService, serve
from websockets.asyncio.client import ClientConnection, connect

pytestmark = [pytest.mark.real, pytest.mark.timeout(60, func_only=True)]

MIB = 2**20

CLOSES = [
    pytest.param(1000, "done", id="1000"),
    pytest.param(1001, "going away, as a tab that is closed", id="1001"),
    pytest.param(1011, "something broke", id="1011"),
    pytest.param(3000, "unauthorized", id="3000"),
    pytest.param(4999, "ünïcödé " * 10, id="4999"),
]


@pytest.fixture(scope="module", params=["websockets", "aiohttp"])
def service(request: pytest.FixtureRequest, event_loop_runner: asyncio.Runner) -> Iterator[WebSocketService]:
    """A server, once of each make."""
    make: Make = request.param
    running = contextlib.AsyncExitStack()
    yield event_loop_runner.run(running.enter_async_context(serve(make)))
    event_loop_runner.run(running.aclose())


@pytest.fixture(scope="module", params=["relay", "messages"])
def url(request: pytest.FixtureRequest, service: WebSocketService, front: Front) -> str:
    """The WebSocket address under test, once for each way that the proxy can pass messages."""
    return websocket_url(front(service.url, options=("--app", "http", "--websocket", request.param)))


@pytest.fixture
def relayed(request: pytest.FixtureRequest, url: str) -> bool:
    """Whether frames pass as they are, so that what only frames show can be asked for."""
    return "messages" not in request.node.callspec.params.values()


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A client that takes messages of any size and sends no pings of its own."""
    async with connect(url, max_size=None, ping_interval=None, proxy=None, **options) as socket:
        yield socket


async def echo(socket: ClientConnection, message: str | bytes) -> str | bytes:
    await socket.send(message)
    return await socket.recv()


async def test_the_subprotocol_that_the_server_chose_reaches_the_client(
    url: str, service: WebSocketService
) -> None:
    async with opened(f"{url}/echo", subprotocols=["chat.v9", "chat.v1"]) as socket:
        assert socket.subprotocol == "chat.v1"
        assert await echo(socket, "hello") == "hello"
    assert service.seen[-1].offered_subprotocols == ["chat.v9", "chat.v1"]


async def test_credentials_reach_the_server_and_its_refusal_reaches_the_client(
    url: str, service: WebSocketService
) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await connect(f"{url}/secret", proxy=None)
    assert refused.value.response.status_code == 401
    assert refused.value.response.body == b"who are you?"
    headers = {"Authorization": TOKEN, "Cookie": "session=1; other=2"}
    async with opened(f"{url}/secret", additional_headers=headers):
        pass
    assert service.seen[-1].headers["Cookie"] == "session=1; other=2"


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize(
    "message",
    [
        pytest.param("", id="empty text"),
        pytest.param(b"", id="empty bytes"),
        pytest.param("ünïcödé ✓ 𝄞", id="text"),
        pytest.param(bytes(range(256)), id="bytes"),
        pytest.param("x" * 125 + "y", id="16-bit length"),
        pytest.param(b"z" * 70_000, id="64-bit length"),
        pytest.param("all work and no play " * 50_000, id="compressible"),
    ],
)
async def test_messages_come_back_as_they_went(
    url: str, message: str | bytes, compression: str | None
) -> None:
    async with opened(f"{url}/echo", compression=compression) as socket:
        assert await echo(socket, message) == message


async def test_compression_is_agreed_on_between_the_ends(url: str, relayed: bool) -> None:
    if not relayed:
        pytest.skip("where messages are seen, each hop may agree on compression for itself")
    async with opened(f"{url}/echo") as socket:
        assert socket.response is not None
        assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]


async def test_a_thousand_messages_keep_their_order(url: str) -> None:
    messages = [f"{number} {'x' * (number * 7 % 300)}" for number in range(1000)]
    async with opened(f"{url}/echo") as socket:

        async def send() -> None:
            for message in messages:
                await socket.send(message)

        sending = asyncio.create_task(send())
        assert [await socket.recv() for _ in messages] == messages
        await sending


async def test_messages_that_the_server_sends_at_once_after_its_handshake_arrive(url: str) -> None:
    async with opened(f"{url}/push") as socket:
        assert [await socket.recv() for _ in PUSHED] == list(PUSHED)


async def test_a_ping_is_answered_with_its_own_payload(url: str) -> None:
    async with opened(f"{url}/echo") as socket:
        answered = [await socket.ping(payload) for payload in (b"", b"one", b"x" * 125)]
        await asyncio.gather(*answered)
        assert await echo(socket, "still there") == "still there"


async def test_a_message_in_fragments_arrives_whole(url: str) -> None:
    async with opened(f"{url}/echo") as socket:
        await socket.send(["frag", "men", "", "ted ✓"])
        assert await socket.recv() == "fragmented ✓"
        await socket.send([b"by", b"tes"])
        assert await socket.recv() == b"bytes"


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_a_message_of_64_mib_goes_both_ways(url: str, compression: str | None) -> None:
    half = random.Random(0).randbytes(32 * MIB)
    message = half + bytes(32 * MIB)
    async with opened(f"{url}/echo", compression=compression) as socket:
        assert await echo(socket, message) == message


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_the_close_of_the_server_reaches_the_client(
    url: str, service: WebSocketService, code: int, reason: str
) -> None:
    query = urllib.parse.urlencode({"code": code, "reason": reason})
    async with opened(f"{url}/close?{query}") as socket:
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (code, reason)
    assert (await service.seen[-1].ended)[0] == code


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_the_close_of_the_client_reaches_the_server(
    url: str, service: WebSocketService, code: int, reason: str
) -> None:
    async with opened(f"{url}/echo") as socket:
        await echo(socket, "hello")
        await socket.close(code, reason)
    assert await service.seen[-1].ended == (code, reason)


async def test_a_server_that_is_gone_is_no_normal_close_for_the_client(
    url: str, service: WebSocketService
) -> None:
    async with opened(f"{url}/echo") as socket:
        await echo(socket, "hello")
        service.abort_connections()
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            await socket.recv()
        assert socket.close_code in {1006, 1011, 1012, 1014}


async def test_a_client_that_is_gone_is_no_normal_close_for_the_server(
    url: str, service: WebSocketService
) -> None:
    async with opened(f"{url}/echo") as socket:
        await echo(socket, "hello")
        socket.transport.abort()
        code, _ = await service.seen[-1].ended
        assert code not in {1000, 1005}
