"""The backend's side of an exchange: one connection, one exchange at a time, kept for the next.

What arrives is checked and handed to the exchange in pieces, never gathered. A connection goes back to
its connector only if the answer ended where its framing said, nothing came behind it, and the request had
been sent to its end; else it is closed, so that no octet of one answer can reach another client.
"""

from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.core.http.chunked import CHUNKED, ChunkedReader
from comfyproxy.core.http.grammar import has_bare_line_end
from comfyproxy.core.http.http1 import UNTIL_CLOSE, ResponseHead, parse_response_head
from comfyproxy.errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    ProtocolError,
)
from comfyproxy.proxy.relay import RelayEnd, Transport
from comfyproxy.proxy.splice import WORTHWHILE, Splice, can_splice, has_more

if TYPE_CHECKING:
    from comfyproxy.core.config import Timeouts
    from comfyproxy.proxy.connectors import Connector

MAX_HEAD = 256 * 1024
"""Octets of one answer's head; backends are trusted with more than clients are."""

CLOSING = 30.0
"""Seconds that a backend has to take what was written before its connection is closed regardless."""

MAX_INFORMATIONAL = 32
"""1xx answers to one request before the backend is taken to be out of its mind."""


class Asker(Protocol):
    """Who has sent a request, as the connection that answers it sees it: an exchange, or the proxy itself.

    ``sent`` counts octets of the answer's body.
    """

    @property
    def front(self) -> Any:
        """Who takes the answer (`comfyproxy.proxy.front.Front`)."""

    @property
    def head(self) -> Any:
        """What has the request's ``method``."""

    sent: int
    request_complete: bool

    def informational(self, head: ResponseHead) -> None:
        """A 1xx came."""

    def answered(self, head: ResponseHead, data: bytes, complete: bool) -> None:
        """The final answer comes, with the first octets of its body."""

    def answer_data(self, data: bytes, complete: bool) -> None:
        """More of the answer's body."""

    def switched(self, upstream: "Upstream", head: ResponseHead, rest: bytes) -> None:
        """The answer is 101; ``rest`` came behind it."""

    def upstream_failed(self, error: BackendError) -> None:
        """The connection failed before the answer was complete."""

    def break_off(self, status: int, message: str) -> None:
        """Who takes the answer does so no more."""

    @property
    def answer_sink(self) -> Transport | None:
        """Where the octets of an answer's body may go without passing through here, if anywhere."""


@implementer(IPushProducer)
class Upstream(RelayEnd):
    """One connection to a backend; ``greeting`` is what it began with, if anything goes before requests."""

    greeting = b""

    def __init__(self, connector: "Connector") -> None:
        self.connector = connector
        self.exchange: Asker | None = None
        self.is_full = False
        self._paused = False
        self._closing = False
        self.was_used = False
        self.deadline = self.slot = inf
        self._buffer = b""
        self._head: ResponseHead | None = None
        self._left = 0
        self._chunks: ChunkedReader | None = None
        self._informational = 0
        self._splice: Splice | None = None
        self.timeouts = connector.timeouts

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self.connector.connection_made(self)

    def begin(self, exchange: Asker, data: bytes, timeouts: "Timeouts") -> None:
        """Send the beginning of a request and give what answers it to ``exchange``."""
        self.exchange = exchange
        self.timeouts = timeouts
        self._informational = 0
        self.transport.write(data)
        self.connector.deadlines.set(self, timeouts.response)

    def write(self, data: bytes) -> None:
        """Send more of the request's body."""
        self.transport.write(data)
        self.note_progress()

    def note_progress(self) -> None:
        """The request's body is on its way: the time to answer begins anew."""
        if self._head is None:
            self.connector.deadlines.set(self, self.timeouts.response)

    def pause_answer(self) -> None:
        """Read no more until the client takes more."""
        self._paused = True
        self.transport.pauseProducing()

    def resume_answer(self) -> None:
        """Read on, the client takes more."""
        self._paused = False
        if self._splice is None:
            self.transport.resumeProducing()

    def abort(self) -> None:
        """Close at once; the exchange hears nothing more."""
        self.exchange = None
        self._stop_splice()
        self.connector.discard(self)
        self.connector.deadlines.forget(self)
        self.transport.abortConnection()

    def close(self) -> None:
        """Close when everything written is out, or after `CLOSING` seconds; nothing more is read."""
        self._closing = True
        self.connector.discard(self)
        self.connector.deadlines.set(self, CLOSING)
        # Over TLS a connection stays open as long as it has a producer.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _stop_splice(self) -> None:
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.stop()

    def give_away(self) -> None:
        """Leave the connection to a relay."""
        self.exchange = None
        self.connector.deadlines.forget(self)
        self.transport.unregisterProducer()

    def dataReceived(self, data: bytes) -> None:
        if self.exchange is None:
            if not self._closing:
                self.abort()
        elif self._head is None:
            self._read_head(self.exchange, self._buffer + data if self._buffer else data)
        else:
            self._read_body(self.exchange, data)

    def _read_head(self, exchange: Asker, data: bytes) -> None:
        while (end := data.find(b"\r\n\r\n") + 4) > 3:
            try:
                head = parse_response_head(data[:end], exchange.head.method)
            except BackendProtocolError as error:
                return self._fail(error)
            data = data[end:]
            if head.status >= 200:
                self._buffer = b""
                return self._begin_body(exchange, head, data)
            if not self._pass_informational(exchange, head, data):
                return None
        self._buffer = data
        if len(data) > MAX_HEAD:
            return self._fail(
                BackendProtocolError("The head of its answer is too large.", request_was_sent=True)
            )
        if not b"HTTP/1.".startswith(data[:7]) or has_bare_line_end(data):
            return self._fail(BackendProtocolError("Its answer is not HTTP/1.", request_was_sent=True))
        return None

    def _pass_informational(self, exchange: Asker, head: ResponseHead, rest: bytes) -> bool:
        """Hand a 1xx on; ``False`` when no ordinary answer is to be read from here any more."""
        if head.status == 101:
            self._buffer = b""
            exchange.switched(self, head, rest)
            return False
        self._informational += 1
        if self._informational > MAX_INFORMATIONAL:
            self._fail(BackendProtocolError("It sends 1xx answers without end.", request_was_sent=True))
            return False
        exchange.informational(head)
        return self.exchange is exchange

    def _begin_body(self, exchange: Asker, head: ResponseHead, data: bytes) -> None:
        body = head.body
        if body >= 0:
            if len(data) >= body:
                close = head.close or len(data) > body
                self._complete(exchange, close)
                exchange.answered(head, data[:body], True)
                return
            self._left = body - len(data)
        elif body == CHUNKED:
            self._chunks = ChunkedReader(exchange.front.takes_chunks)
        self._head = head
        self.connector.deadlines.set(self, self.timeouts.idle)
        if body == CHUNKED:
            exchange.answered(head, b"", False)
            if self.exchange is exchange and data:
                self._read_body(exchange, data)
        else:
            exchange.answered(head, data, False)
            if self.exchange is exchange and self._left >= WORTHWHILE:
                self._try_splice(exchange)

    def _try_splice(self, exchange: Asker) -> None:
        """Let the kernel move the rest of the body, if it can now; else it is asked again later."""
        sink = exchange.answer_sink
        if sink is None or not can_splice(self.transport, sink, self._left):
            return
        try:
            self._splice = Splice(self.transport, sink, self._left, self._spliced, self._splice_ended)
        except OSError:
            # Out of descriptors: the copying way needs none.
            return
        exchange.front.sink_taken()

    def _spliced(self, count: int) -> None:
        self._left -= count
        if self.exchange is not None:
            self.exchange.sent += count
            self.connector.deadlines.set(self, self.timeouts.idle)

    def _splice_ended(self, left: int) -> None:
        self._splice = None
        exchange, head = self.exchange, self._head
        if not left and exchange is not None and head is not None:
            # Nobody has looked behind the body yet: what is there would answer the next request.
            self._complete(exchange, head.close or has_more(self.transport))
            exchange.answer_data(b"", True)

    def _read_body(self, exchange: Asker, data: bytes) -> None:
        if self._chunks is not None:
            self._read_chunks(exchange, self._chunks, data)
            return
        self.connector.deadlines.set(self, self.timeouts.idle)
        head = self._head
        assert head is not None
        if head.body == UNTIL_CLOSE:
            exchange.answer_data(data, False)
            return
        self._left -= len(data)
        if self._left > 0:
            exchange.answer_data(data, False)
            if self._left >= WORTHWHILE and self.exchange is exchange:
                self._try_splice(exchange)
            return
        close = head.close or self._left < 0
        if self._left < 0:
            data = data[: self._left]
        self._complete(exchange, close)
        exchange.answer_data(data, True)

    def _read_chunks(self, exchange: Asker, chunks: ChunkedReader, data: bytes) -> None:
        self.connector.deadlines.set(self, self.timeouts.idle)
        try:
            passed = chunks.feed(data)
        except ProtocolError as error:
            self._fail(BackendProtocolError(f"Its answer is malformed. {error}", request_was_sent=True))
            return
        complete = chunks.complete
        if complete:
            assert self._head is not None
            self._complete(exchange, self._head.close or bool(chunks.rest))
        if passed or complete:
            exchange.answer_data(passed, complete)

    def _complete(self, exchange: Asker, close: bool) -> None:
        """The answer is read to its end: be ready for the next exchange, or close."""
        self.exchange = None
        self._head = None
        self._chunks = None
        if not exchange.request_complete:
            self.abort()
        elif close:
            self.close()
        else:
            self.was_used = True
            self.connector.put_back(self)

    def _fail(self, error: BackendError) -> None:
        exchange = self.exchange
        self.abort()
        if exchange is not None:
            exchange.upstream_failed(error)

    def deadline_passed(self) -> None:
        if self._closing:
            self.abort()
        elif self.exchange is None:
            self.close()
        elif self._head is None:
            self._fail(BackendTimeout("It did not answer in time.", request_was_sent=True))
        elif self._paused or (self._splice is not None and self._splice.waits_for_sink):
            self._wait_for_client(self.exchange)
        else:
            self._fail(BackendTimeout("Its answer stopped coming.", request_was_sent=True))

    def _wait_for_client(self, exchange: Asker) -> None:
        """It is the client that has taken nothing, or not all that waits for it, for so long."""
        if exchange.front.watches_reading:
            self.connector.deadlines.set(self, self.timeouts.idle)
        else:
            exchange.break_off(408, "The answer was not read in time.")

    def readConnectionLost(self) -> None:
        if self.relay is not None:
            super().readConnectionLost()
        else:
            self.transport.loseConnection()
            self._ended(Failure(ConnectionDone()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_splice()
        self.connector.open.discard(self)
        self.connector.deadlines.forget(self)
        if self.relay is not None:
            super().connectionLost(reason)
        else:
            self._ended(reason)

    def _ended(self, reason: Failure) -> None:
        """Nothing more comes from the backend."""
        exchange, self.exchange = self.exchange, None
        self.connector.connection_lost(self, reason.getErrorMessage())
        if exchange is None:
            return
        if self._head is not None and self._head.body == UNTIL_CLOSE and reason.check(ConnectionDone):
            exchange.answer_data(b"", True)
        else:
            exchange.upstream_failed(self._why_lost(reason))

    def _why_lost(self, reason: Failure) -> BackendError:
        if self._head is not None or self._buffer or self._informational:
            return BackendProtocolError("Its connection ended before its answer did.", request_was_sent=True)
        return BackendLost(
            f"Its connection ended before it answered: {reason.getErrorMessage()}", request_was_sent=True
        )

    def pauseProducing(self) -> None:
        self.is_full = True
        if self.exchange is not None:
            self.exchange.front.pause_body()

    def resumeProducing(self) -> None:
        self.is_full = False
        if self.exchange is not None:
            self.exchange.front.resume_body()

    def stopProducing(self) -> None:
        """The transport says so when it is lost; `connectionLost` does what there is to do."""


@implementer(IHandshakeListener)
class SecureUpstream(Upstream):
    """A connection over TLS: made once the backend's certificate is verified."""

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    def handshakeCompleted(self) -> None:
        """The handshake is done and the certificate is good."""
        self.connector.connection_made(self)
