"""WebSockets whose messages are seen (``--websocket messages``): autobahn stands at both ends.

The opening handshake stays the exchange's, so that routing, retries and the pages of a backend that refuses
work as for any request; a `Bridge` adds a key of its own to the request, and once the 101 is there it puts
autobahn's ends between the two connections. From then on each end checks what its peer sends, answers pings
and keeps its own hop alive, and whole messages pass between them.

Each hop negotiates its extensions for itself: compression with a client that offers it, none with the backend
(a second deflate would cost more than the local network saves). Close codes and reasons pass both ways. A
backend that vanishes or breaks the protocol becomes 1014 (bad gateway) to the client, a client that does
becomes 1001 (going away) to the backend.

Back-pressure is as in `comfyproxy.proxy.relay`: one side is not read while the other is behind, except a
ComfyUI backend, which is always read. What a slow client cannot take waits in a `Backlog`, where a newer
preview or progress state takes the place of an older one, and past a limit the client is cut off.
"""

from base64 import b64encode
from secrets import token_bytes
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketServerFactory
from twisted.python.failure import Failure

from comfyproxy.core.config import Timeouts
from comfyproxy.core.http.forwarding import UPGRADE
from comfyproxy.core.http.headers import HOP_BY_HOP
from comfyproxy.core.http.http1 import ResponseHead
from comfyproxy.core.http.websocket import accepts_key
from comfyproxy.proxy.draining import STOPPING, Work
from comfyproxy.proxy.exchange import Exchange
from comfyproxy.proxy.outflow import Backlog, MessageKey
from comfyproxy.proxy.relay import DRAIN_LIMIT, RelayEnd
from comfyproxy.proxy.upstream import Upstream
from comfyproxy.proxy.websocket_end import GOING_AWAY, End
from comfyproxy.proxy.websocket_ends import BackendEnd, ClientEnd, accept_deflate

MAX_MESSAGE = 128 * 1024 * 1024
"""Octets of one message; a larger one ends its connection with 1009. Twice what must pass (64 MiB)."""

_OF_THIS_HOP = HOP_BY_HOP | {b"sec-websocket-accept"}


def make_factories(reactor: Any) -> tuple[WebSocketServerFactory, WebSocketClientFactory]:
    """What autobahn's ends towards clients and towards backends go by."""
    # Autobahn takes the global reactor unless it is given one, and timers only if it is told to.
    clients = WebSocketServerFactory(server=None, reactor=reactor)
    backends = WebSocketClientFactory(reactor=reactor)
    for factory in (clients, backends):
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
    clients.setProtocolOptions(perMessageCompressionAccept=accept_deflate)
    return clients, backends


class Bridges:
    """Makes the bridges of one proxy.

    ``max_message`` is in octets, as is ``backlog``: what may wait for a client of a ComfyUI backend.
    """

    def __init__(self, reactor: Any, max_message: int = MAX_MESSAGE, backlog: int = DRAIN_LIMIT) -> None:
        self.max_message = max_message
        self.backlog = backlog
        self.clients, self.backends = make_factories(reactor)

    def bridge(self, exchange: Exchange) -> "Bridge":
        """A bridge for one attempt of ``exchange`` at a backend."""
        return Bridge(exchange, self)


class Bridge:
    """Joins a client and a backend by messages; stands where a `Tunnel` would, so has its callbacks."""

    def __init__(self, exchange: Exchange, bridges: Bridges) -> None:
        self._exchange = exchange
        self._bridges = bridges
        self._key = b64encode(token_bytes(16))
        self._ends: dict[RelayEnd, End] = {}
        self._is_comfyui = False

    @property
    def work(self) -> Work:
        """What it counts as when the proxy is to stop."""
        return Work.EVENTS if self._is_comfyui else Work.WEBSOCKET

    @property
    def key_line(self) -> bytes:
        """The ``Sec-WebSocket-Key`` of the backend's hop, as a field line."""
        return b"Sec-WebSocket-Key: " + self._key

    def accepts(self, head: ResponseHead) -> bool:
        """Whether ``head`` is a 101 that agrees to what was offered: no extension, a subprotocol or none."""
        offers = b",".join(self._exchange.head.values(b"sec-websocket-protocol"))
        offered = [offer.strip(b" \t") for offer in offers.split(b",")]
        chosen = head.values(b"sec-websocket-protocol")
        return (
            accepts_key(self._key, head)
            and not head.values(b"sec-websocket-extensions")
            and (not chosen or (len(chosen) == 1 and chosen[0] in offered))
        )

    def join(
        self,
        upstream: Upstream,
        head: ResponseHead,
        rest: bytes,
        fields: bytes,
        message_key: MessageKey | None,
        timeouts: Timeouts,
    ) -> None:
        """Send the client its 101 and let messages pass.

        ``head`` is the backend's 101, ``rest`` came behind it, ``fields`` (whole lines) are added to it. With
        ``message_key`` the backend is always read, and messages may replace one another while they wait.
        """
        exchange, bridges = self._exchange, self._bridges
        request = exchange.head
        client, backend = ClientEnd(bridges.max_message), BackendEnd(bridges.max_message)
        backend.accept(bridges.backends)
        own = client.accept(
            bridges.clients,
            request.value(b"sec-websocket-key") or b"",
            request.values(b"sec-websocket-extensions"),
        )
        side, held = exchange.front.tunnel(
            exchange.edited(head.block.passing(_OF_THIS_HOP)) + UPGRADE + own + fields
        )
        self._ends = {side: client, upstream: backend}
        deadlines = exchange.proxy.deadlines
        self._is_comfyui = message_key is not None
        backlog = Backlog(message_key, bridges.backlog) if message_key is not None else None
        client.join(side.transport, backend, deadlines, timeouts, backlog)
        backend.join(upstream.transport, client, deadlines, timeouts, None)
        for connection, end in self._ends.items():
            connection.relay = self  # type: ignore[assignment]
            connection.dataReceived = end.dataReceived  # type: ignore[method-assign]
            connection.transport.resumeProducing()
        if held:
            client.dataReceived(held)
        if rest:
            backend.dataReceived(rest)

    def goodbye(self) -> None:
        """Tell both that the proxy goes away."""
        for end in self._ends.values():
            end.close(GOING_AWAY, STOPPING.encode())

    def read_ended(self, connection: RelayEnd) -> None:
        """One side sends no more."""
        self._ends[connection].peer_ended()

    def lost(self, connection: RelayEnd, reason: Failure) -> None:
        """One side's connection is gone."""
        self._ends[connection].connectionLost(reason)
        if all(end.is_gone for end in self._ends.values()):
            self._exchange.closed()
