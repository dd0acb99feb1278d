"""How an exchange comes by a server: one attempt after the other, until one has the request or none is left.

    choose ─▶ connect ─▶ send
      ▲          │         │
      │          ▼         ▼
      └───── attempt failed: nothing was sent, or it is safe to send again
      └───── searching: this server answered 404, another may have it

What an attempt takes, a lease on a backend and a connection to it, is given back when it fails; whatever
else happens, `Exchange` gives it back when it ends.
"""

from typing import TYPE_CHECKING

from comfyproxy.core.backend import Backend, Lease
from comfyproxy.core.http1 import RequestHead
from comfyproxy.core.retries import explain, may_try_again
from comfyproxy.core.routes import Route
from comfyproxy.core.routing import Rewrite
from comfyproxy.errors import BackendError, ConnectFailed, NoBackendAvailable
from comfyproxy.proxy.connectors import Dialer
from comfyproxy.proxy.front import Front
from comfyproxy.proxy.upstream import Upstream

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy


class Attempts:
    """The attempts of one exchange, which is a subclass: one object is made for each request, not two."""

    proxy: "Proxy"
    front: Front
    head: RequestHead

    # What most exchanges never set is a default of the class: making one costs a microsecond less.
    backend: Backend | None = None
    route: Route | None = None
    status = 0
    _body: bytes | None = None
    _body_sent = False
    _dialed_at = 0.0
    _dialed_for = 0.0
    _dialer: Dialer | None = None
    _failure: BackendError | None = None
    _lease: Lease | None = None
    _pinned: Backend | None = None
    _rewrite: Rewrite | None = None
    _searching = False
    _strict = False
    _tried: tuple[Backend, ...] = ()
    _upstream: Upstream | None = None

    def _send(self, upstream: Upstream) -> None:
        """Send the request: there is a connection."""
        raise NotImplementedError

    def _end(self) -> None:
        """The exchange is over."""
        raise NotImplementedError

    def refuse(self, status: int, message: str) -> None:
        """Answer ``message`` ourselves."""
        raise NotImplementedError

    def _choose(self) -> None:
        """Take a lease on the next backend and a connection to it."""
        assert self.route is not None
        balancer = self.route.balancer
        pinned, self._pinned = self._pinned, None
        try:
            self._lease = Lease(pinned) if pinned is not None else balancer.choose(self._tried)
        except NoBackendAvailable as error:
            if self._failure is not None and self._failure.request_was_sent:
                self._refuse_for(self._failure)
            else:
                self.refuse(error.status, str(error))
            return
        backend = self.backend = self._lease.backend
        if balancer.router is not None:
            now = self.proxy.reactor.seconds()
            self._rewrite = balancer.router.place(self.head, self._body, backend, now)
        self.proxy.log.routed(backend, len(balancer.pool))
        self._connect(backend, fresh=False)

    def _connect(self, backend: Backend, fresh: bool) -> None:
        assert self.route is not None
        connector = self.proxy.connector(backend)
        upstream = None if fresh else connector.take_idle()
        if upstream is not None:
            self._send(upstream)
        else:
            self._dialed_at = self.proxy.reactor.seconds()
            self._dialer = connector.dial(self, self.route.timeouts.connect)

    def connection_ready(self, upstream: Upstream) -> None:
        """The new connection that was asked for is there."""
        self._dialer = None
        self._send(upstream)

    def connect_failed(self, error: ConnectFailed) -> None:
        """The new connection that was asked for cannot be had."""
        self._dialer = None
        self._dialed_for += self.proxy.reactor.seconds() - self._dialed_at
        self._attempt_failed(error)

    def _search_on(self) -> bool:
        """This backend does not have it: ask the next one; ``False`` when all were asked."""
        assert self.route is not None and self.backend is not None
        self._tried = (*self._tried, self.backend)
        if not self.route.balancer.has_more(self._tried):
            return False
        self._drop_upstream()
        self._release()
        self._choose()
        return True

    def upstream_failed(self, error: BackendError) -> None:
        """The connection in use failed before the answer was complete."""
        assert self.backend is not None
        upstream, self._upstream = self._upstream, None
        if self.status:
            self.proxy.note_failure(self.backend, error)
            self._end()
            self.front.abort()
        elif upstream is not None and upstream.was_used and self._may_try_again(error):
            # The backend closed the kept connection while our request was on its way (RFC 9112 section
            # 9.3.1).
            self._connect(self.backend, fresh=True)
        else:
            self._attempt_failed(error)

    def _may_try_again(self, error: BackendError) -> bool:
        return may_try_again(self.head, error, answered=bool(self.status), body_at_hand=not self._body_sent)

    def _attempt_failed(self, error: BackendError) -> None:
        assert self.backend is not None
        self.proxy.note_failure(self.backend, error)
        self._tried = (*self._tried, self.backend)
        self._release()
        # What killed two servers is not shown to a third.
        is_fatal = error.request_was_sent and self._failure is not None and self._failure.request_was_sent
        if self._failure is None or not self._failure.request_was_sent:
            self._failure = error
        if self._may_try_again(error) and not (self._strict or is_fatal or self._out_of_time()):
            self._choose()
        else:
            self._refuse_for(error)

    def _refuse_for(self, error: BackendError) -> None:
        """Tell the client how the last attempt failed; what names servers is told only to who debugs."""
        assert self.route is not None and self.backend is not None
        waited = self.route.timeouts.response
        status, message = explain(error, self.route.balancer.pool.name, waited, only_one=self._strict)
        if self.proxy.debug:
            message += f" ({self.backend.url}: {error})"
        self.refuse(status, message)

    def _out_of_time(self) -> bool:
        """Whether connecting has taken long enough to tell the client instead."""
        assert self.route is not None
        return 0 < 3 * self.route.timeouts.connect < self._dialed_for

    def _drop_upstream(self) -> None:
        dialer, self._dialer = self._dialer, None
        if dialer is not None:
            dialer.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
