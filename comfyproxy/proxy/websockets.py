"""WebSockets whose messages are seen (``--websocket messages``): autobahn stands at both ends.

The opening handshake stays the exchange's: autobahn's client writes its request into a `Captured`
transport, and what it chose (key, extensions) goes out in the exchange's own request to the backend, so
routing, retries and the pages of a backend that refuses work as for any request. When the 101 comes,
autobahn's client is given it, and autobahn's server is given the client's request; from then on each end
checks, answers pings, and keeps alive its own hop, and whole messages pass between them.

Each hop negotiates its extensions for itself: compression with the client if it offers it, none to the
backend (a second deflate would cost more than the local network saves). Close codes and reasons pass both
ways. A backend that dies without a word becomes 1014 (bad gateway) to the client, a client that does
becomes 1001 (going away) to the backend.

Back-pressure is as in `comfyproxy.proxy.relay`: one side is not read while the other does not take bytes,
except a ComfyUI backend, which is always read. What a slow client cannot take waits in a `Backlog`, where
a newer preview or progress state takes the place of an older one.
"""

from collections.abc import Callable, Hashable
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.core.http1 import ResponseHead
from comfyproxy.proxy.exchange import Exchange
from comfyproxy.proxy.relay import DRAIN_LIMIT, RelayEnd
from comfyproxy.proxy.upstream import Upstream

MAX_MESSAGE = 128 * 1024 * 1024
"""Octets of one message; a larger one ends its connection with 1009. Twice what must pass (64 MiB)."""

PING_INTERVAL = 25.0
"""Seconds between our pings on each hop: under the shortest idle limit of usual gateways (60 s), twice
over."""

PING_TIMEOUT = 20.0
"""Seconds without any sign of life after a ping until the hop counts as dead."""

GOING_AWAY = 1001
BAD_GATEWAY = 1014

MessageKey = Callable[[bytes, bool], Hashable | None]
"""Says under which key a newer message replaces an older one that still waits; ``None`` for never."""


class Bridges:
    """Makes the bridges of one proxy."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._servers = WebSocketServerFactory(server="comfyproxy", reactor=reactor)
        self._servers.setProtocolOptions(
            perMessageCompressionAccept=_accept_deflate, allowNullOrigin=True, **_OPTIONS
        )

    def bridge(self, exchange: Exchange, upstream: Upstream) -> "Bridge":
        """A bridge for ``exchange``, whose backend connection is ``upstream``."""
        offered = exchange.head.value(b"sec-websocket-protocol") or b""
        protocols = [name.strip().decode("latin-1") for name in offered.split(b",") if name.strip()]
        backend_end = _BackendEnd()
        backend_end.factory = WebSocketClientFactory(protocols=protocols, reactor=self._reactor)
        backend_end.factory.setProtocolOptions(serverConnectionDropTimeout=5, **_OPTIONS)
        client_end = _ClientEnd()
        client_end.factory = self._servers
        return Bridge(exchange, upstream, client_end, backend_end)


class Captured:
    """A transport whose writes are kept until it is `released`: for a handshake that somebody else sends."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.written = b""

    def write(self, data: bytes) -> None:
        """Keep ``data``."""
        self.written += data

    def release(self) -> None:
        """Let writes through from now on."""
        self.write = self._transport.write  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Bridge:
    """Joins a client and a backend by messages; stands where a `Relay` would, so has its two callbacks."""

    def __init__(
        self, exchange: Exchange, upstream: Upstream, client: "_ClientEnd", backend: "_BackendEnd"
    ) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._client = client
        self._backend = backend
        self._client_side: RelayEnd | None = None
        self._ended = False
        self._captured = Captured(upstream.transport)
        backend.makeConnection(self._captured)

    @property
    def key_line(self) -> bytes:
        """The ``Sec-WebSocket-Key`` of this hop's handshake, as a field line."""
        lines = self._captured.written.split(b"\r\n")
        return next(line for line in lines if line.lower().startswith(b"sec-websocket-key:"))

    def accepts(self, head: ResponseHead) -> bool:
        """Whether ``head`` is a 101 that autobahn takes for the answer to its handshake."""
        self._captured.release()
        lines = [line for _, line in head.fields]
        self._backend.dataReceived(b"\r\n".join((b"HTTP/1.1 101 Switching Protocols", *lines, b"", b"")))
        return self._backend.state == self._backend.STATE_OPEN

    def join(self, rest: bytes, lines: tuple[bytes, ...], drain: MessageKey | None) -> None:
        """Complete the client's handshake and let messages pass; ``rest`` came behind the backend's 101.

        ``lines`` are added to the 101. With ``drain`` the backend is always read, and messages may replace
        one another while they wait.
        """
        side, held = self._exchange.front.give_away()
        self._client_side = side
        upstream = self._upstream
        side.relay = upstream.relay = self  # type: ignore[assignment]
        self._client.accept(self._backend.websocket_protocol_in_use, lines)
        self._client.makeConnection(side.transport)
        side.dataReceived = self._client.dataReceived  # type: ignore[method-assign]
        upstream.dataReceived = self._backend.dataReceived  # type: ignore[method-assign]
        backlog = Backlog(self._client, drain or _never, upstream.transport if drain is None else None)
        side.transport.registerProducer(backlog, True)
        upstream.transport.registerProducer(side.transport, True)
        self._client.joined(self._backend.sendMessage, self._backend)
        self._backend.joined(backlog.send, self._client)
        self._client.dataReceived(self._request())
        if held:
            self._client.dataReceived(held)
        if rest:
            self._backend.dataReceived(rest)
        side.transport.resumeProducing()

    def _request(self) -> bytes:
        head = self._exchange.head
        return b"\r\n".join((head.line, *(line for _, line in head.fields), b"", b""))

    def read_ended(self, end: RelayEnd) -> None:
        """One side sends no more: a WebSocket has no half-close, so it is over there."""
        end.transport.loseConnection()

    def lost(self, end: RelayEnd, reason: Failure) -> None:
        """One side's connection is gone: tell autobahn, which tells the other side why."""
        assert self._client_side is not None
        if end is self._client_side:
            self._upstream.transport.unregisterProducer()
            self._client.connectionLost(reason)
            self._backend.end(GOING_AWAY)
        else:
            self._client_side.transport.unregisterProducer()
            self._backend.connectionLost(reason)
            self._client.end(BAD_GATEWAY)
        if not self._ended:
            self._ended = True
            self._exchange.closed()


@implementer(IPushProducer)
class Backlog:
    """What waits for a client that does not take it yet.

    With ``source`` (the transport that the messages come from) the source is paused meanwhile. Without,
    it is read on: a message for which ``key`` gives a key replaces the one of that key that waits, and
    past ``limit`` octets the client is dropped (1008).
    """

    def __init__(self, client: "_End", key: MessageKey, source: Any = None, limit: int = DRAIN_LIMIT) -> None:
        self._client = client
        self._key = key
        self._source = source
        self._limit = limit
        self._paused = False
        self._size = 0
        self._waiting: dict[Hashable, tuple[bytes, bool]] = {}

    def send(self, payload: bytes, isBinary: bool) -> None:
        """Send a message now or when the client takes it."""
        if not self._paused or self._source is not None:
            self._client.sendMessage(payload, isBinary)
            return
        key = self._key(payload, isBinary)
        if key is None:
            key = object()
        elif (old := self._waiting.pop(key, None)) is not None:
            self._size -= len(old[0])
        self._waiting[key] = (payload, isBinary)
        self._size += len(payload)
        if self._size > self._limit:
            self._waiting.clear()
            self._size = 0
            self._client.transport.abortConnection()

    def pauseProducing(self) -> None:
        self._paused = True
        if self._source is not None:
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._source is not None:
            self._source.resumeProducing()
        while self._waiting and not self._paused:
            payload, is_binary = self._waiting.pop(next(iter(self._waiting)))
            self._size -= len(payload)
            self._client.sendMessage(payload, is_binary)

    def stopProducing(self) -> None:
        self._waiting.clear()


class _End:
    """What both ends do alike: pass messages and closing codes to the other."""

    transport: Any
    sendMessage: Any

    def joined(self, send: Callable[[bytes, bool], None], other: Any) -> None:
        self._pass_on = send
        self._other = other

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._pass_on(payload, isBinary)

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool | None:
        stop: bool | None = super().onCloseFrame(code, reasonRaw)  # type: ignore[misc]
        if self._other.state == self._other.STATE_OPEN:
            self._other.sendCloseFrame(code, reasonRaw)
        return stop

    def end(self: Any, code: int) -> None:
        """The other side is gone: say so with ``code`` if this one has not been told anything else."""
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code, None)
        elif self.state not in (self.STATE_CLOSING, self.STATE_CLOSED):
            self.transport.loseConnection()


class _ClientEnd(_End, WebSocketServerProtocol):  # type: ignore[misc]
    """Autobahn's server, towards the client."""

    def accept(self, protocol: str | None, lines: tuple[bytes, ...]) -> None:
        """Answer the handshake with the subprotocol that the backend chose, and ``lines``."""
        fields = (line.decode("latin-1").partition(":") for line in lines)
        self._answer = (protocol, {name: value.strip() for name, _, value in fields})

    def onConnect(self, request: ConnectionRequest) -> tuple[str | None, dict[str, str]]:
        return self._answer


class _BackendEnd(_End, WebSocketClientProtocol):  # type: ignore[misc]
    """Autobahn's client, towards the backend."""


def _accept_deflate(offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


def _never(payload: bytes, is_binary: bool) -> None:
    """No message replaces another."""


_OPTIONS = {
    "maxFramePayloadSize": MAX_MESSAGE,
    "maxMessagePayloadSize": MAX_MESSAGE,
    "failByDrop": False,
    "echoCloseCodeReason": True,
    "autoPingInterval": PING_INTERVAL,
    "autoPingTimeout": PING_TIMEOUT,
    "autoPingRestartOnAnyTraffic": True,
    "openHandshakeTimeout": 0,
    "closeHandshakeTimeout": 5,
}
