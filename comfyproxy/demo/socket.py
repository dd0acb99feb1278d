"""The WebSocket of a simulated ComfyUI (server.py, websocket_handler), on autobahn.

It has aiohttp's manners: no pings of its own, compression when it is offered, no subprotocols, and 4 MiB as
the end of what a client may send in one message.
"""

import json
import uuid
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from comfyproxy.demo import events
from comfyproxy.demo.events import Event
from comfyproxy.demo.machine import Machine

# aiohttp refuses a message of max_msg_size itself, autobahn only what is longer than its limit.
MAXIMUM_MESSAGE = 4 * 2**20 - 1


@implementer(IPushProducer)
class EventSocket(WebSocketServerProtocol):
    """One client's socket: told the state on opening, listened to once (feature_flags), and sent events.

    It is its own transport's producer, so that it knows when the client has stopped reading.
    """

    factory: "EventSocketFactory"
    transport: Any
    maxMessagePayloadSize: int
    _drained = True

    @property
    def writable(self) -> bool:
        """Whether its client keeps up; one that is closing takes nothing, and so holds up nobody."""
        return self._drained or self.state != self.STATE_OPEN

    def onConnect(self, request: ConnectionRequest) -> None:
        self.sid = request.params.get("clientId", [""])[0] or uuid.uuid4().hex
        self._is_first_message = True

    def onOpen(self) -> None:
        self._watch_transport()
        machine = self.factory.machine
        machine.clients.join(self.sid, self)
        machine.clients.answer(events.status(len(machine.queue), self.sid), self.sid)
        executor = machine.executor
        if executor.client_id == self.sid and executor.last_node is not None:
            machine.clients.answer(events.executing_resumed(executor.last_node), self.sid)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Only the first text message counts, and only if it flags features."""
        if isBinary or not self._is_first_message:
            return
        try:
            message = json.loads(payload)
        except ValueError:
            return
        self._is_first_message = False
        if isinstance(message, dict) and message.get("type") == "feature_flags":
            flags = message.get("data", {})
            clients = self.factory.machine.clients
            clients.set_features(self.sid, flags if isinstance(flags, dict) else {})
            clients.answer(Event("feature_flags", self.factory.machine.installation.features), self.sid)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if hasattr(self, "sid"):
            self.factory.machine.clients.leave(self.sid)

    def send(self, payload: str | bytes) -> None:
        """One message (see `clients.Socket`); nothing once the closing handshake has begun."""
        if self.state != self.STATE_OPEN:
            return
        data = payload.encode() if isinstance(payload, str) else payload
        # autobahn's bound is for both directions, aiohttp's only for what comes in.
        bound, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            self.sendMessage(data, isBinary=isinstance(payload, bytes))
        finally:
            self.maxMessagePayloadSize = bound

    def pauseProducing(self) -> None:
        self._drained = False

    def resumeProducing(self) -> None:
        self._drained = True
        self.factory.machine.clients.flush()

    def stopProducing(self) -> None:
        """The connection is lost; `onClose` follows. (autobahn takes its producer away before it closes.)"""

    def _watch_transport(self) -> None:
        # The HTTP channel that this connection began on is still registered, and would stop reading instead.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)


class EventSocketFactory(WebSocketServerFactory):
    """Makes the sockets of one machine."""

    protocol = EventSocket  # type: ignore[assignment]  # Autobahn has a type of its own for what Twisted calls so.

    def __init__(self, machine: Machine, reactor: IReactorTime) -> None:
        super().__init__(reactor=reactor, server="simulated ComfyUI")
        self.machine = machine
        self.setProtocolOptions(
            openHandshakeTimeout=0,
            closeHandshakeTimeout=10,
            maxMessagePayloadSize=MAXIMUM_MESSAGE,
            failByDrop=False,
            perMessageCompressionAccept=_accept_deflate,
        )


def _accept_deflate(offers: list[object]) -> PerMessageDeflateOfferAccept | None:
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None
