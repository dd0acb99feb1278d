"""How a request, or a client of plain TCP, comes by a server: one attempt after the other.

    choose ─▶ connect ─▶ send ─▶ ...
     ▲  │        │         │
     │  ▼        ▼         ▼
     │ wait     the attempt failed ─▶ give up
     └──┴────────┘

Who finds every server full waits in the pool's line, and is told as soon as one has room. An attempt that
fails is followed by another one if that is safe, if there are more servers, and if the time and the budget
for it are not used up (`comfyproxy.core.balancing.retries`). What an attempt takes, a lease on a backend and
a connection to it, is given back when it fails; whatever else happens, the subclass gives it back when all is
over. `comfyproxy.proxy.request_attempts` is what is special about requests, `comfyproxy.proxy.tcp` about the
others.
"""

from math import ceil, inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from comfyproxy.core.balancing.backend import Backend, Lease, Outcome
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.retries import explain, outcome_of
from comfyproxy.core.balancing.routes import Route
from comfyproxy.errors import BackendError, ConnectFailed, NoBackendAvailable, OutOfDescriptors
from comfyproxy.proxy.dialing import Dialer

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy

OUT_OF_DESCRIPTORS = "This proxy has too many connections open to make one more to a server."

FAILURE = "The proxy failed."

MOMENT = 0.1
"""Seconds until the second try to get a connection when there was no descriptor for it."""

LONGEST_ADVICE = 60
"""Seconds that a client is told to wait at most before it tries again."""


class Attempts:
    """The attempts of one request, or of one TCP client, which is a subclass: one object is made, not two.

    ``backend`` is the one of the last attempt. ``started`` is in seconds.
    """

    proxy: "Proxy"
    started: float

    # What most requests never set is a default of the class: making one costs a microsecond less.
    backend: Backend | None = None
    deadline = slot = inf
    route: Route | None = None
    _asked_at = 0.0
    _dialer: Dialer | IDelayedCall | None = None
    _failed_at = 0.0
    _failure: BackendError | None = None
    _failures = 0
    _repeats = 0
    _lease: Lease | None = None
    _pinned: Backend | None = None
    _strict = False
    _tried: tuple[Backend, ...] = ()
    _waited = 0.0
    _was_short = False
    _waits_since: float | None = None

    def _key(self, balancer: Balancer) -> bytes | None:
        """What the policy is asked with, if it goes by keys."""
        raise NotImplementedError

    def _connect(self, backend: Backend) -> None:
        """Get a connection to ``backend``, and `_send`."""
        raise NotImplementedError

    def _send(self, upstream: Any) -> None:
        """There is a connection."""
        raise NotImplementedError

    def _may_repeat(self, error: BackendError) -> bool:
        """Whether it is safe to make another attempt after ``error``."""
        raise NotImplementedError

    def _give_up(self, status: int, message: str, retry_after: float = 0) -> None:
        """No server will do; tell the client so, and when to come again (in seconds, 0: not known)."""
        raise NotImplementedError

    def _choose(self) -> None:
        """Take a lease on the next backend and go on there, or wait for room."""
        assert self.route is not None
        balancer = self.route.balancer
        try:
            if self._pinned is not None:
                lease = self._lease_pinned(balancer, self._pinned)
            elif balancer.key_of is None:
                lease = balancer.choose(self._tried)
            else:
                lease = balancer.choose(self._tried, self._key(balancer))
        except NoBackendAvailable as error:
            self._none_available(error)
            return
        if self._waits_since is not None:
            self._stop_waiting()
        self._lease = lease
        backend = self.backend = lease.backend
        self.proxy.log.routed(backend, len(balancer.pool.backends))
        self._connect(backend)

    def _lease_pinned(self, balancer: Balancer, pinned: Backend) -> Lease:
        """A lease on the backend that this belongs to; on another if it takes none and another will do."""
        if not pinned.takes_pins:
            if self._strict:
                raise NoBackendAvailable(balancer.pool.name, "The server that this belongs to is out of use.")
            self._pinned = None
            return balancer.choose(self._tried, self._key(balancer))
        if pinned.is_full:
            raise NoBackendAvailable(
                balancer.pool.name, "The server that this belongs to has as much in flight as it may.", True
            )
        self._pinned = None
        return balancer.lease(pinned)

    def _none_available(self, error: NoBackendAvailable) -> None:
        if error.is_full and self._wait():
            return
        if self._waits_since is not None:
            self._stop_waiting()
        if error.is_full:
            self._refuse_for_lack_of_room(str(error))
        elif self._failure is not None and self._failure.request_was_sent:
            self._refuse_for(self._failure)
        else:
            self._give_up(error.status, str(error))

    def _refuse_for_lack_of_room(self, message: str) -> None:
        assert self.route is not None
        self.proxy.admission.refuse("queue", self.route.balancer.pool.name, message.rstrip("."))
        if self._failure is not None and self._failure.request_was_sent:
            self._refuse_for(self._failure)
        else:
            self._give_up(503, message, self._advice())

    def _wait(self) -> bool:
        """Wait for room; ``False`` if too many do so, or this has waited long enough already.

        However often one request has to wait, it has the time of its route only once.
        """
        assert self.route is not None
        seconds = self.route.timeouts.queue
        left = seconds - self._waited
        if (seconds and left <= 0) or not self.route.balancer.waiting.join(self, self._pinned):
            return False
        if self._waits_since is None:
            self._waits_since = self.proxy.reactor.seconds()
            self.proxy.deadlines.set(self, left if seconds else 0)
        return True

    def _stop_waiting(self) -> None:
        assert self.route is not None and self._waits_since is not None
        self.route.balancer.waiting.leave(self)
        self.proxy.deadlines.forget(self)
        now = self.proxy.reactor.seconds()
        self._waited += now - self._waits_since
        self._waits_since = None
        self._asked_at = now

    def room(self) -> None:
        """There may be room now, or nothing to wait for any more."""
        try:
            self._choose()
        except Exception:
            # It is somebody else whose work has just ended and who calls this: that one must not suffer.
            self.proxy.log_of_failures.failure("A request that had waited failed")
            self._give_up(500, FAILURE)

    def deadline_passed(self) -> None:
        """There was no room in time."""
        assert self.route is not None
        self._stop_waiting()
        seconds, name = self.route.timeouts.queue, self.route.balancer.pool.name
        who_had = f"No server of the pool '{name}' had"
        if self._pinned is not None:
            who_had = "The server that this belongs to had no"
        self._refuse_for_lack_of_room(f"{who_had} room within {seconds:g} seconds.")

    def _advice(self) -> int:
        """In how many seconds to try again: by then who waits now was served or is gone."""
        assert self.route is not None
        return min(max(1, ceil(self.route.timeouts.queue)), LONGEST_ADVICE)

    def connection_ready(self, upstream: Any) -> None:
        """The new connection that was asked for is there."""
        self._dialer = None
        self._send(upstream)

    def connect_failed(self, error: ConnectFailed) -> None:
        """The new connection that was asked for cannot be had."""
        self._dialer = None
        self._attempt_failed(error)

    def _attempt_failed(self, error: BackendError) -> None:
        if isinstance(error, OutOfDescriptors):
            self._ran_short()
            return
        # What killed two servers is not shown to a third.
        is_fatal = error.request_was_sent and self._failure is not None and self._failure.request_was_sent
        goes_on = not is_fatal and self._may_repeat(error) and self._may_go_on(error.request_was_sent)
        if self._failure is None or not self._failure.request_was_sent:
            self._failure = error
        self._pass_over(error, outcome_of(error))
        if goes_on:
            self._choose()
        else:
            self._refuse_for(error)

    def _ran_short(self) -> None:
        """There is no descriptor for a connection, which is no server's fault, nor better at another one.

        What is idle is given up, so there may be one in a moment.
        """
        self.proxy.ran_short()
        if not self._was_short:
            self._was_short = True
            self._dialer = self.proxy.reactor.callLater(MOMENT, self._connect_again)
            return
        text = "There is no file descriptor left for a connection to a server"
        self.proxy.admission.refuse("descriptors", "", text)
        self._release(Outcome.ABANDONED)
        self._give_up(503, OUT_OF_DESCRIPTORS, 1)

    def _connect_again(self) -> None:
        assert self.backend is not None
        self._dialer = None
        self._connect(self.backend)

    def _pass_over(self, error: BackendError, outcome: Outcome) -> None:
        """The attempt failed: give its lease back, and make no other one at the same backend."""
        assert self.backend is not None
        now = self.proxy.reactor.seconds()
        self.proxy.note_failure(self.backend, error)
        self._tried = (*self._tried, self.backend)
        if not self._failures:
            self._failed_at = now
        self._failures += 1
        self._release(outcome, now - (self._asked_at or self.started))
        self._asked_at = now

    def _may_go_on(self, repeats: bool) -> bool:
        """Whether there are attempts left, and time; if another one ``repeats`` the request, also budget."""
        assert self.route is not None
        route = self.route
        passed = self.proxy.reactor.seconds() - self._failed_at if self._failures else 0.0
        if self._strict or self._failures >= route.retries or 0 < route.timeouts.retry <= passed:
            return False
        return not repeats or self._take_from_budget(route.balancer)

    def _take_from_budget(self, balancer: Balancer) -> bool:
        live = sum(backend.leases for backend in balancer.pool.backends)
        if not balancer.budget.take(live):
            return False
        self._repeats += 1
        return True

    def _refuse_for(self, error: BackendError) -> None:
        """Tell the client how the last attempt failed; what names servers is told only to who debugs."""
        assert self.route is not None and self.backend is not None
        waited = self.route.timeouts.response
        status, message = explain(error, self.route.balancer.pool.name, waited, only_one=self._strict)
        if self.proxy.debug:
            message += f" ({self.backend.url}: {error})"
        self._give_up(status, message)

    def _stop_trying(self) -> None:
        """Whatever is under way to a connection is not wanted any more."""
        dialer, self._dialer = self._dialer, None
        if dialer is not None:
            dialer.cancel()
        if self._waits_since is not None:
            self._stop_waiting()

    def _release(self, outcome: Outcome, seconds: float = 0.0) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(outcome, seconds)

    def _settle_budget(self) -> None:
        """All is over: as often as this was repeated, others may be."""
        assert self.route is not None
        repeats, self._repeats = self._repeats, 0
        self.route.balancer.budget.give_back(repeats)
