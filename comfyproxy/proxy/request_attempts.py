"""How a request comes by a server: over connections that are kept, with answers that are not good enough."""

from comfyproxy.core.balancing.backend import Backend, Outcome
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.retries import may_try_again, outcome_of
from comfyproxy.core.balancing.routing import Rewrite
from comfyproxy.core.http.headers import Forwarder
from comfyproxy.core.http.http1 import RequestHead, ResponseHead
from comfyproxy.errors import BackendError, BackendLost
from comfyproxy.proxy.attempts import Attempts
from comfyproxy.proxy.front import Front
from comfyproxy.proxy.proxyprotocol import greeting
from comfyproxy.proxy.upstream import Upstream

_Kept = tuple[Backend, Rewrite | None, ResponseHead, bytes]
"""A complete answer that is not the best there could be: whose it is, what to add to it, and the answer."""


class RequestAttempts(Attempts):
    """The attempts of one request; ``status`` is that of its answer, once it has begun."""

    front: Front
    head: RequestHead
    _forwarder: Forwarder

    status = 0
    _body: bytes | None = None
    _body_sent = False
    _kept: _Kept | None = None
    _rewrite: Rewrite | None = None
    _searching = False
    _seconds = 0.0
    _upstream: Upstream | None = None

    def answered(self, head: ResponseHead, data: bytes, complete: bool) -> None:
        """The final answer comes, with the first octets of its body."""
        raise NotImplementedError

    def _end(self, outcome: Outcome = Outcome.ABANDONED) -> None:
        """All is over."""
        raise NotImplementedError

    def refuse(self, status: int, message: str, retry_after: float = 0) -> None:
        """Answer ``message`` ourselves; ``retry_after`` is when trying again may help, in seconds."""
        raise NotImplementedError

    def _key(self, balancer: Balancer) -> bytes | None:
        key_of = balancer.key_of
        return None if key_of is None else key_of(self.head, self._forwarder.client(self.head))

    def _connect(self, backend: Backend) -> None:
        assert self.route is not None
        router = self.route.balancer.router
        if router is not None:
            self._rewrite = router.place(self.head, self._body, backend, self.proxy.reactor.seconds())
        greeting = self._greeting(backend) if backend.proxy_protocol else b""
        upstream = self.proxy.connector(backend).take_idle(greeting)
        if upstream is not None:
            self._send(upstream)
        else:
            self._dial(backend)

    def _dial(self, backend: Backend) -> None:
        assert self.route is not None
        greeting = self._greeting(backend) if backend.proxy_protocol else b""
        self._dialer = self.proxy.connector(backend).dial(self, self.route.timeouts.connect, greeting)

    def _greeting(self, backend: Backend) -> bytes:
        """What a connection to ``backend`` begins with that is for this client alone."""
        client = self._forwarder.client(self.head)
        return greeting(backend.proxy_protocol, client, *self.front.ends)

    def _search_on(self) -> bool:
        """This backend does not have it: ask the next one; ``False`` when all were asked."""
        assert self.route is not None and self.backend is not None
        self._tried = (*self._tried, self.backend)
        if not any(one.usable and one not in self._tried for one in self.route.balancer.pool.backends):
            return False
        self._drop_upstream()
        self._release(Outcome.ANSWERED, self._seconds)
        self._asked_at = self.proxy.reactor.seconds()
        self._choose()
        return True

    def _ask_another(self, head: ResponseHead, data: bytes, complete: bool) -> bool:
        """This backend's answer counts as a failure: ask another one; ``False`` if it has to do.

        It is kept, if it is complete, for when no other one answers.
        """
        assert self.route is not None and self.backend is not None
        if self._lease is None:
            return False
        error = BackendLost(f"it answered {head.status}", request_was_sent=True)
        has_more = self.route.balancer.has_more((*self._tried, self.backend))
        if not (has_more and self._may_repeat(error) and self._may_go_on(repeats=True)):
            return False
        self._kept = (self.backend, self._rewrite, head, data) if complete else None
        self._drop_upstream()
        self._pass_over(error, Outcome.ERRED)
        self._choose()
        return True

    def _give_up(self, status: int, message: str, retry_after: float = 0) -> None:
        """No server will do: pass on what the last one answered, if that was kept, else say so."""
        if self._kept is None:
            self.refuse(status, message, retry_after)
        else:
            self.backend, self._rewrite, head, data = self._kept
            self.answered(head, data, True)

    def upstream_failed(self, error: BackendError) -> None:
        """The connection in use failed before the answer was complete."""
        assert self.backend is not None
        upstream, self._upstream = self._upstream, None
        if self.status:
            self.proxy.note_failure(self.backend, error)
            self._end(outcome_of(error))
            self.front.abort()
        elif self._closed_while_idle(upstream, error):
            self._dial(self.backend)
        else:
            self._attempt_failed(error)

    def _closed_while_idle(self, upstream: Upstream | None, error: BackendError) -> bool:
        """Whether the backend closed the kept connection while a request was on its way that may be sent
        again (RFC 9112 section 9.3.1)."""
        was_used = upstream is not None and upstream.was_used
        return was_used and isinstance(error, BackendLost) and self._may_repeat(error)

    def _may_repeat(self, error: BackendError) -> bool:
        assert self.route is not None
        return may_try_again(
            self.head,
            error,
            answered=bool(self.status),
            body_at_hand=not self._body_sent,
            timeouts=self.route.retries_timeouts,
        )

    def _drop_upstream(self) -> None:
        self._stop_trying()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
