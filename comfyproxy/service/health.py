"""What watches the health of the pools of a configuration: begun, kept over reloads, and ended."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from comfyproxy.comfyui.probe import ComfyUIProbe
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.outliers import EjectionRules
from comfyproxy.core.balancing.pool import HealthRules, Pool
from comfyproxy.core.balancing.probing import HttpProbe
from comfyproxy.core.config import HealthConfig
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.errors import ConfigError, UnknownServer
from comfyproxy.proxy.health import HealthWatch
from comfyproxy.proxy.probes import ProbePlan, Slots
from comfyproxy.proxy.resolver import Resolver


class HealthChecks:
    """The watches over all pools; ``on_gone`` is that of `HealthWatch`."""

    def __init__(
        self, reactor: Any, on_gone: Callable[[Backend], None], names: Resolver | None = None
    ) -> None:
        self._names = names
        self._reactor = reactor
        self._on_gone = on_gone
        self._slots = Slots()
        self._watches: dict[Balancer, HealthWatch] = {}

    def follow(self, pools: Iterable[tuple[Balancer, HealthConfig]]) -> None:
        """Watch these pools and no others; one that was watched before stays known."""
        former, self._watches = self._watches, {}
        for balancer, config in pools:
            watch = former.pop(balancer, None)
            if watch is None:
                watch = HealthWatch(self._reactor, balancer, self._slots, self._on_gone, self._names)
            self._watches[balancer] = watch
            watch.follow(rules_of(config), plan_of(config))
        for gone in former.values():
            gone.stop()

    def stop(self) -> None:
        """Watch nothing any more; no connection and no timer is left."""
        self.follow(())


def rules_of(config: HealthConfig) -> HealthRules:
    """What the pool goes by."""
    return HealthRules(
        probed=config.probe != "none",
        rise=config.rise,
        fall=config.fall,
        panic=config.panic_threshold,
        slow_start=config.slow_start,
        ejection=EjectionRules(
            failures=config.eject_failures, seconds=config.eject_time, share=config.eject_share
        ),
    )


def plan_of(config: HealthConfig) -> ProbePlan | None:
    """What the checks ask, if there are to be any."""
    kind, _, path = config.probe.partition(":")
    times = config.interval, config.timeout
    if kind == "comfyui":
        return ProbePlan(ComfyUIProbe(), *times, is_patient=True)
    if kind == "http":
        return ProbePlan(HttpProbe(path, config.status), *times)
    return ProbePlan(None, *times) if kind == "tcp" else None


def find_servers(pools: Iterable[Pool], server: str) -> list[tuple[Pool, Backend]]:
    """The backends that ``server`` means: a name, or a URL (also with ranges) as in a list of servers.

    Raises `UnknownServer` where one of them is in no pool.
    """
    pools = tuple(pools)
    found: list[tuple[Pool, Backend]] = []
    for name in _names(server):
        meant = [(pool, backend) for pool, backend in _everyone(pools) if name in _names_of(backend)]
        if not meant:
            raise UnknownServer(name, [backend.url for _, backend in _everyone(pools)])
        found += meant
    return found


def _names(server: str) -> tuple[str, ...]:
    if "://" not in server:
        return (server,)
    try:
        return tuple(address.url for address in parse_addresses(server))
    except ConfigError:
        return (server,)


def _names_of(backend: Backend) -> tuple[str, ...]:
    return tuple(filter(None, (backend.url, backend.address.name)))


def _everyone(pools: tuple[Pool, ...]) -> Iterator[tuple[Pool, Backend]]:
    return ((pool, backend) for pool in pools for backend in pool.backends)
