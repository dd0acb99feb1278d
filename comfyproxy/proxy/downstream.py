"""The client's side: the daemon's own HTTP/1.1 server, strict and streaming.

A connection is in one of these states; `dataReceived` is a table of them.

    waiting for a head ──▶ head complete ──▶ taking the body ──▶ waiting for the answer ──┐
          ▲                                                                              │
          └───────────────────────── answer complete (octets held back are read now) ◀───┘
    lingering: the answer is out, the rest of a body nobody wants is read and dropped, so that the client gets
    to see the answer instead of a reset (RFC 9112 section 9.6)
    relayed: a tunnel; `RelayEnd` has it
"""

from math import inf
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.core.answers import Answer
from comfyproxy.core.chunked import CHUNKED, ChunkedReader
from comfyproxy.core.http1 import RequestHead, check_partial_head, parse_request_head
from comfyproxy.errors import ProtocolError
from comfyproxy.proxy.exchange import Exchange
from comfyproxy.proxy.relay import RelayEnd, Transport
from comfyproxy.proxy.splice import WORTHWHILE, Splice, can_splice

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy

MAX_HELD = 64 * 1024
"""Octets of further requests kept while one is answered (pipelining); then the client is not read."""

LINGER = 2.0
"""Seconds that a client has to read the answer and stop sending."""


@implementer(IPushProducer)
class Downstream(RelayEnd):
    """One client connection."""

    takes_chunks = True
    peer = ""

    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy
        self._limits = proxy.limits
        self._exchange: Exchange | None = None
        self._held = b""
        self._left = 0
        self._chunks: ChunkedReader | None = None
        self._keep = True
        self._lingering = False
        self._reading = False
        self._held_back = False
        self._full = False
        self._head_began = False
        self._delimited = True
        self._splice: Splice | None = None
        self.deadline = self.slot = inf

    def connectionMade(self) -> None:
        transport = self.transport
        transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self.peer = getattr(transport.getPeer(), "host", None) or "unknown"
        self._forwarder = self._proxy.forwarder(self.peer, ISSLTransport.providedBy(transport))
        self._proxy.connections.add(self)
        self._proxy.deadlines.set(self, self._proxy.timeouts.head)

    def dataReceived(self, data: bytes) -> None:
        if self._exchange is None:
            if self._full and not self._lingering:
                self._hold(data)
            elif not self._lingering:
                self._read_heads(self._held + data if self._held else data)
        elif self._left or self._chunks is not None:
            self._read_body(data)
        else:
            self._hold(data)

    def _hold(self, data: bytes) -> None:
        """Keep what comes before its time: the next request, or the first octets of a tunnel."""
        self._held += data
        if len(self._held) > MAX_HELD and not self._held_back:
            self._held_back = True
            self.transport.pauseProducing()

    def _read_heads(self, data: bytes) -> None:
        """Start the request in ``data``, and those behind it as long as each is answered at once."""
        self._reading = True
        self._held = data
        while self._held and self._is_free and self._read_head():
            pass
        self._reading = False

    @property
    def _is_free(self) -> bool:
        """Whether the next request may begin; not while the client is behind with reading the answers."""
        return self._exchange is None and not self._lingering and not self._full

    def _read_head(self) -> bool:
        data = self._held
        if data.startswith(b"\r\n"):
            data = data[2:]
        end = data.find(b"\r\n\r\n") + 4
        head = None
        try:
            if end == 3:
                self._check_unfinished(data)
                return False
            if end > self._limits.line or end > self._limits.head:
                self._check_size(data[:end])
            head = parse_request_head(data[:end])
            if data.count(b"\n", 0, end) - 2 > self._limits.fields:
                raise ProtocolError(431, "The request has too many header fields.")
            if 0 < self._limits.body < head.body:
                raise ProtocolError(413, "The request's body is larger than this server takes.")
        except ProtocolError as error:
            self._refuse(error, head)
            return False
        self._begin(head, data[end:])
        return True

    def _check_unfinished(self, data: bytes) -> None:
        """Refuse the beginning of a head that is too large or can't become one; else wait for more."""
        self._check_size(data)
        check_partial_head(data)
        if not self._head_began:
            self._head_began = True
            self._proxy.deadlines.set(self, self._proxy.timeouts.head)

    def _check_size(self, head: bytes) -> None:
        line = head.find(b"\r\n")
        if (line if line >= 0 else len(head.rstrip(b"\r"))) > self._limits.line:
            raise ProtocolError(414, "The request line is too long.")
        if len(head) - max(line, 0) > self._limits.head:
            raise ProtocolError(431, "The request's header fields are too large.")

    def _begin(self, head: RequestHead, data: bytes) -> None:
        self._proxy.deadlines.clear(self)
        self.takes_chunks = head.minor > 0
        self._keep = not head.close
        body = head.body
        exchange = self._exchange = Exchange(self._proxy, self, head, self._forwarder)
        if body == 0:
            self._held = data
            exchange.begin()
            return
        if body == CHUNKED:
            # Set before the exchange begins: one that is refused at once leaves a body that nobody reads.
            self._chunks = ChunkedReader(framed=True)
            self._held = b""
            exchange.begin()
            if self._exchange is exchange:
                if exchange.gathers_body:
                    self._chunks = ChunkedReader(framed=False)
                self._proxy.deadlines.set(self, self._proxy.timeouts.body)
                if data:
                    self._read_body(data)
            return
        self._left = max(body - len(data), 0)
        self._held = data[body:]
        if self._left:
            self._proxy.deadlines.set(self, self._proxy.timeouts.body)
        exchange.begin(data[:body], not self._left)

    def _read_body(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if self._chunks is not None:
            self._read_chunks(exchange, self._chunks, data)
            return
        if len(data) > self._left:
            self._hold(data[self._left :])
            data = data[: self._left]
        self._left -= len(data)
        self._body_progress(not self._left)
        exchange.body(data, not self._left)
        if self._left >= WORTHWHILE and self._exchange is exchange:
            self._try_splice(exchange)

    def _try_splice(self, exchange: Exchange) -> None:
        """Let the kernel move the rest of the body, if it can and nothing has to see it."""
        sink = exchange.body_sink
        if sink is None or self._splice is not None or not can_splice(self.transport, sink, self._left):
            return
        try:
            self._splice = Splice(self.transport, sink, self._left, self._spliced, self._splice_ended)
        except OSError:
            # Out of descriptors: the copying way needs none.
            return

    def _spliced(self, count: int) -> None:
        self._left -= count
        self._body_progress(not self._left)
        if self._exchange is not None:
            self._exchange.note_body_progress()

    def _splice_ended(self, left: int) -> None:
        self._splice = None
        if not left and self._exchange is not None:
            self._exchange.body(b"", True)

    def _stop_splice(self) -> None:
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.stop()

    @property
    def body_sink(self) -> Transport:
        """Answers of known length may go straight to the connection."""
        return self.transport

    def _read_chunks(self, exchange: Exchange, chunks: ChunkedReader, data: bytes) -> None:
        try:
            passed = chunks.feed(data)
            if 0 < self._limits.body < chunks.payload:
                raise ProtocolError(413, "The request's body is larger than this server takes.")
        except ProtocolError as error:
            self._keep = False
            exchange.break_off(error.status, str(error))
            return
        if chunks.complete:
            self._chunks = None
            if chunks.rest:
                self._hold(chunks.rest)
        self._body_progress(chunks.complete)
        exchange.body(passed, chunks.complete)

    def _body_progress(self, complete: bool) -> None:
        if complete:
            self._proxy.deadlines.clear(self)
        else:
            self._proxy.deadlines.set(self, self._proxy.timeouts.body)

    def _refuse(self, error: ProtocolError, head: RequestHead | None = None) -> None:
        """Answer a request that could not even be read, or only its ``head`` could; nothing behind it can be
        trusted to be one."""
        self._keep = False
        self._held = b""
        answer = self._proxy.answer(error.status, str(error), head)
        self._send_answer(answer, head)
        self._proxy.log.refused(self.peer, error.status, len(answer.body))
        self._linger()

    def informational(self, status: int, reason: bytes, fields: bytes) -> None:
        """Pass a 1xx on; HTTP/1.0 clients do not know them (RFC 9110 section 15.2)."""
        if self.takes_chunks:
            self.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, fields))

    def begin(self, status: int, reason: bytes, fields: bytes, data: bytes, delimited: bool) -> None:
        """Send the answer's head and the first octets of its body."""
        if not delimited or self._proxy.draining or (status >= 300 and self._is_unread):
            self._keep = False
        self._delimited = delimited
        if not self._keep:
            fields += b"Connection: close\r\n"
        elif not self.takes_chunks:
            fields += b"Connection: keep-alive\r\n"
        self.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, reason, fields, data))

    def write(self, data: bytes) -> None:
        """Send more of the answer's body."""
        self.transport.write(data)

    def finish(self) -> None:
        """The answer is out: close, or take the next request."""
        self._stop_splice()
        unread = self._is_unread
        self._exchange = None
        self._left = 0
        self._chunks = None
        if unread or (not self._keep and self._held):
            self._linger()
        elif not self._keep:
            self._close()
        else:
            self._await_next()

    def _await_next(self) -> None:
        self._head_began = False
        self._proxy.deadlines.set(self, self._proxy.timeouts.keepalive)
        if not self._full:
            self._read_next()

    def _read_next(self) -> None:
        if self._held_back:
            self._held_back = False
            self.transport.resumeProducing()
        if self._held and not self._reading:
            self._read_heads(self._held)

    def abort(self) -> None:
        """Cut the connection so that the client can tell that the answer is not complete."""
        self._stop_splice()
        self._exchange = None
        self._keep = False
        if self._delimited:
            self._close()
        else:
            self.transport.abortConnection()

    def answer(self, answer: Answer) -> None:
        """Send an answer of the proxy's own."""
        if self._is_unread:
            self._keep = False
        self._send_answer(answer, self._exchange.head if self._exchange is not None else None)
        self.finish()

    def _send_answer(self, answer: Answer, head: RequestHead | None) -> None:
        body = b"" if head is not None and head.method == b"HEAD" else answer.body
        self.begin(answer.status, answer.reason, answer.fields, body, True)

    @property
    def _is_unread(self) -> bool:
        """Whether some of the request's body is still to come."""
        return self._left > 0 or self._chunks is not None

    def pause_body(self) -> None:
        """Read no more from the client until `resume_body`."""
        if self._left or self._chunks is not None:
            self._proxy.deadlines.clear(self)
            self.transport.pauseProducing()

    def resume_body(self) -> None:
        """Read on."""
        if self._left or self._chunks is not None:
            self._proxy.deadlines.set(self, self._proxy.timeouts.body)
        if not self._held_back and self._splice is None:
            self.transport.resumeProducing()

    def tunnel(self, fields: bytes) -> tuple[RelayEnd, bytes]:
        """Switch protocols, and leave the connection to a relay."""
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % fields)
        return self.give_away()

    def give_away(self) -> tuple[RelayEnd, bytes]:
        """Leave the connection to who asks, with what the client sent behind its request."""
        self.transport.unregisterProducer()
        self._exchange = None
        held, self._held = self._held, b""
        return self, held

    def _close(self) -> None:
        self._lingering = True
        self._proxy.deadlines.set(self, LINGER * 15)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _linger(self) -> None:
        """Close our side, and read and drop what still comes until the client closes its own."""
        if not hasattr(self.transport, "loseWriteConnection") or ISSLTransport.providedBy(self.transport):
            self._close()
            return
        self._lingering = True
        self._held = b""
        self._proxy.deadlines.set(self, LINGER)
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()
        self.transport.resumeProducing()

    def drain(self) -> None:
        """Close as soon as nothing is being answered."""
        self._keep = False
        if self._exchange is None and self.relay is None and not self._lingering:
            self._close()

    def deadline_passed(self) -> None:
        exchange = self._exchange
        if self._lingering:
            self.transport.abortConnection()
        elif self._splice is not None and self._splice.waits_for_sink:
            # It is the backend that is slow, which has a time of its own.
            self._body_progress(complete=False)
        elif exchange is not None:
            self._keep = False
            exchange.break_off(408, "The rest of the request's body did not come in time.")
        elif self._held and not self._full:
            self._refuse(ProtocolError(408, "The rest of the request did not come in time."))
        else:
            self._close()

    def readConnectionLost(self) -> None:
        if self.relay is not None:
            super().readConnectionLost()
        elif self._lingering:
            self.transport.loseConnection()
        elif self._exchange is None:
            self._close()
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_splice()
        self._proxy.connections.discard(self)
        self._proxy.deadlines.forget(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        super().connectionLost(reason)

    def pauseProducing(self) -> None:
        self._full = True
        if self._exchange is not None:
            self._exchange.pause_answer()

    def resumeProducing(self) -> None:
        self._full = False
        if self._exchange is not None:
            self._exchange.resume_answer()
        elif self._is_free:
            self._read_next()

    def stopProducing(self) -> None:
        """The transport says so when it is lost; `connectionLost` does what there is to do."""
