"""Connections to backends: kept while idle, made when none is.

Checking out takes the connection that was used last, so that the others go idle and close.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.config import Timeouts
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.dialing import Attempt, Dialer, Waiter
from comfyproxy.proxy.resolver import Resolver
from comfyproxy.proxy.tls import client_tls
from comfyproxy.proxy.upstream import SecureUpstream, Upstream

MAX_IDLE = 256
"""Idle connections kept to one backend."""


class Connector:
    """The connections to one backend; ``timeouts`` hold for one until a request brings those of its route."""

    def __init__(
        self,
        reactor: Any,
        backend: Backend,
        deadlines: Deadlines,
        timeouts: Timeouts,
        tls: Callable[[Backend], IOpenSSLClientConnectionCreator] = client_tls,
        names: Resolver | None = None,
    ) -> None:
        self.backend = backend
        self.deadlines = deadlines
        self._reactor = reactor
        self.timeouts = timeouts
        self._tls = partial(tls, backend) if backend.address.scheme == "https" else None
        self.open: set[Upstream] = set()
        self._idle: list[Upstream] = []
        self._dialing: dict[Upstream, Attempt] = {}
        self._names = names

    def take_idle(self, greeting: bytes = b"") -> Upstream | None:
        """An idle connection that began with ``greeting``, or ``None``."""
        if greeting:
            return self._take_greeted(greeting)
        return self._idle.pop() if self._idle else None

    def _take_greeted(self, greeting: bytes) -> Upstream | None:
        for upstream in reversed(self._idle):
            if upstream.greeting == greeting:
                self._idle.remove(upstream)
                return upstream
        return None

    def dial(self, waiter: Waiter, timeout: float, greeting: bytes = b"") -> Dialer:
        """Make a connection for ``waiter``; the dialer returned can be cancelled."""
        address, build, tls = self.backend.address, self._build, self._tls
        dialer = Dialer(self._reactor, address, build, waiter, timeout, tls, greeting, self._names)
        dialer.dial()
        return dialer

    def put_back(self, upstream: Upstream) -> None:
        """``upstream`` is free again: keep it for the next exchange, or close it."""
        is_full = len(self._idle) >= MAX_IDLE
        if is_full and upstream.greeting:
            # Each is one client's: the one that was idle for longest is the least likely to be asked for.
            self._idle[0].close()
            is_full = False
        if self.backend.removed or not self.backend.takes_pins or is_full:
            upstream.close()
        else:
            self._idle.append(upstream)
            self.deadlines.set(upstream, upstream.timeouts.backend_keepalive)

    def connection_made(self, upstream: Upstream) -> None:
        """The connection stands and its handshake, if any, is done."""
        self._dialing.pop(upstream).succeeded(upstream)

    def connection_lost(self, upstream: Upstream, why: str = "") -> None:
        """The connection is gone, whatever it was doing."""
        attempt = self._dialing.pop(upstream, None)
        if attempt is not None:
            attempt.failed(why or "it closed the connection during the handshake")
        else:
            self.discard(upstream)

    def discard(self, upstream: Upstream) -> None:
        """``upstream`` is going to close: whoever wants a connection must not get it any more."""
        if upstream in self._idle:
            self._idle.remove(upstream)

    def close_greeted(self, greeting: bytes) -> None:
        """Close the idle connections that began so: their client is gone."""
        while (upstream := self._take_greeted(greeting)) is not None:
            upstream.close()

    def close_idle(self) -> None:
        """Close what is idle; the backend was removed, or the proxy stops."""
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.close()

    def abort(self) -> None:
        """Break off whatever is open."""
        for upstream in tuple(self.open):
            upstream.abort()

    def _build(self, attempt: Attempt) -> Upstream:
        upstream = (SecureUpstream if self.backend.address.scheme == "https" else Upstream)(self)
        upstream.greeting = attempt.greeting
        self.open.add(upstream)
        self._dialing[upstream] = attempt
        return upstream
