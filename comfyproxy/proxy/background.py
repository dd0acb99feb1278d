"""The work that routers have beside requests (`comfyproxy.core.balancing.routing.WorkingRouter`)."""

from collections.abc import Iterable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.routing import WorkingRouter
from comfyproxy.proxy.operations import Running

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy

INTERVAL = 0.25
"""Seconds between two times that routers are asked for their work."""


SOONEST = 0.02
"""Seconds between two times that a router is asked because it said so: one that always does must not take all
the time there is."""


class Background:
    """Asks routers for their work and carries it out; without such a router there is no timer."""

    def __init__(self, proxy: "Proxy") -> None:
        self._asked: dict[Balancer, float] = {}
        self._proxy = proxy
        self._routers: dict[Balancer, WorkingRouter] = {}
        self._timer: IDelayedCall | None = None
        self._woken: dict[Balancer, IDelayedCall] = {}

    def follow(self, balancers: Iterable[Balancer]) -> None:
        """Do the work of the routers of these balancers from now on, and of no others."""
        former = self._routers
        self._routers = {
            balancer: balancer.router for balancer in balancers if isinstance(balancer.router, WorkingRouter)
        }
        for balancer, gone in former.items():
            if self._routers.get(balancer) is not gone:
                self._forget(balancer, gone)
        for balancer, router in self._routers.items():
            if former.get(balancer) is not router:
                router.wake = partial(self._wake, balancer)
        if self._routers and self._timer is None:
            self._timer = self._proxy.reactor.callLater(0, self._turn)
        elif not self._routers:
            self._stop_timer()

    def stop(self) -> None:
        """Do nothing any more; no timer is left. What has begun goes on."""
        self.follow(())

    def _forget(self, balancer: Balancer, router: WorkingRouter) -> None:
        router.wake = _nothing
        self._asked.pop(balancer, None)
        if balancer in self._woken:
            self._woken.pop(balancer).cancel()
        for operation in tuple(self._proxy.operations):
            if operation.balancer is balancer and operation.is_background:
                operation.stop()
        if router.sessions:
            self._proxy.sessions.forget(balancer)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _wake(self, balancer: Balancer) -> None:
        if balancer in self._routers and balancer not in self._woken:
            reactor = self._proxy.reactor
            wait = max(0.0, self._asked.get(balancer, -inf) + SOONEST - reactor.seconds())
            self._woken[balancer] = reactor.callLater(wait, self._work, balancer)

    def _turn(self) -> None:
        self._timer = self._proxy.reactor.callLater(INTERVAL, self._turn)
        if any(router.sessions for router in self._routers.values()) or self._proxy.has_sessions:
            self._proxy.sessions.turn(
                [(balancer, router.sessions) for balancer, router in self._routers.items()]
            )
        for balancer in tuple(self._routers):
            self._work(balancer)

    def _work(self, balancer: Balancer) -> None:
        """Ask the router of ``balancer`` for its work, and begin it."""
        woken = self._woken.pop(balancer, None)
        if woken is not None and woken.active():
            woken.cancel()
        router = self._routers[balancer]
        now = self._asked[balancer] = self._proxy.reactor.seconds()
        route = self._proxy.route_to(balancer)
        rules = None if route is None else route.request_rules
        try:
            for operation in router.background(now):
                Running(self._proxy, balancer, operation, _ignore, rules=rules, is_background=True).start()
        except Exception:
            self._proxy.log_of_failures.failure("What a router does beside requests failed")


def _nothing() -> None:
    """Nobody does the work of this router."""


def _ignore(result: Any) -> None:
    """It has done what it was for; what it could not do is in the log."""
