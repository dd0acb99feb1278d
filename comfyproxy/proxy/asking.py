"""Requests of the proxy's own: an `Ask` becomes a request on a connection to its backend, and a `Reply`.

They go over the connections that clients' requests go over, kept ones included, and say of the backend what
those say. One that may not be done twice gets a connection of its own: on a kept one that the backend is just
closing, nobody could tell whether it was taken (RFC 9112 section 9.3.1).
"""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from comfyproxy.core.balancing.backend import Backend, Lease, Outcome
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.operations import Ask, Reply
from comfyproxy.core.balancing.retries import FAILED_STATUSES, outcome_of
from comfyproxy.core.http.headerrules import HeaderRules, ValueOf
from comfyproxy.core.http.http1 import ResponseHead
from comfyproxy.core.http.proxyprotocol import own_header
from comfyproxy.errors import BackendError, BackendLost, BackendTimeout, ConnectFailed, OutOfDescriptors
from comfyproxy.proxy.attempts import MOMENT
from comfyproxy.proxy.dialing import Dialer
from comfyproxy.proxy.upstream import Upstream

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy

SAFE_TWICE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""Methods whose requests may be sent again (RFC 9110 section 9.2.2)."""

LOOK = 1.0
"""Seconds between two looks whether a backend that was asked has gone down meanwhile."""


class Asking:
    """One request of the proxy's own; what answers it is for the subclass.

    It stands where an exchange and its client would: it takes everything at once, chunks decoded. The
    `Upstream` tells it what comes; `_failed` is called once if nothing does. `stop` ends it quietly.
    """

    sent = 0
    request_complete = True
    takes_chunks = False
    watches_reading = False
    answer_sink = None
    deadline = slot = inf
    _dialer: Dialer | IDelayedCall | None = None
    _lease: Lease | None = None
    _upstream: Upstream | None = None
    _was_sent = False
    _was_short = False

    def __init__(
        self, proxy: "Proxy", balancer: Balancer, backend: Backend, method: bytes, data: bytes
    ) -> None:
        self.backend = backend
        self.balancer = balancer
        self.method = method
        self.proxy = proxy
        self._data = data
        self._greeting = own_header(backend.proxy_protocol) if backend.proxy_protocol else b""
        self._started = proxy.reactor.seconds()

    @property
    def front(self) -> "Asking":
        """Itself: it is its own client."""
        return self

    @property
    def head(self) -> "Asking":
        """Itself: it knows its ``method``."""
        return self

    def start(self, timeout: float) -> None:
        """Ask; ``timeout`` is in seconds and for all of it."""
        self._take_lease()
        self.proxy.deadlines.set(self, timeout)
        upstream = None
        if self.method in SAFE_TWICE:
            upstream = self.proxy.connector(self.backend).take_idle(self._greeting)
        if upstream is None:
            self._dial()
        else:
            self.connection_ready(upstream)

    def _take_lease(self) -> None:
        # What is asked in passing takes no room from the work that max_conns is about.
        self._lease = self.balancer.lease(self.backend)
        self.balancer.exempt(self._lease)

    def _dial(self) -> None:
        connector = self.proxy.connector(self.backend)
        self._dialer = connector.dial(self, connector.timeouts.connect, self._greeting)

    def connection_ready(self, upstream: Any) -> None:
        """There is a connection: ask."""
        self._dialer = None
        self._upstream = upstream
        self._was_sent = True
        upstream.begin(self, self._data, upstream.connector.timeouts)

    def connect_failed(self, error: ConnectFailed) -> None:
        """There will be none, unless it was only for want of a descriptor."""
        self._dialer = None
        if isinstance(error, OutOfDescriptors) and not self._was_short:
            self._was_short = True
            self.proxy.ran_short()
            self._dialer = self.proxy.reactor.callLater(MOMENT, self._dial)
        else:
            self._fail(error)

    def upstream_failed(self, error: BackendError) -> None:
        """The connection failed before the answer was complete."""
        upstream, self._upstream = self._upstream, None
        is_stale = upstream is not None and upstream.was_used and isinstance(error, BackendLost)
        if is_stale and self.method in SAFE_TWICE:
            self._was_sent = False
            self._dial()
        else:
            self._fail(error)

    def deadline_passed(self) -> None:
        """It has had its time."""
        what = "answer" if self._was_sent else "connection"
        self._fail(BackendTimeout(f"no complete {what} in time", request_was_sent=self._was_sent))

    def _fail(self, error: BackendError) -> None:
        was_sent = self._was_sent
        self._note(error)
        self._end(self._told_by(error))
        self._failed(error, was_sent)

    def _note(self, error: BackendError) -> None:
        """Say it in the log, unless that is no news: sessions try again and again."""
        if not (isinstance(error, OutOfDescriptors) or self.backend.health.is_down):
            self.proxy.note_failure(self.backend, error)

    def _told_by(self, error: BackendError) -> Outcome:
        """What ``error`` says of the backend."""
        # A ComfyUI that loads a model may answer nothing for longer than we ask, and has work all the same
        # (`Pool.observed`): who finds that out is the probe.
        is_slow = isinstance(error, BackendTimeout) and error.request_was_sent
        return Outcome.ABANDONED if is_slow or isinstance(error, OutOfDescriptors) else outcome_of(error)

    def _failed(self, error: BackendError, was_sent: bool) -> None:
        """Nothing comes of it; ``was_sent`` says that the backend may have seen the request."""
        raise NotImplementedError

    def stop(self) -> None:
        """Nobody wants to know any more."""
        self._end(Outcome.ABANDONED)

    def _end(self, outcome: Outcome) -> None:
        """Give back what it has."""
        dialer, self._dialer = self._dialer, None
        if dialer is not None:
            dialer.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        self.proxy.deadlines.forget(self)
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(outcome, self.proxy.reactor.seconds() - self._started)

    def informational(self, head: ResponseHead) -> None:
        """A 1xx says nothing here."""

    def answered(self, head: ResponseHead, data: bytes, complete: bool) -> None:
        """The final answer comes, with the first octets of its body."""
        raise NotImplementedError

    def answer_data(self, data: bytes, complete: bool) -> None:
        """More of the answer's body."""
        raise NotImplementedError

    def switched(self, upstream: Upstream, head: ResponseHead, rest: bytes) -> None:
        """A 101 that nobody asked for."""
        upstream.abort()
        self._upstream = None
        self._fail(BackendLost("It switched protocols without being asked to.", request_was_sent=True))

    def break_off(self, status: int, message: str) -> None:
        """Never: this client reads everything."""

    def pause_body(self) -> None:
        """The request is small, and handed over whole."""

    resume_body = pause_body

    def sink_taken(self) -> None:
        """Never: there is no sink."""


class Question(Asking):
    """An `Ask` on its way; ``done`` gets the `Reply`, unless `stop` is called first."""

    def __init__(
        self,
        proxy: "Proxy",
        balancer: Balancer,
        ask: Ask,
        done: Callable[[Reply], None],
        rules: HeaderRules | None = None,
    ) -> None:
        super().__init__(proxy, balancer, ask.backend, ask.method, compose(ask, rules))
        self._ask = ask
        self._done = done
        self._answer: ResponseHead | None = None
        self._body = bytearray()
        self._until = inf
        self._was_down = False

    def start(self, timeout: float) -> None:
        self._until = self.proxy.reactor.seconds() + timeout
        self._was_down = self.backend.health.is_down
        super().start(min(timeout, LOOK))

    def deadline_passed(self) -> None:
        """It has had its time, or is known by now not to answer."""
        left = self._until - self.proxy.reactor.seconds()
        if left > 0 and (self._was_down or not self.backend.health.is_down):
            self.proxy.deadlines.set(self, min(left, LOOK))
        else:
            super().deadline_passed()

    def answered(self, head: ResponseHead, data: bytes, complete: bool) -> None:
        self._answer = head
        self.answer_data(data, complete)

    def answer_data(self, data: bytes, complete: bool) -> None:
        if complete:
            self._upstream = None
        self._body += data
        head = self._answer
        assert head is not None
        if max(len(self._body), head.body) > self._ask.limit:
            self._end(Outcome.ANSWERED)
            why = f"its answer is larger than {self._ask.limit} octets"
            self._done(Reply(self.backend, why=why, was_too_long=True))
        elif complete:
            self._end(Outcome.ERRED if head.status in FAILED_STATUSES else Outcome.ANSWERED)
            self._done(Reply(self.backend, head, bytes(self._body)))

    def _failed(self, error: BackendError, was_sent: bool) -> None:
        self._done(Reply(self.backend, why=str(error), was_sent=was_sent))


def compose(ask: Ask, rules: HeaderRules | None = None) -> bytes:
    """The octets of ``ask``; ``rules`` are those of the route that leads to its backend."""
    backend, fields = ask.backend, ask.fields
    host = backend.authority
    if rules is not None:
        value_of = own_values(backend)
        host = rules.host(host, value_of)
        fields = rules.apply(fields, value_of)
    framing = b""
    if ask.body or ask.method not in (b"GET", b"HEAD"):
        framing = b"Content-Type: %b\r\nContent-Length: %d\r\n" % (ask.content_type, len(ask.body))
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n%b" % (
        ask.method,
        ask.target,
        host,
        fields,
        framing,
        ask.body,
    )


def own_values(backend: Backend) -> ValueOf:
    """What the variables of a route's rules stand for where no client asks: the server's own address, or
    nothing."""
    named = {"host": backend.authority, "server": backend.authority, "scheme": b"http"}
    return lambda name: named.get(name, b"")
