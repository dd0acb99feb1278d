"""The connections of sessions (`comfyproxy.core.balancing.operations.Session`): those of their clients, and
one to each backend that a session wants. A session decides, this owns.

    client ── `Joined` ──┐                 ┌── `Line` ── backend
                         ├── the session ──┤
    client ── `Joined` ──┘                 └── `Line` ── backend

A backend is always read (`comfyproxy.proxy.relay`). What a slow client cannot take waits in a `Backlog`,
where newer messages take the place of older ones of the same key; past a limit the client is cut off.
"""

from collections.abc import Callable, Collection, Hashable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.python.failure import Failure

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.operations import OpenSocket, Session
from comfyproxy.core.balancing.routing import Join
from comfyproxy.core.http.forwarding import UPGRADE
from comfyproxy.proxy.draining import STOPPING, Work
from comfyproxy.proxy.outflow import Backlog
from comfyproxy.proxy.relay import DRAIN_LIMIT, RelayEnd
from comfyproxy.proxy.session_lines import Line, Opening
from comfyproxy.proxy.websocket_end import GOING_AWAY
from comfyproxy.proxy.websocket_ends import ClientEnd
from comfyproxy.proxy.websockets import make_factories

if TYPE_CHECKING:
    from comfyproxy.proxy.consulting import Consulting
    from comfyproxy.proxy.proxy import Proxy

MAX_FROM_CLIENT = 4 * 1024 * 1024
"""Octets of a client's message; a larger one ends its WebSocket with 1009, as at ComfyUI (aiohttp's
``max_msg_size``)."""

LATEST = 10.0
"""Seconds between two attempts of which the first came to nothing, at most, unless there are very many."""

ATTEMPTS = 100
"""Attempts a second to reach servers that cannot be reached, at most."""

AT_ONCE = 100
"""Attempts that are begun in one turn, at most, besides those that somebody waits for."""

MOST_CAUSES = 8
"""Ways to fail that are told of a server that does not work in between."""

GOODBYES = 1.0
"""Seconds that backends have to say goodbye when the proxy closes."""


class Sessions:
    """The connections of all sessions of one proxy."""

    def __init__(self, proxy: "Proxy", backlog: int = DRAIN_LIMIT) -> None:
        self.backlog = backlog
        self.clients, self.backends = make_factories(proxy.reactor)
        self.proxy = proxy
        self._all_rest: Deferred[None] | None = None
        self._failures: dict[Backend, set[str]] = {}
        self._is_closing = False
        self._joined: set[Joined] = set()
        self._lines: dict[tuple[str, Backend], Line] = {}

    def join(self, exchange: "Consulting", decision: Join) -> None:
        """Accept the WebSocket that ``exchange`` asks for, and give it to the session."""
        assert exchange.route is not None
        joined = Joined(exchange, self, decision.session)
        self._joined.add(joined)
        joined.begin(decision.fields)
        self.tell(self._open_what_is_wanted, exchange.route.balancer, decision.session)

    def left(self, joined: "Joined") -> None:
        """A client's WebSocket is gone."""
        self._joined.discard(joined)

    def open(self, balancer: Balancer, step: OpenSocket, done: Callable[[bool], None]) -> Opening | None:
        """Have the backend know the client of ``step``; ``done`` is told, at once if it does."""
        line = self._line(balancer, step.session, step.backend)
        if line.is_open and step.session.is_greeted(step.backend):
            line.hold_on()
            done(True)
            return None
        opening = Opening(line, step, done)
        opening.start()
        return opening

    def turn(self, sessions: Iterable[tuple[Balancer, Collection[Session]]]) -> None:
        """Time has passed; these are all sessions that there are."""
        wanted: set[Line] = set()
        for balancer, of_router in sessions:
            for session in tuple(of_router):
                self.tell(self._ask_what_is_wanted, balancer, session, wanted)
        begun = 0
        for key, line in tuple(self._lines.items()):
            was_resting = line.is_resting
            if not line.look(line in wanted, begun < AT_ONCE):
                del self._lines[key]
            elif was_resting:
                begun += not line.is_resting
        for backend in [backend for backend in self._failures if backend.removed]:
            del self._failures[backend]

    @property
    def longest_rest(self) -> float:
        """Seconds between two attempts of one line, at most."""
        return max(LATEST, len(self._lines) / ATTEMPTS)

    def is_news(self, backend: Backend, failure: str) -> bool:
        """Whether ``backend`` has not failed like this since it last worked: only that is worth a line in
        the log."""
        former = self._failures.setdefault(backend, set())
        is_news = failure not in former and len(former) < MOST_CAUSES
        if is_news:
            former.add(failure)
        return is_news

    def forget_failure(self, backend: Backend) -> None:
        """There is a connection to ``backend``: its next failure is news."""
        self._failures.pop(backend, None)

    def _ask_what_is_wanted(self, balancer: Balancer, session: Session, wanted: set[Line]) -> None:
        now = self.proxy.reactor.seconds()
        session.due(now)
        if not session.is_over(now):
            wanted.update(self._line(balancer, session, backend) for backend in session.wanted)

    def _open_what_is_wanted(self, balancer: Balancer, session: Session) -> None:
        """Do that at once; what is not wanted any more is closed in its turn."""
        if not self._is_closing:
            for backend in tuple(session.wanted):
                self._line(balancer, session, backend).look(is_wanted=True)

    def _line(self, balancer: Balancer, session: Session, backend: Backend) -> Line:
        key = session.client_id, backend
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(self, session, balancer, backend)
        else:
            line.succeed(session)
        return line

    def forget(self, balancer: Balancer) -> None:
        """The sessions of ``balancer`` are no more: their clients are to connect anew."""
        for joined in tuple(self._joined):
            if joined.balancer is balancer:
                joined.goodbye()
        for line in self._lines.values():
            if line.balancer is balancer:
                line.hang_up()

    def tell(self, what: Callable[..., None], *arguments: Any) -> None:
        """Tell a session something; if it fails at that, the others must not suffer."""
        try:
            what(*arguments)
        except Exception:
            self.proxy.log_of_failures.failure("A session failed")

    async def close(self) -> None:
        """Say goodbye to all backends, and leave no connection."""
        self._is_closing = True
        for line in self._lines.values():
            line.hang_up()
        if not self._is_at_rest:
            all_rest: Deferred[None] = Deferred()
            self._all_rest = all_rest
            all_rest.addTimeout(GOODBYES, self.proxy.reactor)
            with suppress(TimeoutError):
                await all_rest
        for line in self._lines.values():
            line.abort()

    def rested(self) -> None:
        """A line has come to rest."""
        all_rest = self._all_rest
        if all_rest is not None and self._is_at_rest:
            self._all_rest = None
            all_rest.callback(None)

    @property
    def _is_at_rest(self) -> bool:
        return all(line.is_resting for line in self._lines.values())


class Joined:
    """A client's WebSocket that a session has: the `Client` of the session, the neighbour of its end, and the
    relay of its connection."""

    def __init__(self, exchange: "Consulting", sessions: Sessions, session: Session) -> None:
        assert exchange.route is not None
        self.balancer = exchange.route.balancer
        self._end = ClientEnd(min(MAX_FROM_CLIENT, sessions.proxy.limits.message))
        self._exchange = exchange
        self._is_there = True
        self._session = session
        self._sessions = sessions

    def begin(self, fields: bytes) -> None:
        """Accept the WebSocket; ``fields`` go with the 101."""
        exchange, sessions, end = self._exchange, self._sessions, self._end
        assert exchange.route is not None
        proxy, request = sessions.proxy, exchange.head
        own = end.accept(
            sessions.clients,
            request.value(b"sec-websocket-key") or b"",
            request.values(b"sec-websocket-extensions"),
        )
        side, held = exchange.front.tunnel(exchange.edited(proxy.date() + fields) + UPGRADE + own)
        backlog = Backlog(None, sessions.backlog)
        end.join(side.transport, self, proxy.deadlines, exchange.route.timeouts, backlog)
        side.relay = self  # type: ignore[assignment]
        side.dataReceived = end.dataReceived  # type: ignore[method-assign]
        side.transport.resumeProducing()
        sessions.tell(self._session.attach, self, self._now)
        if held:
            end.dataReceived(held)

    @property
    def _now(self) -> float:
        now: float = self._sessions.proxy.reactor.seconds()
        return now

    def send(self, payload: bytes, is_binary: bool, key: Hashable | None = None) -> None:
        """Send a message; one that still waits under the same ``key`` gives way to it."""
        self._end.deliver(payload, is_binary, key)

    def close(self, code: int | None, reason: bytes | None = None) -> None:
        """Say goodbye to the client, or answer its own. Nothing more can be said to it, so it is gone now,
        though its connection is not: what comes in between is for who comes back."""
        self._end.close(code, reason)
        self._leave()

    def deliver(self, payload: bytes, is_binary: bool) -> None:
        """The client sent a message."""
        self._sessions.tell(self._session.from_client, self, payload, is_binary, self._now)

    def hold(self, held: bool) -> None:
        """Nobody is held up: what waits for the client is bounded."""

    @property
    def work(self) -> Work:
        """What it counts as when the proxy is to stop."""
        return Work.EVENTS

    def goodbye(self) -> None:
        """Tell the client that the proxy goes away."""
        self.close(GOING_AWAY, STOPPING.encode())

    def read_ended(self, connection: RelayEnd) -> None:
        """The client sends no more."""
        self._end.peer_ended()

    def lost(self, connection: RelayEnd, reason: Failure) -> None:
        """The client's connection is gone."""
        self._end.connectionLost(reason)
        self._sessions.left(self)
        self._leave()
        self._exchange.closed()

    def _leave(self) -> None:
        if self._is_there:
            self._is_there = False
            self._sessions.tell(self._session.detach, self, self._now)
