"""Connections to backends: kept while idle, made when none is.

Checking out takes the connection that was used last, so that the others go idle and close. Names are resolved
for each new connection and their addresses are tried in turn.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHostnameResolver,
    IHostResolution,
    IOpenSSLClientConnectionCreator,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.core.addresses import Address
from comfyproxy.core.backend import Backend
from comfyproxy.core.config import Timeouts
from comfyproxy.errors import ConnectFailed
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.proxyprotocol import Greeted
from comfyproxy.proxy.tls import client_tls
from comfyproxy.proxy.upstream import SecureUpstream, Upstream

MAX_IDLE = 256
"""Idle connections kept to one backend."""


class Waiter(Protocol):
    """Who wants a connection."""

    def connection_ready(self, upstream: Any) -> None:
        """A new connection is ready to be used."""

    def connect_failed(self, error: ConnectFailed) -> None:
        """None came about; nothing was sent."""


class Dialer:
    """Makes one connection to ``address``: resolves its name, tries what comes back in order, shakes hands.

    With ``tls`` it is encrypted. ``greeting`` goes before all else. Exactly one of ``waiter``'s methods is
    called, unless `cancel` is called first.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        build: Callable[["Dialer"], TwistedProtocol],
        waiter: Waiter,
        timeout: float,
        tls: Callable[[], IOpenSSLClientConnectionCreator] | None = None,
        greeting: bytes = b"",
    ) -> None:
        self.greeting = greeting
        self._reactor = reactor
        self._address = address
        self._build = build
        self._waiter: Waiter | None = waiter
        self._tls = tls
        self._connector: IConnector | None = None
        self._targets: Iterator[str] = iter(())
        self._error = "its name has no address"
        self._timer = reactor.callLater(timeout, self._timed_out, timeout) if timeout else None

    def dial(self) -> None:
        """Begin."""
        host = self._address.host
        if self._reactor_can_dial(host):
            self._targets = iter((host,))
            self._next()
        else:
            resolver = cast(IHostnameResolver, self._reactor.nameResolver)
            resolver.resolveHostName(_Addresses(self._resolved), host, self._address.port)

    @staticmethod
    def _reactor_can_dial(host: str) -> bool:
        return ":" in host or host.replace(".", "").isdigit()

    def cancel(self) -> None:
        """Give up quietly."""
        self._waiter = None
        self._stop_timer()
        if self._connector is not None:
            self._connector.disconnect()

    def succeeded(self, upstream: Any) -> None:
        """The connection is made and, with TLS, verified."""
        waiter, self._waiter = self._waiter, None
        self._stop_timer()
        if waiter is None:
            upstream.transport.abortConnection()
        else:
            waiter.connection_ready(upstream)

    def failed(self, why: str) -> None:
        """One address did not do; go on to the next."""
        self._error = why
        if self._waiter is not None:
            self._next()

    def _resolved(self, hosts: list[str]) -> None:
        self._targets = iter(hosts)
        if self._waiter is not None:
            self._next()

    def _next(self) -> None:
        host = next(self._targets, None)
        if host is None:
            self._give_up(self._error)
            return
        factory: Any = _DialFactory(self, self._build)
        if self._tls is not None:
            factory = TLSMemoryBIOFactory(self._tls(), True, factory, self._reactor)
            factory.noisy = False
        if self.greeting:
            factory = Greeted(self.greeting, factory)
        self._connector = self._reactor.connectTCP(host, self._address.port, factory, timeout=None)

    def _timed_out(self, timeout: float) -> None:
        self._timer = None
        waiter = self._waiter
        self.cancel()
        self._waiter = waiter
        self._give_up(f"no connection within {timeout:g} s")

    def _give_up(self, why: str) -> None:
        waiter, self._waiter = self._waiter, None
        self._stop_timer()
        if waiter is not None:
            waiter.connect_failed(ConnectFailed(why))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


class _DialFactory(ClientFactory):
    noisy = False

    def __init__(self, dialer: Dialer, build: Callable[[Dialer], TwistedProtocol]) -> None:
        self._dialer = dialer
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol:
        return self._build(self._dialer)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        error = reason.value
        text = error.args[-1] if isinstance(error, ConnectError) and error.args else error
        self._dialer.failed(str(text).rstrip(".").lower())


@implementer(IResolutionReceiver)
class _Addresses:
    """Gathers what a name resolves to, IPv4 and IPv6 in the resolver's order."""

    def __init__(self, done: Callable[[list[str]], None]) -> None:
        self._done = done
        self._hosts: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to prepare."""

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address):
            self._hosts.append(address.host)

    def resolutionComplete(self) -> None:
        self._done(self._hosts)


class Connector:
    """The connections to one backend; of its ``timeouts``, it minds how long one is kept for reuse."""

    def __init__(
        self,
        reactor: Any,
        backend: Backend,
        deadlines: Deadlines,
        timeouts: Timeouts,
        tls: Callable[[Backend], IOpenSSLClientConnectionCreator] = client_tls,
    ) -> None:
        self.backend = backend
        self.deadlines = deadlines
        self._reactor = reactor
        self.timeouts = timeouts
        self._tls = partial(tls, backend) if backend.address.scheme == "https" else None
        self.open: set[Upstream] = set()
        self._idle: list[Upstream] = []
        self._dialing: dict[Upstream, Dialer] = {}

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
        dialer = Dialer(
            self._reactor, self.backend.address, self._build, waiter, timeout, self._tls, greeting
        )
        dialer.dial()
        return dialer

    def put_back(self, upstream: Upstream) -> None:
        """``upstream`` is free again: keep it for the next exchange, or close it."""
        if self.backend.removed or not self.backend.takes_pins or len(self._idle) >= MAX_IDLE:
            upstream.close()
        else:
            self._idle.append(upstream)
            self.deadlines.set(upstream, self.timeouts.backend_keepalive)

    def connection_made(self, upstream: Upstream) -> None:
        """The connection stands and its handshake, if any, is done."""
        self._dialing.pop(upstream).succeeded(upstream)

    def connection_lost(self, upstream: Upstream, why: str = "") -> None:
        """The connection is gone, whatever it was doing."""
        dialer = self._dialing.pop(upstream, None)
        if dialer is not None:
            dialer.failed(why or "it closed the connection during the handshake")
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

    def _build(self, dialer: Dialer) -> Upstream:
        upstream = (SecureUpstream if self.backend.address.scheme == "https" else Upstream)(self)
        upstream.greeting = dialer.greeting
        self.open.add(upstream)
        self._dialing[upstream] = dialer
        return upstream
