"""The answering half of a client's connection: what is written to it, and how it ends.

An answer that is complete before its request is, or that is the last, is followed by the end of our sending
alone, with the client read for a moment longer: closing at once would reset the connection, and the answer
with it (RFC 9112 section 9.6).
"""

from math import inf
from typing import TYPE_CHECKING

from twisted.internet.interfaces import ISSLTransport

from comfyproxy.core.http.answers import Answer
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.proxy.exchange import Exchange
from comfyproxy.proxy.pace import Pace, watch_reading
from comfyproxy.proxy.relay import RelayEnd, Transport
from comfyproxy.proxy.uploads import Upload

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy

LINGER = 2.0
"""Seconds that a client has to read the answer and stop sending."""


class Answering(RelayEnd):
    """Writes answers. `comfyproxy.proxy.downstream.Downstream`, its subclass, reads what they answer."""

    takes_chunks = True
    peer = ""
    deadline = slot = inf
    _proxy: "Proxy"
    # What a connection begins with is the class's: making one costs less.
    _delimited = True
    _exchange: Exchange | None = None
    _full = False
    _held = b""
    _keep = True
    _lingering = False
    _pace: Pace | None = None
    _upload: Upload | None = None

    def finish(self) -> None:
        """The answer is out."""
        raise NotImplementedError

    def deadline_passed(self) -> None:
        """The client has had its time."""
        raise NotImplementedError

    @property
    def body_sink(self) -> Transport:
        """Answers of known length may go straight to the connection."""
        return self.transport

    def informational(self, status: int, reason: bytes, fields: bytes) -> None:
        """Pass a 1xx on; HTTP/1.0 clients do not know them (RFC 9110 section 15.2)."""
        if self.takes_chunks:
            self.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, fields))

    def begin(self, status: int, reason: bytes, fields: bytes, data: bytes, delimited: bool) -> None:
        """Send the answer's head and the first octets of its body."""
        if not delimited or self._proxy.draining or (status >= 300 and self._upload is not None):
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

    def abort(self) -> None:
        """Cut the connection so that the client can tell that the answer is not complete."""
        self._drop_upload()
        self._exchange = None
        self._keep = False
        if self._delimited:
            self._close()
        else:
            self.transport.abortConnection()

    def answer(self, answer: Answer) -> None:
        """Send an answer of the proxy's own."""
        if self._upload is not None or answer.status == 413:
            self._keep = False
        self._send_answer(answer, self._exchange.head if self._exchange is not None else None)
        self.finish()

    def _send_answer(self, answer: Answer, head: RequestHead | None) -> None:
        body = b"" if head is not None and head.method == b"HEAD" else answer.body
        self.begin(answer.status, answer.reason, answer.fields, body, True)

    def _drop_upload(self) -> bool:
        """Want no more of the request's body; whether some of it is still to come."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stop()
        return upload is not None

    @property
    def watches_reading(self) -> bool:
        """Whether it is seen to that the client takes the answer fast enough."""
        return self._pace is not None

    def sink_taken(self) -> None:
        """Octets of the answer go to `body_sink` without passing through here."""
        if self._exchange is not None:
            self._watch_reading(self._exchange)

    def _watch_reading(self, exchange: Exchange) -> None:
        """Let the client keep the least rate in reading the answer of ``exchange``, from now on."""
        if self._pace is None:
            self._pace = watch_reading(exchange, self.transport, self._reads_too_slowly)

    def _reads_too_slowly(self) -> None:
        self._proxy.admission.refuse("slow_reader", self.peer, f"{self.peer} reads an answer too slowly")
        if self._exchange is not None:
            self._exchange.break_off(408, "The answer was not read in time.")
        self.transport.abortConnection()

    def _stop_pace(self) -> None:
        pace, self._pace = self._pace, None
        if pace is not None:
            pace.stop()

    def tunnel(self, fields: bytes) -> tuple[RelayEnd, bytes]:
        """Switch protocols, and leave the connection to a relay."""
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % fields)
        return self.give_away()

    def give_away(self) -> tuple[RelayEnd, bytes]:
        """Leave the connection to who asks, with what the client sent behind its request."""
        self.transport.unregisterProducer()
        self._stop_pace()
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
