"""One end of a WebSocket whose messages are seen: autobahn's protocol, made fit for a proxy.

Autobahn knows frames, masks, fragments, UTF-8, permessage-deflate and limits. What it would do otherwise than
a proxy must is here:

- Its timers run on the reactor that was installed first, and outlive connections. An `End` has one deadline
  among the proxy's `Deadlines`: for the next ping, for its answer, or for the end.
- It goes on reading behind a violation until the peer answers its Close frame. An `End` stops listening (RFC
  6455 section 7.1.7), sends its Close frame and the end of the stream, and gives the peer time to see them.
- It refuses close codes that are registered by now, and may send few of them.
- It knows no back-pressure: here `Outflow` does.
- Its check of UTF-8 takes thirty times as long as Python's.
- What it inflates may end silently at its limit, a few octets short. Its limit is one octet above ours.
- It logs what peers do wrong, and spends a third of its time on log lines that nobody asked for.
"""

from codecs import getincrementaldecoder
from collections.abc import Hashable
from math import inf
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketAdapterProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from comfyproxy.core.config import Timeouts
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.outflow import Backlog, Outflow
from comfyproxy.proxy.relay import Transport

CLOSE_TIMEOUT = 5.0
"""Seconds for the peer to answer our Close frame and close the connection."""

COMPRESSED = range(512, 1024 * 1024 + 1)
"""Octets of a text that is compressed where the client has offered it. Less is not worth it, more would keep
everybody waiting; binary messages (pictures) are compressed already."""

GOING_AWAY = 1001

_REGISTERED = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))
_MAX_REASON = 123


class _Silent:
    """Takes autobahn's log lines and forgets them."""

    def debug(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing."""

    info = warn = error = failure = debug


class Neighbour(Protocol):
    """What an `End` passes on to: another `End`, or a session."""

    def deliver(self, payload: bytes, is_binary: bool) -> None:
        """A message has come."""

    def hold(self, held: bool) -> None:
        """Let no more messages come, or again."""

    def close(self, code: int | None, reason: bytes | None = None) -> None:
        """The peer has said goodbye, or is gone."""


class End(WebSocketAdapterProtocol, WebSocketProtocol):  # type: ignore[misc]
    """One end: takes part in the protocol with its peer, and passes messages and goodbyes to ``other``.

    A message of the peer's has up to ``max_message`` octets. The other peer is told ``lost_code`` with
    ``lost_reason`` when this one vanishes, with ``broken_reason`` when it sends what may not be sent.
    ``flush_timeout`` is how many seconds a peer that is behind may take nothing while it is to get its last
    messages.
    """

    log = _Silent()
    transport: Any
    deadline = slot = inf
    lost_code = 0
    lost_reason = b""
    broken_reason = b""
    flush_timeout = CLOSE_TIMEOUT

    def __init__(self, max_message: int) -> None:
        super().__init__()
        self.max_message = max_message
        self.utf8validateIncoming = False
        self.maxMessagePayloadSize = max_message + 1
        self.is_gone = False
        self.other: Neighbour = self
        self._message: bytes | bytearray = b""
        self._text = getincrementaldecoder("utf-8")()
        self._backlog: Backlog | None = None
        self._pong: bytes | None = None
        self._farewell: tuple[int | None, bytes | None] | None = None
        self._has_heard = False
        self._is_deaf = False
        self._is_held = False
        self._is_ending = False
        self._silence = 0.0

    def connectionMade(self) -> None:
        """Begin the handshake. What autobahn would find out about the transport here nobody asks for."""
        self._connectionMade()

    def join(
        self,
        transport: Transport,
        other: Neighbour,
        deadlines: Deadlines,
        timeouts: Timeouts,
        backlog: Backlog | None,
    ) -> None:
        """Begin, over ``transport``; without a ``backlog`` the other peer waits while this one is behind."""
        self.transport = transport
        self.other = other
        self._deadlines = deadlines
        self._backlog = backlog
        self._out = Outflow(transport, self._room_changed)
        self._ping = timeouts.websocket_ping
        self._dead = timeouts.websocket_dead
        deadlines.set(self, self._ping)

    # Receiving

    def dataReceived(self, data: bytes) -> None:
        self._has_heard = True
        if not self._is_deaf:
            self._dataReceived(data)

    def onMessageBegin(self, isBinary: bool) -> None:
        self.message_is_binary = isBinary
        self.message_data_total_length = 0
        self._message = b""

    def onMessageFrameData(self, payload: bytes) -> None:
        if not self.message_is_binary and not self._is_text(payload):
            return
        # One buffer however small the pieces are: a list of fragments of one octet would take fifty times
        # the memory of what the limit counts, and one of empty fragments would know no limit.
        if not self._message:
            self._message = payload
        else:
            if type(self._message) is bytes:
                self._message = bytearray(self._message)
            self._message += payload

    def onMessageFrameEnd(self) -> None:
        """The pieces are in the message already."""

    def onMessageEnd(self) -> None:
        if self._is_deaf or not (self.message_is_binary or self._is_text(b"", True)):
            return
        message, self._message = bytes(self._message), b""
        if len(message) > self.max_message:
            self._fail_connection(self.CLOSE_STATUS_CODE_MESSAGE_TOO_BIG, "message too large")
        else:
            self.other.deliver(message, self.message_is_binary)

    def _is_text(self, octets: bytes, is_end: bool = False) -> bool:
        try:
            self._text.decode(octets, is_end)
        except UnicodeDecodeError:
            self._invalid_payload("a text that is not UTF-8")
            return False
        return True

    def onPing(self, payload: bytes) -> None:
        # Who sends pings and reads nothing gets one pong in the end (section 5.5.3).
        if self._out.is_blocked:
            self._pong = payload
        else:
            self.sendPong(payload)

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool | None:
        if code is not None and code not in _REGISTERED and not 3000 <= code <= 4999:
            return self._protocol_violation(f"invalid close code {code}")
        if not _is_utf8(reasonRaw or b""):
            return self._invalid_payload("invalid close reason (not UTF-8)")
        self._stop_listening()
        if self.state == self.STATE_OPEN:
            self._forget_waiting()
            self.sendCloseFrame(code, reasonRaw, isReply=True)
        self.goodbye_said()
        self._await_end()
        self.other.close(code, reasonRaw)
        return None

    def _fail_connection(self, code: int = GOING_AWAY, reason: str = "") -> None:
        self._stop_listening()
        if self.state == self.STATE_OPEN:
            self._forget_waiting()
            self.sendCloseFrame(code, reason.encode("ascii", "replace")[:_MAX_REASON])
        self._out.finish(self._end_stream)
        self._await_end()
        self.other.close(self.lost_code, self.broken_reason)

    def _protocol_violation(self, reason: str) -> bool:
        self._fail_connection(self.CLOSE_STATUS_CODE_PROTOCOL_ERROR, reason)
        return True

    def _invalid_payload(self, reason: str) -> bool:
        self._fail_connection(self.CLOSE_STATUS_CODE_INVALID_PAYLOAD, reason)
        return True

    def _stop_listening(self) -> None:
        self._is_deaf = True
        self.data = b""
        self._message = b""

    def hold(self, held: bool) -> None:
        """Read the peer no more, or again; while it is to hear and say goodbye it is read."""
        if held and self.state == self.STATE_OPEN and not self._is_ending:
            self._is_held = True
            self.transport.pauseProducing()
        elif not held and self._is_held:
            self._is_held = False
            self.transport.resumeProducing()

    # Sending

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        # The words of the handshake are for nobody: on the wire the exchange says them.
        if self.state != self.STATE_CONNECTING:
            self._out.write(data)

    def deliver(self, payload: bytes, is_binary: bool, key: Hashable | None = None) -> None:
        """Send a message, now or when there is room; one that waits under its ``key`` gives way to it."""
        if self.state != self.STATE_OPEN or self._is_ending:
            return
        backlog = self._backlog
        if backlog is None or not (backlog or self._out.is_blocked):
            self._say(payload, is_binary)
        elif not backlog.keep(payload, is_binary, key):
            self._cut_off()

    def _say(self, payload: bytes, is_binary: bool) -> None:
        bound, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0  # Ours is for what comes in.
        self.sendMessage(payload, is_binary, doNotCompress=is_binary or len(payload) not in COMPRESSED)
        self.maxMessagePayloadSize = bound

    def _cut_off(self) -> None:
        self._stop_listening()
        self._forget_waiting()
        self._await_end()
        self.transport.abortConnection()

    def _forget_waiting(self) -> None:
        if self._backlog is not None:
            self._backlog.clear()
        self._farewell = None

    def _room_changed(self, is_blocked: bool) -> None:
        if self._backlog is None:
            self.other.hold(is_blocked)
        if not is_blocked:
            self._catch_up()

    def _catch_up(self) -> None:
        while self._backlog and not self._out.is_blocked:
            self._say(*self._backlog.take())
        if self._backlog or self._out.is_blocked:
            return
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self.sendPong(pong)
        if self._farewell is not None:
            farewell, self._farewell = self._farewell, None
            self.sendCloseFrame(*farewell)

    # Ending

    def close(self, code: int | None, reason: bytes | None = None) -> None:
        """Send what still waits, then a Close frame; does nothing if that is under way."""
        if self.state != self.STATE_OPEN or self._farewell is not None:
            return
        if self._backlog:
            self._farewell = (code, reason)
        else:
            self.sendCloseFrame(code, reason)
        self._await_end()

    def goodbye_said(self) -> None:
        """Both Close frames are out or on their way; it is for a server to close (RFC 6455 section 7.1.1)."""

    def peer_ended(self) -> None:
        """The peer sends no more; a WebSocket has no half-close, so this is its end."""
        self._stop_listening()
        self._forget_waiting()
        self.other.close(self.lost_code, self.lost_reason)
        self._out.finish(self.transport.loseConnection)
        self._await_end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_gone = True
        self._deadlines.forget(self)
        self._stop_listening()
        self._forget_waiting()
        super().connectionLost(reason)
        self.other.close(self.lost_code, self.lost_reason)

    def _end_stream(self) -> None:
        # Closing with octets unread would reset the connection, and the peer might never see why.
        if ISSLTransport.providedBy(self.transport):
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def _await_end(self) -> None:
        self._is_ending = True
        self.hold(False)
        self._deadlines.set(self, self.flush_timeout if self._out.is_blocked else CLOSE_TIMEOUT)

    def deadline_passed(self) -> None:
        """See whether the peer is alive."""
        has_moved, self._out.has_moved = self._out.has_moved, False
        has_heard, self._has_heard = self._has_heard, False
        if self._is_ending:
            if has_moved:
                self._await_end()
            else:
                self.transport.abortConnection()
        elif has_moved or has_heard or self._is_held:
            self._silence = 0.0
            self._deadlines.set(self, self._ping)
        elif not self._dead or self._silence < self._dead:
            wait = min(self._ping, self._dead - self._silence) if self._dead else self._ping
            self._silence += wait
            self.sendPing()
            self._deadlines.set(self, wait)
        else:
            self.transport.abortConnection()


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True
