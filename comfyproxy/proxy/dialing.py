"""Makes connections to servers: finds the addresses of a name, tries them, takes the first that stands.

Addresses are tried in the order that the `Resolver` gives, each connection beginning with another one. When
one has neither answered nor refused within `ATTEMPT_DELAY`, the next is tried beside it, so that an address
that leads nowhere costs a quarter of a second and not the whole of ``--connect-timeout`` (Happy Eyeballs, RFC
8305 section 5). Under TLS an address that has taken the connection gets a share of the time for its handshake
instead: a second handshake beside the first would cost both sides more than it saves.
"""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import ClientFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from comfyproxy.core.configuration.addresses import Address
from comfyproxy.errors import ConnectFailed, OutOfDescriptors
from comfyproxy.proxy.accepting import EXHAUSTED
from comfyproxy.proxy.proxyprotocol import Greeted
from comfyproxy.proxy.resolver import Resolver

ATTEMPT_DELAY = 0.25
"""Seconds until the next address is tried beside one that has not answered (RFC 8305 section 5)."""

HANDSHAKE = 5.0
"""Seconds for a handshake before the next address is tried, where there is no limit for them all."""


class Waiter(Protocol):
    """Who wants a connection."""

    def connection_ready(self, upstream: Any) -> None:
        """A new connection is ready to be used."""

    def connect_failed(self, error: ConnectFailed) -> None:
        """None came about; nothing was sent."""


class Dialer:
    """Makes one connection to ``address``: resolves its name, tries what comes back, shakes hands.

    With ``tls`` it is encrypted. ``greeting`` goes before all else. ``build`` makes the protocol of each
    attempt, and has to tell the `Attempt` how it ends. Exactly one of ``waiter``'s methods is called, unless
    `cancel` is called first.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        build: Callable[["Attempt"], TwistedProtocol],
        waiter: Waiter,
        timeout: float,
        tls: Callable[[], IOpenSSLClientConnectionCreator] | None = None,
        greeting: bytes = b"",
        names: Resolver | None = None,
    ) -> None:
        self.address = address
        self.build = build
        self.greeting = greeting
        self.reactor = reactor
        self.tls = tls
        self._attempts: list[Attempt] = []
        self._error = "its name has no address"
        self._is_short = False
        self._names = names
        self._next_timer: IDelayedCall | None = None
        self._targets: tuple[str, ...] = ()
        self._timeout = timeout
        self._timer = reactor.callLater(timeout, self._timed_out) if timeout else None
        self._waiter: Waiter | None = waiter

    def dial(self) -> None:
        """Begin."""
        host = self.address.host
        if _is_literal(host):
            self._resolved((host,))
            return
        if self._names is None:
            self._names = Resolver(self.reactor, interval=0)
        self._names.resolve(host, self._resolved)

    def cancel(self) -> None:
        """Give up quietly."""
        self._end()

    def reached(self) -> None:
        """An address has taken the connection: if a handshake follows, it has its time before others are
        tried."""
        if self.tls is not None and self._targets:
            self._try_next_after((self._timeout or HANDSHAKE) / (len(self._targets) + 1))

    def succeeded(self, attempt: "Attempt", upstream: Any) -> None:
        """``upstream`` stands and, with TLS, is verified."""
        for slow in self._attempts[: self._attempts.index(attempt)]:
            self._suspect(slow)
        self._attempts.remove(attempt)
        waiter = self._waiter
        self._end()
        assert waiter is not None
        waiter.connection_ready(upstream)

    def failed(self, attempt: "Attempt", why: str, is_short: bool = False) -> None:
        """One address did not do; go on to the next. ``is_short`` says that there are no descriptors."""
        self._attempts.remove(attempt)
        self._error = why
        self._is_short = is_short
        if is_short:
            self._targets = ()
        else:
            self._suspect(attempt)
        self._try_next()

    def _suspect(self, attempt: "Attempt") -> None:
        if self._names is not None:
            self._names.suspect(self.address.host, attempt.host)

    def _resolved(self, hosts: tuple[str, ...]) -> None:
        if self._waiter is not None:
            self._targets = hosts
            self._try_next()

    def _try_next(self) -> None:
        self._stop_waiting()
        if not self._targets:
            if not self._attempts:
                self._give_up(self._error)
            return
        host, *rest = self._targets
        self._targets = tuple(rest)
        attempt = Attempt(self, host)
        self._attempts.append(attempt)
        if rest:
            self._try_next_after(ATTEMPT_DELAY)
        attempt.start()

    def _try_next_after(self, seconds: float) -> None:
        self._stop_waiting()
        self._next_timer = self.reactor.callLater(seconds, self._try_next)

    def _timed_out(self) -> None:
        self._give_up(f"no connection within {self._timeout:g} s")

    def _give_up(self, why: str) -> None:
        waiter = self._waiter
        for attempt in self._attempts:
            self._suspect(attempt)
        self._end()
        if waiter is not None:
            waiter.connect_failed(OutOfDescriptors(why) if self._is_short else ConnectFailed(why))

    def _end(self) -> None:
        self._waiter = None
        self._targets = ()
        self._stop_waiting()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.cancel()

    def _stop_waiting(self) -> None:
        if self._next_timer is not None and self._next_timer.active():
            self._next_timer.cancel()


class Attempt:
    """One address of a `Dialer`; whoever shakes hands says here how that ended."""

    def __init__(self, dialer: Dialer, host: str) -> None:
        self.host = host
        self._connector: IConnector | None = None
        self._dialer: Dialer | None = dialer

    @property
    def greeting(self) -> bytes:
        """What the connection begins with."""
        return self._dialer.greeting if self._dialer is not None else b""

    def start(self) -> None:
        """Connect."""
        dialer = self._dialer
        assert dialer is not None
        factory: Any = _AttemptFactory(self, dialer.build)
        if dialer.tls is not None:
            factory = TLSMemoryBIOFactory(dialer.tls(), True, factory, dialer.reactor)
            factory.noisy = False
        if dialer.greeting:
            factory = Greeted(dialer.greeting, factory)
        self._connector = dialer.reactor.connectTCP(self.host, dialer.address.port, factory, timeout=None)

    def reached(self) -> None:
        """The address took the connection."""
        if self._dialer is not None:
            self._dialer.reached()

    def succeeded(self, upstream: Any) -> None:
        """The connection is made and, with TLS, verified."""
        dialer, self._dialer = self._dialer, None
        if dialer is None:
            upstream.transport.abortConnection()
        else:
            dialer.succeeded(self, upstream)

    def failed(self, why: str, is_short: bool = False) -> None:
        """It came to nothing; ``is_short`` says that this is for want of a descriptor."""
        dialer, self._dialer = self._dialer, None
        if dialer is not None:
            dialer.failed(self, why, is_short)

    def cancel(self) -> None:
        """Break it off; the dialer has what it wants, or wants nothing more."""
        self._dialer = None
        if self._connector is not None:
            self._connector.disconnect()


class _AttemptFactory(ClientFactory):
    noisy = False

    def __init__(self, attempt: Attempt, build: Callable[[Attempt], TwistedProtocol]) -> None:
        self._attempt = attempt
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol:
        self._attempt.reached()
        return self._build(self._attempt)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        error = reason.value
        text = error.args[-1] if isinstance(error, ConnectError) and error.args else error
        is_short = getattr(error, "osError", None) in EXHAUSTED
        self._attempt.failed(str(text).rstrip(".").lower(), is_short)


def _is_literal(host: str) -> bool:
    """Whether it is an address already."""
    return ":" in host or host.replace(".", "").isdigit()
