"""The client's side: the daemon's own HTTP/1.1 server, strict and streaming.

A connection is in one of these states; `dataReceived` is a table of them.

    waiting for a head ──▶ head complete ──▶ taking the body ──▶ waiting for the answer ──┐
          ▲                                                                              │
          └───────────────────────── answer complete (octets held back are read now) ◀───┘
    lingering: the answer is out, the rest of a body nobody wants is read and dropped, so that the client gets
    to see the answer instead of a reset (RFC 9112 section 9.6)
    relayed: a tunnel; `RelayEnd` has it
"""

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.core.http.chunked import CHUNKED
from comfyproxy.core.http.http1 import RequestHead, check_partial_head, parse_request_head
from comfyproxy.errors import ProtocolError
from comfyproxy.proxy.admission import TOO_MANY_CONNECTIONS
from comfyproxy.proxy.answering import Answering
from comfyproxy.proxy.draining import STOPPING, Work
from comfyproxy.proxy.exchange import Exchange
from comfyproxy.proxy.uploads import Upload

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy

MAX_HELD = 64 * 1024
"""Octets of further requests kept while one is answered (pipelining); then the client is not read."""

_LIMITS_BY_STATUS = {408: "slow_head", 414: "line", 431: "head"}


@implementer(IPushProducer)
class Downstream(Answering):
    """One client connection."""

    _ends: tuple[Any, Any] | None = None

    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy
        self._limits = proxy.limits
        self._reading = False
        self._held_back = False
        self._head_began = True
        self._requests = 0

    def connectionMade(self) -> None:
        transport = self.transport
        transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self.peer = getattr(transport.getPeer(), "host", None) or "unknown"
        secure = ISSLTransport.providedBy(transport) or getattr(transport, "came_over_tls", False)
        self._forwarder = self._proxy.forwarder(self.peer, secure)
        self._proxy.connections.add(self)
        # The first head has its time from now on, however much of it comes when.
        self._proxy.deadlines.set(self, self._proxy.timeouts.head)
        excess = self._proxy.admission.enter(self.peer, self._proxy.trusted)
        if excess:
            self._turn_away(excess)

    def _turn_away(self, excess: int) -> None:
        """This is one of ``excess`` connections too many from its address."""
        if self._proxy.admission.may_be_told(excess):
            self._refuse(ProtocolError(429, TOO_MANY_CONNECTIONS))
        else:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._exchange is None:
            if self._full and not self._lingering:
                self.hold(data)
            elif not self._lingering:
                self._read_heads(self._held + data if self._held else data)
        elif self._upload is not None:
            self._upload.feed(data)
        else:
            self.hold(data)

    def hold(self, data: bytes) -> None:
        """Keep what comes before its time: the next request, or the first octets of a tunnel."""
        self._held += data
        if len(self._held) > MAX_HELD and not self._held_back:
            self._held_back = True
            self.transport.pauseProducing()

    def _read_heads(self, data: bytes) -> None:
        """Start the request in ``data``, and those behind it as long as each is answered at once."""
        self._reading = True
        self._held = data
        while self._read_head() and self._held and self._is_free:
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
            if len(head.block.fields) > self._limits.fields:
                raise ProtocolError(431, "The request has too many header fields.")
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
        if self._limits.requests:
            self._requests += 1
            self._keep = self._keep and self._requests < self._limits.requests
        exchange = self._exchange = Exchange(self._proxy, self, head, self._forwarder)
        if head.body == 0:
            self._held = data
            exchange.begin()
        else:
            self._begin_with_body(exchange, head.body, data)

    def _begin_with_body(self, exchange: Exchange, size: int, data: bytes) -> None:
        """Start a request that has a body, or some of it, behind its head."""
        if 0 < size <= len(data):
            self._held = data[size:]
            exchange.begin(data[:size], True)
            return
        self._held = b""
        # It is there before the exchange begins: one that is refused at once leaves a body that nobody reads.
        upload = self._upload = Upload(self, exchange, size if size == CHUNKED else size - len(data))
        if size == CHUNKED:
            exchange.begin()
        else:
            exchange.begin(data)
        if self._upload is upload:
            upload.start()
            if size == CHUNKED and data:
                upload.feed(data)

    def upload_complete(self) -> None:
        """The request is here to its last octet."""
        self._upload = None

    def upload_failed(self, status: int, message: str) -> None:
        """The request's body breaks HTTP, or is late; where the next request begins cannot be told."""
        assert self._exchange is not None
        self._keep = False
        self._exchange.break_off(status, message)

    def upload_too_slow(self) -> None:
        """The request's body does not come in time."""
        self._proxy.admission.refuse("slow_body", self.peer, f"{self.peer} sends a body too slowly")
        self.upload_failed(408, "The rest of the request's body did not come in time.")

    @property
    def ends(self) -> tuple[Any, Any]:
        """The client's address and ours."""
        # A socket that is closed does not know its own any more.
        self._ends = self._ends or (self.transport.getPeer(), self.transport.getHost())
        return self._ends

    def _refuse(self, error: ProtocolError, head: RequestHead | None = None) -> None:
        """Answer a request that could not even be read, or only its ``head`` could; nothing behind it can be
        trusted to be one."""
        self._keep = False
        self._held = b""
        reason = _LIMITS_BY_STATUS.get(error.status)
        if reason is not None:
            self._proxy.admission.refuse(reason, self.peer, f"{self.peer}: {str(error).rstrip('.')}")
        answer = self._proxy.answer(error.status, str(error), head)
        self._send_answer(answer, head)
        self._proxy.log.refused(self.peer, error.status, len(answer.body))
        self._linger()

    def finish(self) -> None:
        """The answer is out: close, or take the next request."""
        unread = self._drop_upload()
        if self._pace is not None and not self._full:
            self._stop_pace()
        exchange, self._exchange = self._exchange, None
        if unread or (not self._keep and self._held):
            self._linger()
        elif not self._keep:
            self._close()
        else:
            route = exchange.route if exchange is not None else None
            timeouts = self._proxy.timeouts if route is None else route.timeouts
            self._head_began = False
            self._proxy.deadlines.set(self, timeouts.keepalive)
            if not self._full and (self._held or self._held_back):
                self._read_next()

    def _read_next(self) -> None:
        if self._held_back:
            self._held_back = False
            self.transport.resumeProducing()
        if self._held and not self._reading:
            self._read_heads(self._held)

    def pause_body(self) -> None:
        """Read no more from the client until `resume_body`."""
        if self._upload is not None:
            self._upload.pause()
            self.transport.pauseProducing()

    def resume_body(self) -> None:
        """Read on."""
        upload = self._upload
        if upload is not None:
            upload.resume()
        if not self._held_back and (upload is None or not upload.is_spliced):
            self.transport.resumeProducing()

    def drain(self) -> None:
        """Close as soon as nothing is being answered."""
        self._keep = False
        if self.work is Work.IDLE:
            self._close()

    @property
    def idle_since(self) -> float:
        """When it began to wait for a request, if it waits for one; `inf` where it may do so for ever."""
        timeouts = self._proxy.timeouts
        return self.deadline - (timeouts.head if self._head_began else timeouts.keepalive)

    @property
    def work(self) -> Work:
        """What it is doing."""
        if self.relay is not None:
            return self.relay.work
        at_work = self._exchange is not None or self._held or self._lingering
        return Work.REQUEST if at_work else Work.IDLE

    def end(self) -> None:
        """The proxy waits no longer: tell the client, and close."""
        self._keep = False
        if self.relay is not None:
            self.relay.goodbye()
        elif self._exchange is not None:
            self._exchange.break_off(503, STOPPING)
        elif not self._lingering:
            self._close()

    def deadline_passed(self) -> None:
        if self._lingering:
            self.transport.abortConnection()
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
        self._drop_upload()
        self._stop_pace()
        self._proxy.connections.discard(self)
        self._proxy.admission.leave(self.peer)
        self._proxy.deadlines.forget(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        if self._ends is not None:
            self._proxy.client_left(*self._ends)
        super().connectionLost(reason)

    def pauseProducing(self) -> None:
        self._full = True
        if self._exchange is not None:
            self._exchange.pause_answer()
            self._watch_reading(self._exchange)

    def resumeProducing(self) -> None:
        self._full = False
        if self._exchange is not None:
            self._exchange.resume_answer()
        else:
            self._stop_pace()
            if self._is_free:
                self._read_next()

    def stopProducing(self) -> None:
        """The transport says so when it is lost; `connectionLost` does what there is to do."""
