"""Checks of the servers of a pool, each on a connection of its own that is closed behind it.

How often: every ``interval`` seconds, give or take a tenth so that servers do not fall into step; a fifth of
that while a check disagrees with what is believed. However many servers there are, no more than `RATE`
checks begin in a second and no more than `MOST_AT_ONCE` run.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import random as any_number
from typing import Any

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.probing import AnswerReader, Probe, Verdict
from comfyproxy.core.http.proxyprotocol import own_header
from comfyproxy.errors import ConnectFailed, OutOfDescriptors, ProtocolError
from comfyproxy.proxy.dialing import Attempt, Dialer
from comfyproxy.proxy.resolver import Resolver
from comfyproxy.proxy.tls import client_tls

MOST_AT_ONCE = 32
"""Checks that run at the same time, over all pools."""

RATE = 200.0
"""Checks that one pool begins in a second; of more servers each waits longer than its interval."""

HASTE = 5
"""How many times as often a server is checked while a check disagrees with what is believed of it."""

JITTER = 0.1
"""The part of an interval by which it may be longer or shorter."""


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What to ask, how often and how long to wait for the whole answer, in seconds.

    Without a ``probe`` it is enough that the server takes a connection (and has a good certificate, where it
    has one).
    ``is_patient`` says that a server which takes the connection, has work and does not answer is rather
    taken to be busy (`Pool.observed`).
    """

    probe: Probe | None
    interval: float = 5.0
    timeout: float = 5.0
    is_patient: bool = False


class Slots:
    """Bounds how many checks run at once; those beyond wait in turn."""

    def __init__(self, limit: int = MOST_AT_ONCE) -> None:
        self._free = limit
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_serving = False

    def take(self, start: Callable[[], None]) -> None:
        """Call ``start`` now or when it is its turn; it owes a `give_back`."""
        self._waiting.append(start)
        self._serve()

    def give_back(self) -> None:
        """A check is over."""
        self._free += 1
        self._serve()

    def _serve(self) -> None:
        # A check that is over at once must not begin the next one inside its own beginning, and that another.
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._free and self._waiting:
                self._free -= 1
                self._waiting.popleft()()
        finally:
            self._is_serving = False


class Check:
    """One check of one server; ``done`` gets the verdict, unless `stop` is called first. It gets None if this
    process had no descriptor for it.

    Its second argument says whether the server took the connection and then left the time run out.
    """

    def __init__(
        self,
        reactor: Any,
        backend: Backend,
        plan: ProbePlan,
        done: Callable[[Verdict | None, bool], None],
        names: Resolver | None = None,
    ) -> None:
        self._names = names
        self._reactor = reactor
        self._backend = backend
        self._plan = plan
        self._done = done
        self._dialer: Dialer | None = None
        self._line: _Line | None = None
        self._reader = AnswerReader()
        self._was_taken = False
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Begin."""
        address, is_secure = self._backend.address, self._backend.address.scheme == "https"
        self._timer = self._reactor.callLater(self._plan.timeout, self._timed_out)
        tls = (lambda: client_tls(self._backend)) if is_secure else None
        version = self._backend.proxy_protocol
        own = own_header(version) if version else b""
        self._dialer = Dialer(self._reactor, address, self._build, self, 0, tls, own, self._names)
        self._dialer.dial()

    def stop(self) -> None:
        """Break off; nobody is told."""
        self._end()

    def _build(self, attempt: Attempt) -> "_Line":
        self._was_taken = True
        secure = self._backend.address.scheme == "https"
        return (_SecureLine if secure else _Line)(self, attempt)

    def connection_ready(self, upstream: "_Line") -> None:
        """The connection stands: ask."""
        self._dialer = None
        self._line = upstream
        probe = self._plan.probe
        if probe is None:
            self._conclude(Verdict(True, "it took a connection"))
        else:
            upstream.transport.write(probe.request(self._backend.authority))

    def connect_failed(self, error: ConnectFailed) -> None:
        """It does not stand."""
        self._dialer = None
        self._conclude(None if isinstance(error, OutOfDescriptors) else Verdict(False, str(error)))

    def received(self, data: bytes) -> None:
        """A part of the answer."""
        try:
            if self._reader.feed(data):
                self._judge()
        except ProtocolError:
            self._conclude(Verdict(False, "what it answered is not HTTP/1"))

    def lost(self) -> None:
        """The server closed the connection."""
        self._line = None
        if self._reader.ends_with_connection:
            self._judge()
        else:
            self._conclude(Verdict(False, "it closed the connection before its answer was complete"))

    def _judge(self) -> None:
        assert self._plan.probe is not None
        assert self._reader.head is not None
        self._conclude(self._plan.probe.judge(self._reader.head, self._reader.body))

    def _timed_out(self) -> None:
        self._timer = None
        what = "answer" if self._was_taken else "connection"
        self._conclude(Verdict(False, f"no {what} within {self._plan.timeout:g} s"), is_slow=self._was_taken)

    def _conclude(self, verdict: Verdict | None, is_slow: bool = False) -> None:
        self._end()
        self._done(verdict, is_slow)

    def _end(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        dialer, self._dialer = self._dialer, None
        if dialer is not None:
            dialer.cancel()
        line, self._line = self._line, None
        if line is not None:
            line.close()


class _Line(Protocol):
    """The connection of one check."""

    transport: Any

    def __init__(self, check: Check, attempt: Attempt) -> None:
        self._check: Check | None = check
        self._attempt: Attempt | None = attempt

    def connectionMade(self) -> None:
        self._made()

    def _made(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.succeeded(self)

    def dataReceived(self, data: bytes) -> None:
        if self._check is not None:
            self._check.received(data)

    def close(self) -> None:
        """Close; nobody hears of it."""
        self._check = None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        check, self._check = self._check, None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.failed(_why_no_handshake(reason))
        elif check is not None:
            check.lost()


def _why_no_handshake(reason: Failure) -> str:
    error = reason.value
    if isinstance(error, VerificationError):
        return "its certificate is for another name"
    if isinstance(error, TLSError) and error.args and error.args[0]:
        return f"TLS: {error.args[0][-1][-1]}"
    return "it closed the connection during the handshake"


@implementer(IHandshakeListener)
class _SecureLine(_Line):
    """The same over TLS: it stands once the certificate is verified."""

    def connectionMade(self) -> None:
        """Wait for the handshake."""

    def handshakeCompleted(self) -> None:
        """The handshake is done and the certificate is good."""
        self._made()

    def close(self) -> None:
        """Say goodbye and do not wait for the server's (RFC 8446 section 6.1)."""
        super().close()
        self.transport.transport.loseConnection()


class PoolProbes:
    """Checks every server of one pool over and over, and tells the pool."""

    def __init__(
        self,
        reactor: Any,
        pool: Pool,
        slots: Slots,
        random: Callable[[], float] = any_number,
        names: Resolver | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.names = names
        self.clock = clock if clock is not None else reactor.seconds
        self.reactor = reactor
        self.pool = pool
        self.slots = slots
        self.plan: ProbePlan | None = None
        self._random = random
        self._rounds: dict[Backend, _Round] = {}
        self._new: deque[_Round] = deque()
        self._next_at = 0.0
        self._timer: IDelayedCall | None = None

    def follow(self, plan: ProbePlan | None) -> None:
        """Check the servers that the pool has now by ``plan``, or not at all.

        New servers are checked at once, one after the other.
        """
        self.plan = plan
        wanted = self.pool.backends if plan is not None else ()
        former, self._rounds = self._rounds, {}
        for backend in wanted:
            found = former.pop(backend, None)
            if found is None:
                found = _Round(self, backend)
                self._new.append(found)
            self._rounds[backend] = found
        for gone in former.values():
            gone.stop()
        if not self._rounds:
            self._new.clear()
        if self._new and self._timer is None:
            self._next_at = self.reactor.seconds()
            self._timer = self.reactor.callLater(0, self._begin_new)
        elif not self._new and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_new(self) -> None:
        """Begin with those of the new ones whose time it is; a timer for each takes long in a large pool."""
        self._timer = None
        now = self.reactor.seconds()
        while self._new and self._next_at <= now:
            self._next_at += 1 / RATE
            self._new.popleft().come_due()
        if self._new:
            self._timer = self.reactor.callLater(self._next_at - now, self._begin_new)

    def stop(self) -> None:
        """Check nothing any more; no connection and no timer is left."""
        self.follow(None)

    def check_soon(self, backend: Backend) -> None:
        """Do not wait for the turn of ``backend``."""
        found = self._rounds.get(backend)
        if found is not None:
            found.hurry()

    def pause(self, backend: Backend) -> float:
        """Seconds until ``backend`` is to be checked again."""
        assert self.plan is not None
        seconds = self.plan.interval if backend.health.is_settled else self.plan.interval / HASTE
        seconds = max(seconds, len(self._rounds) / RATE)
        return seconds * (1 - JITTER + 2 * JITTER * self._random())


class _Round:
    """The checks of one server, one after the other."""

    def __init__(self, probes: PoolProbes, backend: Backend) -> None:
        self._probes = probes
        self._backend = backend
        self._timer: IDelayedCall | None = None
        self._check: Check | None = None
        self._has_work = False
        self._is_over = False

    def schedule(self, seconds: float) -> None:
        """Check in so many seconds."""
        self._timer = self._probes.reactor.callLater(seconds, self.come_due)

    def hurry(self) -> None:
        """Check now, unless that is happening anyway."""
        if self._timer is not None:
            self._timer.reset(0)

    def stop(self) -> None:
        """Check no more."""
        self._is_over = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        check, self._check = self._check, None
        if check is not None:
            check.stop()
            self._probes.slots.give_back()

    def come_due(self) -> None:
        """It is time for a check."""
        self._timer = None
        if self._is_over:
            return
        if self._backend.admin is AdminState.MAINT:
            self.schedule(self._probes.pause(self._backend))
        else:
            self._probes.slots.take(self._begin)

    def _begin(self) -> None:
        plan = self._probes.plan
        if self._is_over or plan is None:
            self._probes.slots.give_back()
            return
        probes = self._probes
        self._check = Check(probes.reactor, self._backend, plan, self._concluded, probes.names)
        self._check.start()

    def _concluded(self, verdict: Verdict | None, is_slow: bool) -> None:
        self._check = None
        probes, backend = self._probes, self._backend
        probes.slots.give_back()
        if verdict is None:
            self.schedule(probes.pause(backend))
            return
        assert probes.plan is not None
        has_work = self._has_work or backend.leases > 0 or not backend.health.known
        if verdict.ok:
            self._has_work = verdict.has_work
        is_busy = is_slow and has_work and probes.plan.is_patient
        probes.pool.observed(backend, verdict.ok, probes.clock(), verdict.reason, is_busy=is_busy)
        self.schedule(probes.pause(backend))
