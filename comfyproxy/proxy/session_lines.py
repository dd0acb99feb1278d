"""One session's connection to one backend, over all its lives: a `Line`.

    resting ──▶ shaking hands ──▶ open ──▶ closing ──▶ resting

There is one connection at a time. The next is made when the one before is gone to the end, and a moment
later, for the backend has to have noticed too: what it does when a WebSocket ends, it does to the client's id
(``server.py``, ``websocket_handler``).
"""

from base64 import b64encode
from collections.abc import Callable
from math import inf
from secrets import token_bytes
from typing import TYPE_CHECKING
from urllib.parse import quote

from twisted.python.failure import Failure

from comfyproxy.core.balancing.backend import AdminState, Backend, Lease, Outcome
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.operations import Ask, OpenSocket, Session
from comfyproxy.core.http.forwarding import UPGRADE
from comfyproxy.core.http.headerrules import HeaderRules
from comfyproxy.core.http.http1 import ResponseHead
from comfyproxy.core.http.websocket import accepts_key
from comfyproxy.errors import BackendError, BackendLost, BackendProtocolError, OutOfDescriptors
from comfyproxy.proxy.asking import Asking, compose
from comfyproxy.proxy.outflow import Backlog
from comfyproxy.proxy.relay import RelayEnd
from comfyproxy.proxy.upstream import Upstream
from comfyproxy.proxy.websocket_ends import BackendEnd

if TYPE_CHECKING:
    from comfyproxy.proxy.sessions import Sessions

SOONEST = 0.25
"""Seconds between two connections, at least."""

HELD = 5.0
"""Seconds that a connection which was asked for stays before its session has to want it."""

HANDSHAKE = 10.0
"""Seconds for a connection and its handshake."""

NORMAL = 1000

TO_BACKEND = 8 * 1024 * 1024
"""Octets that wait for a backend which does not read; past that its connection is broken off."""

_WEBSOCKET = UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n"


class Handshake(Asking):
    """One attempt of a `Line` to get a WebSocket: ``GET /ws?clientId=...``."""

    def __init__(self, line: "Line", rules: HeaderRules | None) -> None:
        self._is_news = True
        self._key = b64encode(token_bytes(16))
        self._line = line
        client = quote(line.session.client_id, safe="", errors="surrogatepass")
        target = b"/ws?clientId=%b" % client.encode("ascii")
        ask = Ask(line.backend, b"GET", target, fields=_WEBSOCKET % self._key)
        super().__init__(line.sessions.proxy, line.balancer, line.backend, b"GET", compose(ask, rules))

    def switched(self, upstream: Upstream, head: ResponseHead, rest: bytes) -> None:
        if not accepts_key(self._key, head) or head.values(b"sec-websocket-extensions"):
            upstream.abort()
            self._upstream = None
            what = "It did not accept a WebSocket as the protocol has it."
            self._fail(BackendProtocolError(what, request_was_sent=True))
            return
        self._upstream = None
        lease, self._lease = self._lease, None
        self.proxy.deadlines.forget(self)
        upstream.give_away()
        self._line.opened(upstream, rest, lease)

    def answered(self, head: ResponseHead, data: bytes, complete: bool) -> None:
        if complete:
            self._upstream = None
        error = BackendLost(f"it answered {head.status} in place of a WebSocket", request_was_sent=True)
        self._note(error)
        self._end(Outcome.ANSWERED)
        self._failed(error, True)

    def answer_data(self, data: bytes, complete: bool) -> None:
        """Never: an answer ends the attempt."""

    def _note(self, error: BackendError) -> None:
        self._is_news = self._line.sessions.is_news(self.backend, str(error))
        if self._is_news and not (isinstance(error, OutOfDescriptors) or self.backend.health.is_down):
            self.proxy.log_of_failures.warn("{url}: {error}", url=self.backend.url, error=error)

    def _told_by(self, error: BackendError) -> Outcome:
        # What is tried again and again may not make the pool give up a server and take it back by turns.
        return super()._told_by(error) if self._is_news else Outcome.ABANDONED

    def _failed(self, error: BackendError, was_sent: bool) -> None:
        self._line.failed(str(error))


class Line:
    """The connection of ``session`` to ``backend``, as often as it is made anew."""

    def __init__(self, sessions: "Sessions", session: Session, balancer: Balancer, backend: Backend) -> None:
        self.backend = backend
        self.balancer = balancer
        self.session = session
        self.sessions = sessions
        self._attempt: Handshake | None = None
        self._delay = SOONEST
        self._end: BackendEnd | None = None
        self._held_until = -inf
        self._is_closing = False
        self._is_hung_up = False
        self._lease: Lease | None = None
        self._rest_until = -inf
        self._waiting: list[Opening] = []

    @property
    def is_resting(self) -> bool:
        """Whether nothing is under way."""
        return self._attempt is None and self._end is None

    @property
    def is_open(self) -> bool:
        """Whether messages pass."""
        return self._end is not None and not self._is_closing

    @property
    def _now(self) -> float:
        now: float = self.sessions.proxy.reactor.seconds()
        return now

    def look(self, is_wanted: bool, may_begin: bool = True) -> bool:
        """Open, close or leave it, as it is wanted; whether there is a reason to keep it in mind.

        Where nobody waits for it, ``may_begin`` says whether an attempt may be made.
        """
        now = self._now
        if is_wanted:
            self._held_until = -inf
        is_needed = is_wanted or bool(self._waiting) or now < self._held_until
        if not is_needed:
            self.hang_up()
        elif self.is_resting and now >= self._rest_until and self._is_worth_it(may_begin):
            self._begin()
        return is_needed or not self.is_resting or now < self._rest_until

    def _is_worth_it(self, may_begin: bool) -> bool:
        health = self.backend.health
        # Checks find out soon and at less cost that a server is back, unless they are not believed.
        is_promising = not health.is_down or (health.known and self.backend.usable)
        may_begin = bool(self._waiting) or (may_begin and is_promising)
        return may_begin and self.backend.admin is not AdminState.MAINT

    def open(self, opening: "Opening") -> None:
        """Have it opened for ``opening``, at once if it has only been waiting after a failure."""
        self._waiting.append(opening)
        self._delay = SOONEST
        if self.is_resting:
            self._rest_until = min(self._rest_until, self._now + SOONEST)
        self.look(is_wanted=False)

    def hold_on(self) -> None:
        """Stay, though the session may not want it yet."""
        self._held_until = self._now + HELD

    def leave(self, opening: "Opening") -> None:
        """``opening`` has what it waited for, or waits no more."""
        if opening in self._waiting:
            self._waiting.remove(opening)
            self.hold_on()

    def _begin(self) -> None:
        proxy = self.sessions.proxy
        route = proxy.route_to(self.balancer)
        attempt = self._attempt = Handshake(self, None if route is None else route.request_rules)
        attempt.start(HANDSHAKE)

    def opened(self, upstream: Upstream, rest: bytes, lease: Lease | None) -> None:
        """Hands are shaken; ``rest`` is what the backend said at once."""
        self._attempt = None
        self._is_closing = False
        self._lease = lease
        proxy = self.sessions.proxy
        end = self._end = BackendEnd(proxy.limits.message)
        end.accept(self.sessions.backends)
        route = proxy.route_to(self.balancer)
        timeouts = proxy.timeouts if route is None else route.timeouts
        end.join(upstream.transport, self, proxy.deadlines, timeouts, Backlog(None, TO_BACKEND))
        upstream.relay = self  # type: ignore[assignment]
        upstream.dataReceived = end.dataReceived  # type: ignore[method-assign]
        upstream.transport.resumeProducing()
        self.sessions.forget_failure(self.backend)
        self.sessions.tell(self.session.opened, self.backend, end.deliver, self._now)
        if rest:
            end.dataReceived(rest)

    def failed(self, why: str) -> None:
        """An attempt came to nothing."""
        self._attempt = None
        self._over(why)
        self._disappoint()

    def hang_up(self) -> None:
        """Close it, if it is open; break an attempt off."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.stop()
            self._over("it is not wanted")
        elif self._end is not None and not self._is_closing:
            self._is_closing = self._is_hung_up = True
            self._end.close(NORMAL)

    def abort(self) -> None:
        """Break off whatever there is."""
        self.hang_up()
        if self._end is not None:
            self._end.transport.abortConnection()

    def succeed(self, session: Session) -> None:
        """Another session with the same id takes the place of the one before: it begins with a connection of
        its own."""
        if self.session is session:
            return
        self.hang_up()
        if self._end is not None:
            self.sessions.tell(self.session.lost, self.backend, "another session has its id", self._now)
        self.session = session

    def _over(self, why: str) -> None:
        """There is no connection any more."""
        now = self._now
        self._rest_until = now + self._delay
        self._delay = min(2 * self._delay, self.sessions.longest_rest)
        self.sessions.tell(self.session.lost, self.backend, why, now)
        self.sessions.rested()

    def _disappoint(self) -> None:
        """Who waits for it waits no more: it may not come for a long time."""
        waiting, self._waiting = self._waiting, []
        for opening in waiting:
            opening.conclude(False)

    # As the neighbour of its end

    def deliver(self, payload: bytes, is_binary: bool) -> None:
        """The backend sent a message."""
        session, backend = self.session, self.backend
        if self._is_closing:
            return
        self.sessions.tell(session.from_backend, backend, payload, is_binary, self._now)
        if (self._waiting or self._delay > SOONEST) and session.is_greeted(backend):
            self._delay = SOONEST
            waiting, self._waiting = self._waiting, []
            self.hold_on()
            for opening in waiting:
                opening.conclude(True)

    def hold(self, held: bool) -> None:
        """Nobody is held up: what waits for the backend is bounded."""

    def close(self, code: int | None, reason: bytes | None = None) -> None:
        """The backend says goodbye, or is gone: the end sees to the rest."""
        self._is_closing = True

    # As the relay of its connection

    def read_ended(self, connection: RelayEnd) -> None:
        """The backend sends no more."""
        if self._end is not None:
            self._end.peer_ended()

    def lost(self, connection: RelayEnd, reason: Failure) -> None:
        """The connection is gone."""
        end, self._end = self._end, None
        assert end is not None
        end.connectionLost(reason)
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(Outcome.ANSWERED)
        was_hung_up = self._is_hung_up
        self._is_closing = self._is_hung_up = False
        if was_hung_up:
            self._delay = SOONEST
            self._over("it was closed")
        else:
            self._over("its connection ended")
            self._disappoint()


class Opening:
    """An `OpenSocket` that waits; ``done`` gets whether the backend knows the client, unless `stop` comes
    first."""

    deadline = slot = inf

    def __init__(self, line: Line, step: OpenSocket, done: Callable[[bool], None]) -> None:
        self._deadlines = line.sessions.proxy.deadlines
        self._done = done
        self._line = line
        self._step = step

    def start(self) -> None:
        """Wait from now on."""
        self._deadlines.set(self, self._step.timeout)
        self._line.open(self)

    def conclude(self, is_open: bool) -> None:
        """That is known now."""
        self.stop()
        self._done(is_open)

    def deadline_passed(self) -> None:
        """It took too long."""
        self.conclude(False)

    def stop(self) -> None:
        """Nobody wants to know any more."""
        self._deadlines.forget(self)
        self._line.leave(self)
