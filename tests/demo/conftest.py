"""A simulated server on a clock, for most tests of the demo, and servers on loopback for the rest."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_twisted
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from comfyproxy.demo.bodies import BytesBody, read_body
from comfyproxy.demo.machine import Installation, Machine
from comfyproxy.demo.routes.table import all_routes
from comfyproxy.demo.routing import Answer, Asked, parse_query
from comfyproxy.demo.server import SimulatedComfyUI, stop_all


class Recorder:
    """A socket that keeps what it is sent, decoded where it is JSON."""

    def __init__(self) -> None:
        self.writable = True
        self.received: list[Any] = []

    def send(self, payload: str | bytes) -> None:
        self.received.append(json.loads(payload) if isinstance(payload, str) else payload)

    @property
    def types(self) -> list[str]:
        return ["(binary)" if isinstance(one, bytes) else one["type"] for one in self.received]

    def data(self, kind: str) -> list[Any]:
        return [one["data"] for one in self.received if not isinstance(one, bytes) and one["type"] == kind]


class Bench:
    """One machine with its routes, a clock to turn, and short ways to ask."""

    def __init__(self, **manners: Any) -> None:
        self.clock = Clock()
        self.machine = Machine(Installation("gpu-1", 0.5, **manners), self.clock)
        self.routes = all_routes(self.machine)

    def ask(self, method: str, url: str, body: Any = b"", fields: Mapping[str, str] | None = None) -> Answer:
        path, _, query = url.partition("?")
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.routes.answer(Asked(method, path, parse_query(query), fields or {}, data))

    def get(self, url: str) -> Any:
        """The JSON of an answer that must be 200."""
        answer = self.ask("GET", url)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def post(self, url: str, body: Any = b"") -> Any:
        """The JSON (None: an empty body) of an answer that must be 200."""
        answer = self.ask("POST", url, body)
        assert answer.status == 200, answer
        return json.loads(answer.body) if answer.body else None

    def prompt(self, graph: Mapping[str, Any], **fields: Any) -> str:
        return self.post("/prompt", {"prompt": graph, **fields})["prompt_id"]

    def connect(self, sid: str, features: Mapping[str, Any] | None = None) -> Recorder:
        recorder = Recorder()
        self.machine.clients.join(sid, recorder)
        self.machine.clients.set_features(sid, features or {})
        return recorder

    def run(self) -> None:
        """Turn the clock until nothing is left to do."""
        while calls := self.clock.getDelayedCalls():
            self.clock.advance(max(0.0, calls[0].getTime() - self.clock.seconds()))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    """Benches with other manners: `make_bench(jobs_api=False)`."""
    return Bench


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make_recorder() -> Callable[[], Recorder]:
    return Recorder


@pytest.fixture
def flat_picture() -> dict[str, Any]:
    """The smallest workflow: one colour, saved."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "flat"}},
    }


@pytest.fixture
def sampled_picture() -> dict[str, Any]:
    """Two steps of a second each, then a saved picture."""
    return {
        "1": {"class_type": "DemoSampler", "inputs": {"seed": 7, "steps": 2, "seconds": 2}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sampled"}},
    }


class WebSocketClient(WebSocketClientProtocol):
    """A client's end: what it received, and ways to wait for more."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[None] = Deferred()
        self.closed: Deferred[int] = Deferred()
        self.received: list[Any] = []
        self._arrivals: DeferredQueue[Any] = DeferredQueue()

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        message = payload if isBinary else json.loads(payload)
        self.received.append(message)
        self._arrivals.put(message)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        self.closed.callback(code)

    async def next(self, kind: str | None = None) -> Any:
        """The next message, of that type if one is given."""
        while True:
            message = await self._arrivals.get()
            if kind is None or (not isinstance(message, bytes) and message["type"] == kind):
                return message

    def say(self, message: Any) -> None:
        self.sendMessage(json.dumps(message).encode())

    async def leave(self) -> None:
        self.sendClose(1000)
        await self.closed


class Lab:
    """Simulated servers on loopback, their clients, and requests; everything is closed after the test."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.servers: list[SimulatedComfyUI] = []
        self.clients: list[WebSocketClient] = []

    async def serve(self, **options: Any) -> SimulatedComfyUI:
        server = SimulatedComfyUI(f"gpu-{len(self.servers) + 1}", self.reactor, **{"speed": 0.0, **options})
        self.servers.append(server)
        return await server.listen()

    async def connect(self, server: SimulatedComfyUI, query: str = "") -> WebSocketClient:
        factory = WebSocketClientFactory(f"ws://127.0.0.1:{server.port}/ws{query}", reactor=self.reactor)
        factory.protocol = WebSocketClient
        factory.noisy = False
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, maxMessagePayloadSize=0)
        client = await TCP4ClientEndpoint(self.reactor, "127.0.0.1", server.port).connect(factory)
        self.clients.append(client)
        await client.opened
        return client

    async def ask(
        self,
        server: SimulatedComfyUI,
        method: str,
        path: str,
        body: bytes = b"",
        fields: Mapping[str, str] | None = None,
    ) -> tuple[int, Headers, bytes]:
        headers = Headers({name: [value] for name, value in (fields or {}).items()})
        url = f"{server.url}{path}".encode()
        response = await Agent(self.reactor).request(
            method.encode(), url, headers, BytesBody(body) if body else None
        )
        return response.code, response.headers, await read_body(response)

    async def close(self) -> None:
        await stop_all(self.servers)
        for client in self.clients:
            if not client.closed.called:
                client.transport.abortConnection()  # one that does not read would not notice
            await client.closed


@pytest_twisted.async_yield_fixture
async def lab(running_reactor: Any) -> AsyncIterator[Lab]:
    lab = Lab(running_reactor)
    yield lab
    await lab.close()
