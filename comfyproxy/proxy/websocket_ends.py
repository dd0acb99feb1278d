"""The two ends of a WebSocket whose messages are seen: towards the client and towards the backend.

The exchange has the handshakes on the wire; autobahn is told of each as if it had had it itself.
"""

from contextlib import suppress
from typing import Any

from autobahn.twisted.websocket import WebSocketClientProtocol, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from comfyproxy.core.http.forwarding import UPGRADE
from comfyproxy.core.http.websocket import accept_value
from comfyproxy.proxy.websocket_end import GOING_AWAY, End

FLUSH_TIMEOUT = 75.0
"""Seconds that a client may take nothing of the last messages that wait for it."""

LAST_WORDS = 1.0
"""Seconds that a server has to answer what a client said before it broke the protocol."""

BAD_GATEWAY = 1014

_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nSec-WebSocket-Version: 13\r\n" + UPGRADE
_ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE
_KEY = b"Sec-WebSocket-Key: %b\r\n"
_ACCEPT = b"Sec-WebSocket-Accept: %b\r\n"
_EXTENSIONS = b"Sec-WebSocket-Extensions: %b\r\n"


class ClientEnd(End, WebSocketServerProtocol):  # type: ignore[misc]
    """Towards the client."""

    lost_code = GOING_AWAY
    lost_reason = b"The client is gone."
    broken_reason = b"The client sent what may not be sent."
    flush_timeout = FLUSH_TIMEOUT
    _verdict: tuple[int, str] | None = None

    def _fail_connection(self, code: int = GOING_AWAY, reason: str = "") -> None:
        """Say goodbye to the server first: what it was asked before the violation it may still answer.

        A server that reads the violation itself has answered by then, so a client sees no difference.
        """
        if self.state != self.STATE_OPEN or self._is_ending:
            super()._fail_connection(code, reason)
        elif self._verdict is None:
            self._stop_listening()
            self._verdict = code, reason
            self._deadlines.set(self, LAST_WORDS)
            self.other.close(self.lost_code, self.broken_reason)

    def close(self, code: int | None, reason: bytes | None = None) -> None:
        verdict, self._verdict = self._verdict, None
        if verdict is None:
            super().close(code, reason)
        else:
            super()._fail_connection(*verdict)

    def deadline_passed(self) -> None:
        if self._verdict is None:
            super().deadline_passed()
        else:
            self.close(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._verdict = None
        super().connectionLost(reason)

    def accept(self, factory: Any, key: bytes, offers: list[bytes]) -> bytes:
        """Shake hands with a client that has sent ``key``; returns the field lines for its 101.

        ``offers`` are its ``Sec-WebSocket-Extensions``.
        """
        self.factory = factory
        self.connectionMade()
        offered = accepted = b""
        if (offer := self._sound_offer(offers)) is not None:
            offered = _EXTENSIONS % offer.get_extension_string().encode()
            accepted = _EXTENSIONS % accept_deflate([offer]).get_extension_string().encode()
        self._dataReceived(b"%b%b%b\r\n" % (_REQUEST, _KEY % key, offered))
        assert self.state == self.STATE_OPEN, self.wasNotCleanReason
        return _ACCEPT % accept_value(key) + accepted

    def _sound_offer(self, offers: list[bytes]) -> PerMessageDeflateOffer | None:
        """The first of ``offers`` that may be taken; others are to be declined (RFC 7692 section 5.1)."""
        for name, parameters in self._parseExtensionsHeader(b",".join(offers).decode("latin-1")):
            if name == PerMessageDeflateOffer.EXTENSION_NAME:
                # It raises nothing more precise.
                with suppress(Exception):
                    return PerMessageDeflateOffer.parse(parameters)
        return None

    def goodbye_said(self) -> None:
        """Close, once all is out."""
        self._out.finish(self.transport.loseConnection)


class BackendEnd(End, WebSocketClientProtocol):  # type: ignore[misc]
    """Towards the backend."""

    lost_code = BAD_GATEWAY
    lost_reason = b"The connection to the server was lost."
    broken_reason = b"The server sent what may not be sent."

    def accept(self, factory: Any) -> None:
        """Take it that hands are shaken: the exchange has seen to that."""
        self.factory = factory
        self.connectionMade()
        self._dataReceived(_ANSWER + _ACCEPT % accept_value(self.websocket_key) + b"\r\n")
        assert self.state == self.STATE_OPEN, self.wasNotCleanReason


def accept_deflate(offers: list[PerMessageDeflateOffer]) -> PerMessageDeflateOfferAccept:
    """Take the first of ``offers`` as it is."""
    return PerMessageDeflateOfferAccept(offers[0])
