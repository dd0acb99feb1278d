"""A Site that hands uploads on while they arrive, instead of taking them in first.

twisted.web asks a resource when the body is complete: an upload reaches its backend after the last octet of
it reached us, a 100 (Continue) has been promised before anybody was asked, and nothing can be refused
early. `StreamingSite` looks for the resource when the head is complete, among the children that were put in
place (`Resource.putChild`): code of the application's (`getChild`, guards, virtual hosts) is asked when
twisted.web would ask it and not before, so what lies behind it does not stream.

What this relies on beyond the public interface (seen in Twisted 24.11 to 26.10): an HTTP/1.1 channel calls
``gotLength`` when the head is complete and before it looks at ``Expect``; it has the request line in
``_command``, ``_path`` and ``_version``; it keeps its idle timeout in ``_savedTimeOut`` while a request is
handled.

Over HTTP/2 bodies are taken in first, as by any Site: after an answer that comes before the request's end,
twisted.web's connection fails at the next piece of it.
"""

from math import inf
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import ISSLTransport
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from comfyproxy.core.http.chunked import CHUNKED, LAST_CHUNK, encode_chunk
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.proxy.answering import LINGER
from comfyproxy.proxy.exchange import Exchange
from comfyproxy.web.front import RequestFront, Retarget
from comfyproxy.web.head import read_head


class StreamingFront(RequestFront):
    """The client's side of an exchange whose request's body is still coming.

    An answer that is complete before the body is ends the connection. The client has `LINGER` seconds to
    see it; what it sends meanwhile is read and dropped (RFC 9112 section 9.6).
    """

    deadline = slot = inf
    _complete = False
    _waiting_to_finish = False

    def _read_head(self) -> RequestHead:
        return read_head(self._request, self._proxy.limits)

    def start(self, retarget: Retarget | None = None) -> None:
        """Begin the exchange, or refuse the request; from here on its body has its own time."""
        channel = self._request.channel
        channel._savedTimeOut = channel.setTimeout(None)
        super().start(retarget)

    def _begin(self, exchange: Exchange) -> None:
        self._left = max(exchange.head.body, 0)
        exchange.begin()

    def body_came(self, data: bytes) -> None:
        """Take more of the body, without its framing."""
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.head.body != CHUNKED:
            self._left -= len(data)
            self._progress(not self._left)
            exchange.body(data, self._complete)
            return
        self._left += len(data)
        self._progress(False)
        if 0 < exchange.max_body < self._left:
            exchange.refuse_body(exchange.max_body)
        else:
            exchange.body(data if exchange.gathers_body else encode_chunk(data), False)

    def body_ended(self) -> None:
        """Nothing more of the body comes."""
        exchange, was_complete = self._exchange, self._complete
        self._progress(True)
        if self._waiting_to_finish:
            self._over()
            self._finish_request()
            return
        self._let_read()
        if exchange is not None and not was_complete:
            exchange.body(b"" if exchange.gathers_body else LAST_CHUNK, True)

    def _progress(self, complete: bool) -> None:
        self._complete = complete
        if complete:
            self._proxy.deadlines.clear(self)
        else:
            self._proxy.deadlines.set(self, self._proxy.timeouts.body)

    def _send_body(self) -> None:
        """It is sent as it comes."""

    def pause_body(self) -> None:
        """Read no more from the client until `resume_body`; meanwhile it has all time."""
        if self._complete:
            return
        self._paused = True
        self._proxy.deadlines.clear(self)
        self._request.channel.transport.pauseProducing()

    def resume_body(self) -> None:
        """Read on."""
        if self._exchange is not None:
            self._proxy.deadlines.set(self, 0 if self._complete else self._proxy.timeouts.body)
            self._let_read()

    def _let_read(self) -> None:
        if self._paused:
            self._paused = False
            self._request.channel.transport.resumeProducing()

    def begin(self, status: int, reason: bytes, fields: bytes, data: bytes, delimited: bool) -> None:
        """Send the answer's head and the first octets of its body."""
        if not self._complete:
            self._close_after_answer()
        super().begin(status, reason, fields, data, delimited)

    def _finish_request(self) -> None:
        if self._complete:
            super()._finish_request()
            return
        # twisted.web would take the rest of the body for another request if this one were finished now.
        self._let_read()
        self._waiting_to_finish = True
        self._proxy.connections.add(self)
        self._proxy.deadlines.set(self, LINGER)
        if self._request.chunked:
            self._request.channel.write(LAST_CHUNK)
            self._request.chunked = 0
        self._half_close()

    def _half_close(self) -> None:
        """Let the client see that nothing more comes, and take no notice of how it goes on."""
        request, transport = self._request, self._request.channel.transport
        if not request.requestHeaders.hasHeader(b"content-length"):
            request.channel.rawDataReceived = _drop
        if hasattr(transport, "loseWriteConnection") and not ISSLTransport.providedBy(transport):
            transport.unregisterProducer()
            transport.loseWriteConnection()

    def deadline_passed(self) -> None:
        """The body stopped coming, or the client has had its time to see the answer."""
        if self._exchange is not None:
            self._exchange.break_off(408, "The rest of the request's body did not come in time.")
        else:
            self._close()

    def end(self) -> None:
        """End what is going on."""
        if self._waiting_to_finish:
            self.deadline_passed()
        else:
            super().end()

    def _over(self) -> None:
        self._proxy.deadlines.forget(self)
        super()._over()


def _drop(data: bytes) -> None:
    """Drop a piece of a body in chunks: twisted.web would answer an error in them, behind the answer."""


class StreamingRequest(Request):
    """A request that gives its body to a resource with a ``begin_upload`` as it comes."""

    _front: StreamingFront | None = None

    def gotLength(self, length: int | None) -> None:
        channel = self.channel
        if length != 0 and isinstance(channel, HTTPChannel):
            self._look(channel._command, channel._path, channel._version)
        if self._front is None:
            super().gotLength(length)
        else:
            super().gotLength(0)
            # It is the backend's to say whether the client may go on.
            self.requestHeaders.removeHeader(b"expect")

    def handleContentChunk(self, data: bytes) -> None:
        if self._front is None:
            super().handleContentChunk(data)
        else:
            self._front.body_came(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._front is None:
            super().requestReceived(command, path, version)
        else:
            self._front.body_ended()

    def _look(self, method: bytes, uri: bytes, version: bytes) -> None:
        """Give the body to the resource that this is for, if it takes bodies so."""
        self.method, self.uri, self.clientproto = method, uri, version
        self.path = uri.partition(b"?")[0]
        self.args: dict[bytes, list[bytes]] = {}
        self.site = self.channel.site  # type: ignore[attr-defined]
        self.prepath: list[bytes] = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        begin_upload = getattr(find_placed(self.site, self), "begin_upload", None)
        if begin_upload is not None and uri != b"*":
            self._front = begin_upload(self)


def find_placed(site: Site, request: Request) -> Any:
    """The resource for ``request`` as far as children that were put in place lead, else ``None``.

    Moves segments from ``postpath`` to ``prepath`` on the way, as twisted.web does.
    """
    if type(site).getResourceFor is not Site.getResourceFor:
        return None
    resource = site.resource
    assert request.prepath is not None and request.postpath is not None
    while not resource.isLeaf and request.postpath:
        if getattr(type(resource), "getChildWithDefault", None) is not Resource.getChildWithDefault:
            return None
        resource = resource.children.get(request.postpath[0])
        if resource is None:
            return None
        request.prepath.append(request.postpath.pop(0))
    return resource


class StreamingSite(Site):
    """A `twisted.web.server.Site`, with its arguments, that hands uploads on as they arrive."""

    requestFactory = StreamingRequest
