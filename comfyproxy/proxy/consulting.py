"""What an exchange does before a server is chosen: it asks its router, and goes by what that says.

    route ─▶ (gather the body) ─▶ (carry out an operation) ─▶ choose a server  (`Attempts`)
                                                           ├▶ answer here
                                                           └▶ give the WebSocket to a session

A router that has nothing to say costs a call. What it may say is in `comfyproxy.core.balancing.routing`.
"""

from typing import Any

from comfyproxy.core.balancing.backend import Outcome
from comfyproxy.core.balancing.routing import (
    Decision,
    Default,
    Join,
    NeedBody,
    Operate,
    Pin,
    Refuse,
    Respond,
    Search,
)
from comfyproxy.core.http.answers import Answer, reason_of
from comfyproxy.proxy.attempts import FAILURE
from comfyproxy.proxy.operations import FAILED, Running
from comfyproxy.proxy.request_attempts import RequestAttempts

SLICE = 64 * 1024
"""Octets of a long answer of our own that are written at once; more when the client has taken them."""

MAX_GATHERED = 512 * 1024 * 1024
"""Octets of bodies that are held whole for routers, of all requests together."""

SMALL = 256 * 1024
"""Octets of a body that is taken even then: a usual workflow has less."""

TOO_MUCH = "The proxy holds too many large requests at the moment. Send this one again in a while."

NO_WEBSOCKET = "This is a WebSocket, and the request does not ask for one."

_WITHOUT_BODY = frozenset((204, 304))


class Consulting(RequestAttempts):
    """The part of an exchange that its router has.

    ``upgrading`` says that the request asks for a WebSocket. ``sent`` are the octets of the answer's body.
    """

    request_complete: bool

    request_id = ""
    sent = 0
    upgrading = False
    _gathered: list[bytes] | None = None
    _gathered_size = 0
    _is_paused = False
    _limit = 0
    _pending: tuple[bytes, ...] = ()
    _rest: memoryview | None = None
    _running: Running | None = None
    _outlasts = False

    def refuse_body(self, limit: int) -> None:
        """The request's body has more than ``limit`` octets, which is all that it may have."""
        raise NotImplementedError

    def edited(self, fields: bytes) -> bytes:
        """The fields of an answer with our request id, as the route's rules will have them."""
        raise NotImplementedError

    def closed(self) -> None:
        """The client's connection to its session is gone."""
        raise NotImplementedError

    @property
    def client(self) -> bytes:
        """The address that the request is believed to come from."""
        return self._forwarder.client(self.head)

    @property
    def gathers_body(self) -> bool:
        """Whether the body is wanted whole (and without its chunks) before it is sent anywhere."""
        return self._gathered is not None

    def _consult_router(self, body: bytes | None) -> None:
        assert self.route is not None
        router = self.route.balancer.router
        if router is not None:
            try:
                decision = router.route(self.head, body, self.proxy.reactor.seconds())
            except Exception:
                self.proxy.log_of_failures.failure("A router failed")
                self.refuse(500, FAILURE)
                return
            if not isinstance(decision, Default) and not self._follow(decision, body):
                return
        self.route.balancer.budget.requests += 1
        self._choose()

    def _follow(self, decision: Decision, body: bytes | None) -> bool:
        """Go by what the router says; whether a backend is to be chosen now."""
        if isinstance(decision, Pin):
            self._pinned = decision.backend
            self._strict = decision.strict
        elif isinstance(decision, Search):
            self._searching = True
        elif not isinstance(decision, Default):
            self._follow_elsewhere(decision, body)
            return False
        return True

    def _follow_elsewhere(self, decision: Decision, body: bytes | None) -> None:
        """Do what the router says, which is not to choose a backend."""
        if isinstance(decision, Respond):
            self._respond(decision)
        elif isinstance(decision, Operate):
            self._operate(decision)
        elif isinstance(decision, Join):
            self._join(decision)
        elif isinstance(decision, Refuse):
            self.refuse(decision.status, decision.message)
        elif isinstance(decision, NeedBody) and body is None:
            self._gather(decision.limit)
        else:
            raise TypeError(f"{decision!r} is not what a router may say here.")

    # Gathering the body

    def _gather(self, limit: int) -> None:
        self._limit = limit
        if self.head.body > limit:
            self.refuse_body(limit)
        elif self.request_complete:
            self._body = b"".join(self._pending)
            self._pending = ()
            self._consult_router(self._body)
        else:
            self._gathered, self._pending = list(self._pending), ()
            if self.head.expects_continue:
                self.front.informational(100, b"Continue", b"")

    def _take_gathered(self, data: bytes, complete: bool) -> None:
        assert self._gathered is not None
        self._gathered.append(data)
        self._gathered_size += len(data)
        self.proxy.gathered += len(data)
        if self._gathered_size > self._limit:
            self.refuse_body(self._limit)
        elif self._gathered_size > SMALL and self.proxy.gathered > MAX_GATHERED:
            self.break_off(503, TOO_MUCH)
        elif complete:
            self._body = b"".join(self._gathered)
            self._gathered = None
            self._consult_router(self._body)

    def _give_back(self) -> None:
        """What was gathered is needed no more."""
        self.proxy.gathered -= self._gathered_size
        self._gathered_size = 0

    # Operations

    def _operate(self, decision: Operate) -> None:
        assert self.route is not None
        route = self.route
        self._outlasts = decision.outlasts
        running = Running(
            self.proxy, route.balancer, decision.operation, self._operated, self.client, route.request_rules
        )
        self._running = running
        running.start()

    def _operated(self, decision: Any) -> None:
        """The operation is over, and has decided."""
        self._running = None
        if self.status:
            # The client is gone; it was for the sake of what it did that the operation went on.
            return
        if decision is FAILED:
            self.refuse(500, FAILURE)
            return
        try:
            if self._follow(decision, self._body):
                assert self.route is not None
                self.route.balancer.budget.requests += 1
                self._choose()
        except Exception:
            self.proxy.log_of_failures.failure("What an operation decided could not be done")
            self.break_off(500, FAILURE)

    def break_off(self, status: int, message: str) -> None:
        """The request went wrong on its way."""
        raise NotImplementedError

    def _client_left(self) -> None:
        """Nobody waits for the answer: end what goes on, unless it was to be done anyhow."""
        running = self._running
        if running is None or not self._outlasts:
            self._stop_consulting()

    def _stop_consulting(self) -> None:
        """Nothing more comes of what the router said."""
        self._gathered = None
        self._pending = ()
        self._rest = None
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    # Answering here

    def _respond(self, decision: Respond) -> None:
        """Send the answer: all of it if it is short, else in slices as the client takes them."""
        self._pending = ()
        self.status = decision.status
        if decision.backend is not None:
            assert self.route is not None
            self.backend = decision.backend
            self.proxy.log.routed(decision.backend, len(self.route.balancer.pool.backends))
        fields = self._own_fields(decision)
        if self.request_complete:
            self._respond_in_slices(decision, fields)
            return
        # Nobody reads the rest of the request, so the connection ends behind the answer.
        answer = Answer(decision.status, fields, decision.body)
        self.sent = len(answer.body)
        self._end(Outcome.ANSWERED)
        self.front.answer(answer)

    def _respond_in_slices(self, decision: Respond, fields: bytes) -> None:
        body = memoryview(decision.body)
        if self.head.method == b"HEAD" or decision.status in _WITHOUT_BODY:
            body = body[:0]
        first, self._rest = bytes(body[:SLICE]), body[SLICE:]
        self.sent = len(first)
        self.front.begin(decision.status, reason_of(decision.status), fields, first, True)
        self._respond_on()

    def _own_fields(self, decision: Respond) -> bytes:
        framing = b"Content-Type: %b\r\nContent-Length: %d\r\n" % (decision.content_type, len(decision.body))
        if decision.status in _WITHOUT_BODY:
            framing = b""
        fields = b"".join((framing, decision.fields, self.proxy.date()))
        assert self.route is not None
        if self.route.response_rules is not None or self.proxy.request_ids == "answers":
            fields = self.edited(fields)
        return fields

    def _respond_on(self) -> None:
        """Send more of the answer until the client is behind."""
        while self._rest and not self._is_paused:
            data, self._rest = bytes(self._rest[:SLICE]), self._rest[SLICE:]
            self.sent += len(data)
            self.front.write(data)
        if self._rest is not None and not self._rest:
            self._rest = None
            self._end(Outcome.ANSWERED)
            self.front.finish()

    # Sessions

    def _join(self, decision: Join) -> None:
        if not self.upgrading:
            self.refuse(400, NO_WEBSOCKET)
            return
        self.status = 101
        self.proxy.sessions.join(self, decision)
