"""A client of any ComfyUI: sends one workflow, follows it by WebSocket, and fetches the pictures.

It works as ComfyUI's own example script does (WebSocket first, then POST /prompt with the same client id,
then /history and /view), and keeps the cookies that a proxy may set, so that it stays with its server.
"""

import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http.cookiejar import CookieJar
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS
from twisted.web.client import Agent, CookieAgent, ResponseFailed
from twisted.web.http_headers import Headers

from comfyproxy.demo.bodies import BytesBody, read_body
from comfyproxy.demo.picture import text_of
from comfyproxy.demo.queue import Graph


@dataclass(frozen=True, slots=True)
class Queued:
    """The server took the prompt; ``number`` is its place in that server's queue."""

    prompt_id: str
    number: float


@dataclass(frozen=True, slots=True)
class Step:
    """A node is ``value`` of ``maximum`` steps along."""

    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that was made, with its file; ``server`` is who says so in it ("" for a real ComfyUI)."""

    filename: str
    subfolder: str
    type: str
    data: bytes
    server: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The prompt ended well."""

    prompt_id: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not; ``reason`` is one sentence for a person."""

    reason: str


Report = Queued | Step | Finished | Failed


def demo_workflow(seed: int | None = None, steps: int = 20, seconds: float = 4.0) -> Graph:
    """A workflow for the simulated servers: one sampler, one saved picture."""
    chosen = random.getrandbits(48) if seed is None else seed
    return {
        "1": {"class_type": "DemoSampler", "inputs": {"seed": chosen, "steps": steps, "seconds": seconds}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "demo"}},
    }


def run_prompt(
    reactor: Any,
    url: str,
    report: Callable[[Report], None] = lambda _: None,
    workflow: Graph | None = None,
    timeout: float = 60.0,
) -> Deferred[Finished | Failed]:
    """Send ``workflow`` (default: `demo_workflow`) to the ComfyUI at ``url``, which may be a proxy.

    ``report`` gets each `Report` as it happens, the last one too; that one is also what the Deferred fires
    with. It never fails: a server that is not there, refuses, or takes longer than ``timeout`` seconds is a
    `Failed`.
    """
    conversation = _Conversation(reactor, url)

    async def talk() -> Finished | Failed:
        try:
            return await conversation.run(workflow or demo_workflow(), report)
        except (ConnectError, ConnectionError, ResponseFailed, _Refused) as error:
            return Failed(_sentence(error))
        except (LookupError, TypeError, ValueError):
            return Failed(f"what answers at {url} is no ComfyUI")

    async def finish() -> Finished | Failed:
        talking = Deferred.fromCoroutine(talk())
        talking.addTimeout(timeout, reactor, lambda *_: Failed(f"no picture from {url} within {timeout:g} s"))
        last = await talking
        await conversation.close()
        report(last)
        return last

    return Deferred.fromCoroutine(finish())


class _Refused(Exception):
    """The server's answer is the end of it; the message says what it was."""


class _Conversation:
    """One prompt's requests and its WebSocket, to one address."""

    def __init__(self, reactor: Any, url: str) -> None:
        self._reactor = reactor
        self._url = url.rstrip("/")
        self._client_id = uuid.uuid4().hex
        self._agent = CookieAgent(Agent(reactor, connectTimeout=10), CookieJar())
        self._socket: _EventReader | None = None

    async def run(self, workflow: Graph, report: Callable[[Report], None]) -> Finished | Failed:
        """The whole way; events are sent only to a socket that is there, so that comes first."""
        self._socket = await self._connect()
        await self._socket.opened
        await self._socket.next_event("status")
        body = json.dumps({"prompt": workflow, "client_id": self._client_id}).encode()
        accepted = json.loads(await self._request(b"POST", "/prompt", body))
        prompt_id = accepted["prompt_id"]
        report(Queued(prompt_id, accepted["number"]))
        if failed := await self._follow(prompt_id, report):
            return failed
        return Finished(prompt_id, await self._pictures(prompt_id))

    async def close(self) -> None:
        """Leave, and wait until the WebSocket is gone."""
        if self._socket is not None:
            self._socket.leave()
            await self._socket.closed

    async def _follow(self, prompt_id: str, report: Callable[[Report], None]) -> Failed | None:
        """Report what happens to the prompt until it has ended and its history is stored."""
        assert self._socket is not None
        while True:
            event = await self._socket.next_event()
            data = event["data"]
            if data.get("prompt_id") != prompt_id:
                continue
            match event["type"]:
                case "progress":
                    report(Step(data["value"], data["max"]))
                case "execution_error":
                    return Failed(f"{data['node_type']} failed: {data['exception_message'].strip()}")
                case "execution_interrupted":
                    return Failed("the prompt was interrupted")
                case "executing" if data["node"] is None:
                    return None

    async def _pictures(self, prompt_id: str) -> tuple[Picture, ...]:
        history = json.loads(await self._request(b"GET", f"/history/{quote(prompt_id)}"))
        outputs = history.get(prompt_id, {}).get("outputs", {})
        pictures = []
        for image in [image for output in outputs.values() for image in output.get("images", ())]:
            query = urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
            data = await self._request(b"GET", f"/view?{query}")
            name = text_of(data).get("server", "")
            pictures.append(Picture(image["filename"], image["subfolder"], image["type"], data, name))
        return tuple(pictures)

    async def _connect(self) -> "_EventReader":
        url = f"ws{self._url.removeprefix('http')}/ws?clientId={self._client_id}"
        factory = _EventReaderFactory(url, self._reactor)
        return cast(_EventReader, await self._endpoint().connect(factory))

    def _endpoint(self) -> IStreamClientEndpoint:
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        secure = parts.scheme == "https"
        endpoint = HostnameEndpoint(self._reactor, host, parts.port or (443 if secure else 80), timeout=10)
        return wrapClientTLS(optionsForClientTLS(host), endpoint) if secure else endpoint

    async def _request(self, method: bytes, path: str, body: bytes | None = None) -> bytes:
        fields = Headers({"Content-Type": ["application/json"]} if body else {})
        producer = BytesBody(body) if body else None
        response = await self._agent.request(method, (self._url + path).encode(), fields, producer)
        content: bytes = await read_body(response)
        if response.code != 200:
            raise _Refused(f"{method.decode()} {path} was answered {response.code}: {_message(content)}")
        return content


class _EventReader(WebSocketClientProtocol):
    """The WebSocket as a queue of JSON events; previews are passed over."""

    factory: "_EventReaderFactory"
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred()
        self._events: DeferredQueue[dict[str, Any] | None] = DeferredQueue()

    async def next_event(self, kind: str | None = None) -> dict[str, Any]:
        """The next event, of that type if one is given.

        Raises ConnectionError when the socket closes first.
        """
        while True:
            event = await self._events.get()
            if event is None:
                raise ConnectionError("the WebSocket closed before the prompt had ended")
            if kind in (None, event["type"]):
                return event

    def leave(self) -> None:
        """Close it, with the closing handshake if it was ever open."""
        if self.state == self.STATE_CONNECTING:
            self.transport.abortConnection()
        else:
            self.sendClose(1000)

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if not isBinary:
            self._events.put(json.loads(payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if not self.opened.called:
            self.opened.errback(ConnectionError(f"the WebSocket was refused: {reason}"))
        self._events.put(None)
        self.closed.callback(None)


class _EventReaderFactory(WebSocketClientFactory):
    protocol = _EventReader  # type: ignore[assignment]  # Autobahn has a type of its own for what Twisted calls so.
    noisy = False

    def __init__(self, url: str, reactor: Any) -> None:
        super().__init__(url, reactor=reactor)
        self.setProtocolOptions(openHandshakeTimeout=0, maxMessagePayloadSize=0)


def _message(content: bytes) -> str:
    """What an error's body says to a person, in ComfyUI's shape or any other."""
    text = content.decode("utf-8", "replace").strip()
    try:
        error = json.loads(text)["error"]
        return error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, LookupError, TypeError):
        return text[:200] or "(no body)"


def _sentence(error: Exception) -> str:
    causes = getattr(error, "reasons", None)
    return str(causes[0].value if causes else error)
