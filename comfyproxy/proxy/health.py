"""The watch over one pool's health: its checks, its clock, and the log of what happens to its servers."""

from collections.abc import Callable
from math import inf
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.events import (
    AdminStateChanged,
    BackendCameUp,
    BackendEjected,
    BackendWentDown,
    Event,
    PanicBegan,
)
from comfyproxy.core.balancing.pool import HealthRules
from comfyproxy.proxy.probes import PoolProbes, ProbePlan, Slots
from comfyproxy.proxy.resolver import Resolver


class HealthWatch:
    """Watches the pool of ``balancer``: runs its checks, tells it when something is due, logs each change.

    The time is that of the balancer's clock. ``on_gone`` hears of each backend that is to get nothing any
    more (it is down, or in MAINT): idle connections to it are of no use then. ``slots`` bounds the checks of
    all pools together.
    """

    log = Logger(namespace="comfyproxy.health")

    def __init__(
        self,
        reactor: Any,
        balancer: Balancer,
        slots: Slots,
        on_gone: Callable[[Backend], None] = lambda backend: None,
        names: Resolver | None = None,
    ) -> None:
        self._balancer = balancer
        self._pool = balancer.pool
        self._reactor = reactor
        self._probes = PoolProbes(reactor, balancer.pool, slots, names=names, clock=balancer.clock)
        self._on_gone = on_gone
        self._timer: IDelayedCall | None = None

    def follow(self, rules: HealthRules, plan: ProbePlan | None) -> None:
        """Go by ``rules`` and ``plan`` from now on, with the servers that the pool has now."""
        self._pool.on_event = self._heard
        self._balancer.follow(rules)
        self._probes.follow(plan)
        self._arm()

    def look_again(self) -> None:
        """The pool's servers are others than before."""
        self._probes.follow(self._probes.plan)
        self._arm()

    def stop(self) -> None:
        """Watch no more; no connection and no timer is left."""
        self._pool.on_event = None
        self._probes.stop()
        self._disarm()

    def _heard(self, event: Event) -> None:
        if isinstance(event, BackendWentDown | BackendEjected | PanicBegan):
            self.log.warn("{event}", event=event)
        elif not (isinstance(event, BackendCameUp) and event.first):
            self.log.info("{event}", event=event)
        if isinstance(event, BackendWentDown) or (
            isinstance(event, AdminStateChanged) and event.state is AdminState.MAINT
        ):
            self._on_gone(event.backend)
        elif isinstance(event, BackendEjected | AdminStateChanged):
            self._probes.check_soon(event.backend)
        self._arm()

    def _arm(self) -> None:
        """Have the timer run out when the pool has something to do."""
        self._disarm()
        due = self._pool.due
        if due < inf:
            self._timer = self._reactor.callLater(max(0.0, due - self._balancer.clock()), self._turn)

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _turn(self) -> None:
        self._timer = None
        self._pool.turn(self._balancer.clock())
        self._arm()
