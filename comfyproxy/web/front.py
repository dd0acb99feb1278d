"""The client's side of an exchange where the client is a request of twisted.web.

twisted.web frames the answer: chunks for HTTP/1.1 where the length is unknown, the connection's end for
HTTP/1.0, frames for HTTP/2. It has the request's body whole before a resource is asked
(`comfyproxy.web.streaming` has the other way), in memory under 100 kB and in a temporary file above; it is
sent from there piece by piece.
"""

import os
from collections.abc import Callable
from copy import copy
from typing import Any

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.core.http.answers import Answer
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.errors import ProtocolError
from comfyproxy.proxy.draining import STOPPING, Work
from comfyproxy.proxy.exchange import Exchange
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.proxy.relay import RelayEnd
from comfyproxy.web.head import read_head
from comfyproxy.web.websocket import SiteTunnel, take_over

PIECE = 64 * 1024
"""Octets of a request's body that are sent at a time."""

PIECES_A_TURN = 16
"""Pieces sent without a look at what else there is to do: a backend may take them as fast as they come."""

TWISTED_DEFAULTS = (b"server", b"date", b"content-type")
"""Fields that twisted.web puts into every answer, and that are the backend's to give or to leave out."""

Retarget = Callable[[Any, bytes], bytes]
"""Makes the backend's target of a request and its own."""


@implementer(IPushProducer)
class RequestFront:
    """The client's side of one exchange; it is among the proxy's connections as long as that lasts."""

    takes_chunks = False

    def __init__(self, proxy: Proxy, request: Any) -> None:
        self._proxy = proxy
        self._request = request
        self._exchange: Exchange | None = None
        self._tunnel: SiteTunnel | None = None
        self._left = 0
        self._paused = False
        self._reading = False
        self.peer: str = getattr(request.getClientAddress(), "host", None) or "unknown"

    @property
    def transport(self) -> "RequestFront":
        """What the proxy cuts connections by: itself, for a stream of HTTP/2 has no transport."""
        return self

    @property
    def ends(self) -> tuple[Any, Any]:
        """The client's address and ours."""
        return self._request.getClientAddress(), self._request.getHost()

    def abortConnection(self) -> None:
        """Cut the connection, or the stream of HTTP/2."""
        if self._tunnel is not None:
            self._tunnel.transport.abortConnection()
        elif self._is_http2:
            self._reset_stream()
        else:
            self._request.channel.transport.abortConnection()

    def _reset_stream(self) -> None:
        # twisted.web does not tell the request of a stream that it reset itself.
        request = self._request
        request.channel.abortConnection()
        request.connectionLost(Failure(ConnectionAborted()))

    @property
    def _is_http2(self) -> bool:
        # An HTTP/2 stream stands where HTTP/1.1 has its channel, and has no transport of its own.
        return self._request.channel.transport is None

    def start(self, retarget: Retarget | None = None) -> None:
        """Begin the exchange, or refuse the request."""
        proxy, request = self._proxy, self._request
        proxy.connections.add(self)
        request.notifyFinish().addErrback(self._client_gone)
        try:
            if proxy.draining:
                raise ProtocolError(503, STOPPING)
            head = self._read_head()
        except ProtocolError as error:
            # Whatever was wrong, twisted.web and we may not agree on where the next request begins.
            self._close_after_answer()
            self.answer(proxy.answer(error.status, str(error)))
            return
        if retarget is not None and (target := retarget(request, head.target)) != head.target:
            head = copy(head)  # The parser may give the same one to others.
            head.target = target
            head.path = target.partition(b"?")[0]
        forwarder = proxy.forwarder(self.peer, request.isSecure())
        exchange = self._exchange = Exchange(proxy, self, head, forwarder)
        self._begin(exchange)

    def _read_head(self) -> RequestHead:
        content = self._request.content
        content.seek(0, os.SEEK_END)
        self._left = content.tell()
        content.seek(0)
        return read_head(self._request, self._proxy.limits, self._left)

    def _begin(self, exchange: Exchange) -> None:
        self._reading = True
        data = self._read()
        exchange.begin(data, not self._left)
        self._reading = False
        self._send_body()

    def _read(self) -> bytes:
        data: bytes = self._request.content.read(PIECE) if self._left else b""
        self._left -= len(data)
        return data

    def _send_body(self) -> None:
        """Hand the body on until it is all gone or `pause_body` is called."""
        if self._reading:
            return
        self._reading = True
        for _ in range(PIECES_A_TURN):
            if self._exchange is None or self._paused or not (data := self._read()):
                break
            self._exchange.body(data, not self._left)
        else:
            self._proxy.reactor.callLater(0, self._send_body)
        self._reading = False

    def pause_body(self) -> None:
        """Send no more of the body until `resume_body`."""
        self._paused = True

    def resume_body(self) -> None:
        """Send on."""
        self._paused = False
        self._send_body()

    @property
    def body_sink(self) -> None:
        """None: twisted.web frames what it is given."""
        return None

    @property
    def watches_reading(self) -> bool:
        """No: twisted.web does not tell how much the client has taken."""
        return False

    def sink_taken(self) -> None:
        """Never: there is no sink."""

    def informational(self, status: int, reason: bytes, fields: bytes) -> None:
        """Pass a 1xx on over HTTP/1.1; HTTP/1.0 has none, and twisted.web can't send any over HTTP/2."""
        if self._request.clientproto == b"HTTP/1.1":
            self._request.channel.transport.write(_informational(status, reason, fields))

    def begin(self, status: int, reason: bytes, fields: bytes, data: bytes, delimited: bool) -> None:
        """Send the answer's head and the first octets of its body; twisted.web delimits it."""
        request = self._request
        headers = request.responseHeaders
        for name in TWISTED_DEFAULTS:
            headers.removeHeader(name)
        request.defaultContentType = None
        request.setResponseCode(status)
        request.code_message = reason
        for line in fields.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            headers.addRawHeader(name, value.strip(b" \t"))
        if request.clientproto == b"HTTP/1.0":
            headers.setRawHeaders(b"connection", [b"close"])
        if status == 205:
            # Else twisted.web would write an empty body in chunks, and browsers read none after a 205.
            headers.setRawHeaders(b"content-length", [b"0"])
        request.registerProducer(self, True)
        request.write(data)

    def write(self, data: bytes) -> None:
        """Send more of the answer's body."""
        self._request.write(data)

    def finish(self) -> None:
        """The answer is complete."""
        self._over()
        self._finish_request()

    def _finish_request(self) -> None:
        self._request.unregisterProducer()
        self._request.finish()

    def abort(self) -> None:
        """Leave the answer unfinished, and let the client see that."""
        self._over()
        request = self._request
        channel = request.channel
        request.unregisterProducer()
        if self._is_http2:
            self._reset_stream()
        elif request.clientproto == b"HTTP/1.0":
            # The connection's end is the body's end there: only a reset tells the two apart.
            channel.transport.abortConnection()
        else:
            self._close()

    def _close(self) -> None:
        """Close the connection after what is written, or without if that takes the client too long."""
        channel = self._request.channel
        channel.setTimeout(channel.abortTimeout)
        channel.loseConnection()

    def answer(self, answer: Answer) -> None:
        """Send an answer of the proxy's own."""
        if answer.status == 413:
            self._close_after_answer()
        self.begin(answer.status, answer.reason, answer.fields, answer.body, True)
        self.finish()

    def tunnel(self, fields: bytes) -> tuple[RelayEnd, bytes]:
        """Switch protocols and give the connection away, with what the client sent behind its request."""
        tunnel, held = self.give_away()
        tunnel.transport.write(_informational(101, b"Switching Protocols", fields))
        return tunnel, held

    def give_away(self) -> tuple[RelayEnd, bytes]:
        """Leave the connection to a relay, or to autobahn, which writes the 101 itself."""
        self._exchange = None
        self._tunnel, held = take_over(self._request)
        return self._tunnel, held

    @property
    def work(self) -> Work:
        """What it is doing."""
        relay = self._tunnel.relay if self._tunnel is not None else None
        return relay.work if relay is not None else Work.REQUEST

    def drain(self) -> None:
        """Let the answer be the last of its connection."""
        if self._exchange is not None:
            self._close_after_answer()

    def end(self) -> None:
        """End the exchange: with 503 if nothing was answered yet, else by cutting the connection."""
        if self._exchange is not None:
            self._close_after_answer()
            self._exchange.break_off(503, STOPPING)
        elif self._tunnel is not None and self._tunnel.relay is not None:
            self._tunnel.relay.goodbye()

    def _close_after_answer(self) -> None:
        if not self._is_http2 and not self._request.startedWriting:
            self._request.channel.persistent = False
            self._request.responseHeaders.setRawHeaders(b"connection", [b"close"])

    def _client_gone(self, reason: Failure) -> None:
        exchange = self._exchange
        self._over()
        if exchange is not None:
            exchange.client_gone()

    def _over(self) -> None:
        self._exchange = None
        self._left = 0
        self._proxy.connections.discard(self)

    def pauseProducing(self) -> None:
        if self._exchange is not None:
            self._exchange.pause_answer()

    def resumeProducing(self) -> None:
        if self._exchange is not None:
            self._exchange.resume_answer()

    def stopProducing(self) -> None:
        """twisted.web says so when the client is gone; `_client_gone` does what there is to do."""


def _informational(status: int, reason: bytes, fields: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, fields)
