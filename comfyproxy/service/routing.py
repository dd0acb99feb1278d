"""From a configuration to routes that carry traffic, and from one to the next without losing state."""

from collections.abc import Collection, Iterator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred

from comfyproxy.comfyui.prompt_router import PromptRouter
from comfyproxy.comfyui.router import make_router
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.changes import Changes, diff
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.balancing.routing import Router
from comfyproxy.core.balancing.stickiness import StickyRouter
from comfyproxy.core.config import Config, HealthConfig, PoolConfig, RouteConfig
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.headerrules import compile_rules
from comfyproxy.core.http.proxyprotocol import V1, V2
from comfyproxy.service.health import rules_of
from comfyproxy.service.ratelimits import Limiters

PROXY_PROTOCOLS = {"none": 0, "v1": V1, "v2": V2}


class Routing:
    """The balancers and routes of one configuration.

    `apply` takes the next one: a pool of the same name, application and placement keeps its balancer, so
    its backends keep their state; what is gone drains. Directories (``--static``) are served by a
    twisted.web site on a loopback port of its own, which is then one more pool: the data path knows no
    files.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._balancers: dict[tuple[str, ...], Balancer] = {}
        self._sites: dict[str, Any] = {}
        self._limiters = Limiters()
        self.table = RouteTable(())

    def apply(self, config: Config) -> dict[str, Changes]:
        """Route by ``config`` from now on; returns the difference of each pool."""
        before = self._balancers
        self._balancers = {}
        self._limiters.turn_over()
        changes = {name: self._take_pool(before, pool) for name, pool in config.pools.items()}
        routes = tuple(self._route(config, before, route) for route in config.routes)
        for key, balancer in before.items():
            if key not in self._balancers:
                balancer.apply(diff(balancer.pool.addresses, ()))
        self.table = RouteTable(routes)
        self._close_sites({route.static for route in config.routes})
        return changes

    def balancer(self, pool: PoolConfig) -> Balancer:
        """The balancer of ``pool``."""
        return self._balancers[_key(pool)]

    @property
    def balancers(self) -> tuple[Balancer, ...]:
        """All that the routes lead to."""
        return tuple(self._balancers.values())

    def watched(self, config: Config) -> Iterator[tuple[Balancer, HealthConfig]]:
        """The balancers of the pools of ``config``, and how their health is watched."""
        return ((self.balancer(pool), pool.health) for pool in config.pools.values())

    async def stop(self) -> None:
        """Serve no more directories."""
        await gatherResults(self._close_sites(set()))

    def _close_sites(self, but: Collection[str | None]) -> list["Deferred[Any]"]:
        """Serve no directories but these."""
        gone = [directory for directory in self._sites if directory not in but]
        return [maybeDeferred(self._sites.pop(directory).stopListening) for directory in gone]

    def _take_pool(self, before: dict[tuple[str, ...], Balancer], config: PoolConfig) -> Changes:
        balancer = before.get(_key(config))
        if balancer is None:
            pool = Pool(
                config.name,
                verify=not config.insecure_backends,
                proxy_protocol=PROXY_PROTOCOLS[config.send_proxy_protocol],
                rules=rules_of(config.health),
            )
            balancer = Balancer(
                pool,
                router=_affinity(config, pool),
                keep_host=config.app != "comfyui",
                clock=self._reactor.seconds,
            )
        self._balancers[_key(config)] = balancer
        balancer.balance_by(config.balance)
        if isinstance(balancer.router, PromptRouter):
            balancer.router.follow(config.comfyui)
        if config.app == "http":
            balancer.router = _stickiness(config, balancer.pool)
        balancer.waiting.limit = config.max_queue
        balancer.budget.share = config.retry_budget
        changes = diff(balancer.pool.addresses, config.addresses)
        balancer.apply(changes)
        return changes

    def _route(self, config: Config, before: dict[tuple[str, ...], Balancer], route: RouteConfig) -> Route:
        prefix = route.prefix.encode()
        if route.pool is not None:
            pool = config.pools[route.pool]
            is_comfyui = pool.app == "comfyui"
            limiters = self._limiters.of(config, route)
            of_route = _of_any_pool(route)
            return Route(
                prefix, self._balancers[_key(pool)], comfyui=is_comfyui, rate_limits=limiters, **of_route
            )
        if route.static is not None:
            address = Address("http", "127.0.0.1", self._site(route.static).getHost().port)
            key = ("static", route.static)
        else:
            assert route.frontend is not None
            address = route.frontend
            key = ("frontend", address.url)
        balancer = self._balancers.get(key) or before.get(key)
        if balancer is None:
            balancer = Balancer(Pool(key[0], (address,)), keep_host=False, clock=self._reactor.seconds)
        self._balancers[key] = balancer
        limiters = self._limiters.of(config, route)
        return Route(prefix, balancer, rate_limits=limiters, **_of_any_pool(route))

    def _site(self, directory: str) -> Any:
        port = self._sites.get(directory)
        if port is None:
            # Imported where it is used: most proxies serve no files.
            from comfyproxy.service.static import serve_directory

            port = self._sites[directory] = serve_directory(self._reactor, directory)
        return port


def _of_any_pool(route: RouteConfig) -> dict[str, Any]:
    """What a route says of itself wherever it leads."""
    return {
        "timeouts": route.timeouts,
        "retries": route.retries,
        "retry_on": frozenset(int(word) for word in route.retry_on if word.isdigit()),
        "retries_timeouts": "timeout" in route.retry_on,
        "request_rules": compile_rules(route.request_headers),
        "response_rules": compile_rules(route.response_headers),
        "max_body": route.max_body,
        "min_rate": route.min_rate,
    }


def _affinity(config: PoolConfig, pool: Pool) -> Router | None:
    """What knows ComfyUI; it remembers clients, so it stays as long as its pool."""
    if config.app != "comfyui":
        return None
    return make_router(config.placement, pool, cookie=_cookie(config.name), options=config.comfyui)


def _stickiness(config: PoolConfig, pool: Pool) -> Router | None:
    """What keeps clients of other services with their servers; it remembers nothing."""
    if config.sticky != "cookie":
        return None
    return StickyRouter(pool, BackendCookie(_cookie(config.name), secret=config.sticky_secret))


def _key(config: PoolConfig) -> tuple[str, ...]:
    connections = (str(config.insecure_backends), config.send_proxy_protocol)
    return ("pool", config.name, config.app, config.placement, *connections)


def _cookie(pool: str) -> str:
    return "comfyproxy" if pool == "default" else f"comfyproxy-{pool}"
