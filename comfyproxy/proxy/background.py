"""The work that routers have beside requests (`comfyproxy.core.balancing.routing.WorkingRouter`)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.operations import Operation
from comfyproxy.core.balancing.routing import WorkingRouter
from comfyproxy.core.http.headerrules import HeaderRules
from comfyproxy.proxy.operations import Running

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy

INTERVAL = 0.25
"""Seconds between two times that routers are asked for their work."""

SOONEST = 0.02
"""Seconds between two times that a router is asked because it said so: one that always does must not take all
the time there is."""

LEAVE = 30.0
"""Seconds that a router which a reload took away has to bring what it has in hand to backends."""


@dataclass(frozen=True)
class _Leaving:
    """A router that is followed no more and has something in hand, until when, and by which rules it asks."""

    balancer: Balancer
    until: float
    rules: HeaderRules | None


class Background:
    """Asks routers for their work and carries it out; without such a router there is no timer."""

    log = Logger(namespace="comfyproxy")

    def __init__(self, proxy: "Proxy") -> None:
        self._asked: dict[Balancer, float] = {}
        self._is_draining = False
        self._leaving: dict[WorkingRouter, _Leaving] = {}
        self._proxy = proxy
        self._routers: dict[Balancer, WorkingRouter] = {}
        self._rules: dict[Balancer, HeaderRules | None] = {}
        self._timer: IDelayedCall | None = None
        self._woken: dict[Balancer, IDelayedCall] = {}

    def follow(self, balancers: Iterable[Balancer]) -> None:
        """Do the work of the routers of these balancers from now on, and of no others.

        Those of the others that have something in hand are given the time to bring it to a backend.
        """
        former, rules = self._routers, self._rules
        self._routers = {
            balancer: balancer.router for balancer in balancers if isinstance(balancer.router, WorkingRouter)
        }
        self._rules = {balancer: self._rules_of(balancer) for balancer in self._routers}
        for balancer, gone in former.items():
            if self._routers.get(balancer) is not gone:
                self._part_with(balancer, gone, rules[balancer])
        for balancer, router in self._routers.items():
            if former.get(balancer) is not router:
                self._leaving.pop(router, None)
                router.wake = partial(self._wake, balancer)
        self._keep_time()

    def drain(self) -> None:
        """Begin nothing new from now on, but bring to backends what is in hand."""
        self._is_draining = True

    @property
    def in_hand(self) -> int:
        """How many things would be lost if it stopped now."""
        return sum(router.in_hand for router in (*self._routers.values(), *self._leaving))

    def stop(self) -> None:
        """Do nothing any more; no timer is left. What clients have asked for goes on."""
        self.follow(())
        for router, leaving in tuple(self._leaving.items()):
            self._forget(router, leaving)
        self._keep_time()

    def _rules_of(self, balancer: Balancer) -> HeaderRules | None:
        route = self._proxy.route_to(balancer)
        return None if route is None else route.request_rules

    def _keep_time(self) -> None:
        is_needed = bool(self._routers or self._leaving)
        if is_needed and self._timer is None:
            self._timer = self._proxy.reactor.callLater(0, self._turn)
        elif not is_needed and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _part_with(self, balancer: Balancer, router: WorkingRouter, rules: HeaderRules | None) -> None:
        router.wake = _nothing
        self._asked.pop(balancer, None)
        if balancer in self._woken:
            self._woken.pop(balancer).cancel()
        if router.in_hand:
            self._leaving[router] = _Leaving(balancer, self._proxy.reactor.seconds() + LEAVE, rules)
        else:
            self._end(balancer, router)
        self._say_goodbye(balancer, router)

    def _forget(self, router: WorkingRouter, leaving: _Leaving) -> None:
        """Part with a router that has had its time to leave."""
        del self._leaving[router]
        self._end(leaving.balancer, router)
        # The WebSockets of another router that has taken its place are to stay.
        if leaving.balancer not in self._routers:
            self._say_goodbye(leaving.balancer, router)

    def _end(self, balancer: Balancer, router: WorkingRouter) -> None:
        for operation in tuple(self._proxy.operations):
            if operation.router is router:
                operation.stop()
        if router.in_hand:
            self.log.warn(
                "Pool {name} is gone with {count} that no server took.",
                name=balancer.pool.name,
                count=router.in_hand,
            )

    def _say_goodbye(self, balancer: Balancer, router: WorkingRouter) -> None:
        if router.sessions:
            self._proxy.sessions.forget(balancer)

    def _wake(self, balancer: Balancer) -> None:
        if balancer in self._routers and balancer not in self._woken:
            reactor = self._proxy.reactor
            wait = max(0.0, self._asked.get(balancer, -inf) + SOONEST - reactor.seconds())
            self._woken[balancer] = reactor.callLater(wait, self._work, balancer)

    def _turn(self) -> None:
        self._timer = self._proxy.reactor.callLater(INTERVAL, self._turn)
        everyone = [
            *self._routers.items(),
            *((leaving.balancer, router) for router, leaving in self._leaving.items()),
        ]
        if any(router.sessions for _, router in everyone) or self._proxy.has_sessions:
            self._proxy.sessions.turn([(balancer, router.sessions) for balancer, router in everyone])
        for balancer in tuple(self._routers):
            self._work(balancer)
        for router, leaving in tuple(self._leaving.items()):
            self._leave(router, leaving)
        self._keep_time()

    def _work(self, balancer: Balancer) -> None:
        """Ask the router of ``balancer`` for its work, and begin it."""
        woken = self._woken.pop(balancer, None)
        if woken is not None and woken.active():
            woken.cancel()
        router = self._routers[balancer]
        now = self._asked[balancer] = self._proxy.reactor.seconds()
        work = router.settle if self._is_draining else router.background
        self._begin(balancer, router, partial(work, now), self._rules[balancer])

    def _leave(self, router: WorkingRouter, leaving: _Leaving) -> None:
        """Go on with what ``router`` has in hand, or part with it."""
        now = self._proxy.reactor.seconds()
        if router.in_hand and now < leaving.until:
            self._begin(leaving.balancer, router, partial(router.settle, now), leaving.rules)
        else:
            self._forget(router, leaving)

    def _begin(
        self,
        balancer: Balancer,
        router: WorkingRouter,
        work: Callable[[], Iterable[Operation]],
        rules: HeaderRules | None,
    ) -> None:
        try:
            for operation in work():
                Running(self._proxy, balancer, operation, _ignore, rules=rules, router=router).start()
        except Exception:
            self._proxy.log_of_failures.failure("What a router does beside requests failed")


def _nothing() -> None:
    """Nobody does the work of this router."""


def _ignore(result: Any) -> None:
    """It has done what it was for; what it could not do is in the log."""
