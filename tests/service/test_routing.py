"""From one configuration to the next without losing state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.testing import MemoryReactorClock

from comfyproxy.comfyui.prompt_router import PromptRouter
from comfyproxy.comfyui.router import ClientRouter, RequestRouter
from comfyproxy.core.balancing.backend import Lease
from comfyproxy.core.balancing.routing import Pin
from comfyproxy.core.balancing.selection.balance import Balance
from comfyproxy.core.balancing.selection.least_conn import LeastConn
from comfyproxy.core.balancing.stickiness import StickyRouter
from comfyproxy.core.config import Config, PoolConfig, RouteConfig
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.core.http.http1 import parse_request_head
from comfyproxy.service.daemon import ProxyService
from comfyproxy.service.routing import Routing
from comfyproxy.testing import MemoryNetwork


def config(routes: dict[str, str] | None = None, **pools: Any) -> Config:
    """Pools by name (servers, or a `PoolConfig`), and a route from each prefix, or all to the first."""
    configs = {
        name: pool if isinstance(pool, PoolConfig) else PoolConfig(name, parse_addresses(pool))
        for name, pool in pools.items()
    }
    routes = routes if routes is not None else {"/": next(iter(configs))}
    return Config(configs, tuple(RouteConfig(prefix, pool) for prefix, pool in routes.items()))


@pytest.fixture
def routing() -> Routing:
    return Routing(MemoryReactorClock())


def backends(routing: Routing, target: bytes = b"/") -> tuple[Any, ...]:
    route = routing.table.match(target)
    assert route is not None
    return route.balancer.pool.backends


def test_each_prefix_leads_to_its_pool(routing: Routing) -> None:
    routing.apply(config({"/": "a", "/llm": "b"}, a="http://a:1", b="http://b:1"))
    assert [backend.url for backend in backends(routing)] == ["http://a:1"]
    assert [backend.url for backend in backends(routing, b"/llm/chat")] == ["http://b:1"]


def test_servers_that_stay_keep_their_state(routing: Routing) -> None:
    routing.apply(config(main="http://a:1,http://b:1"))
    kept = backends(routing)[1]
    changes = routing.apply(config(main="http://b:1,http://c:1"))["main"]
    assert backends(routing)[0] is kept
    assert changes.summary() == "1 added, 1 removed, 0 altered, 2 servers now"


def test_a_pool_that_goes_drains(routing: Routing) -> None:
    routing.apply(config(a="http://a:1", b="http://b:1"))
    routing.apply(config({"/": "b"}, a="http://a:1", b="http://b:1"))
    (gone,) = backends(routing)
    lease = Lease(gone)
    routing.apply(config(a="http://a:1"))
    assert gone.removed
    lease.release()


def test_another_placement_is_another_pool(routing: Routing) -> None:
    addresses = parse_addresses("http://a:1")
    routing.apply(config(main=PoolConfig("main", addresses)))
    before = backends(routing)[0]
    routing.apply(config(main=PoolConfig("main", addresses, placement="request")))
    assert backends(routing)[0] is not before
    assert before.removed


@pytest.mark.parametrize(
    ("pool", "router", "keeps_host"),
    [
        (PoolConfig("main", ()), PromptRouter, False),
        (PoolConfig("main", (), placement="client"), ClientRouter, False),
        (PoolConfig("main", (), placement="request"), RequestRouter, False),
        (PoolConfig("main", (), app="http", placement="request"), type(None), True),
        (PoolConfig("main", (), app="http", placement="request", sticky="cookie"), StickyRouter, True),
    ],
)
def test_an_application_has_its_router(
    routing: Routing, pool: PoolConfig, router: type, keeps_host: bool
) -> None:
    routing.apply(config(main=pool))
    balancer = routing.balancer(pool)
    assert type(balancer.router) is router
    assert balancer.keep_host is keeps_host


def test_insecure_backends_are_not_verified(routing: Routing) -> None:
    addresses = parse_addresses("https://a")
    routing.apply(config(main=PoolConfig("main", addresses, insecure_backends=True)))
    assert not backends(routing)[0].verify


def test_pools_on_one_address_have_cookies_of_their_own(routing: Routing) -> None:
    pools = {name: PoolConfig(name, parse_addresses("http://a:1")) for name in ("default", "other")}
    routing.apply(config({"/": "default", "/x": "other"}, **pools))
    cookies = []
    for pool in pools.values():
        balancer = routing.balancer(pool)
        value = b"comfyproxy=1; comfyproxy-other=2"
        assert balancer.router is not None
        cookies.append(balancer.router.cookies(value))
    assert cookies == [b"comfyproxy-other=2", b"comfyproxy=1"]


def test_a_reload_changes_line_budget_and_retries(routing: Routing) -> None:
    addresses = parse_addresses("http://a:1")
    routing.apply(config(main=PoolConfig("main", addresses)))
    before = routing.table.match(b"/")
    pool = PoolConfig("main", addresses, max_queue=7, retry_budget=0.5)
    frontend = parse_addresses("http://localhost:5173")[0]
    routes = (
        RouteConfig("/", "main", retries=1, retry_on=("502", "timeout")),
        RouteConfig("/page", frontend=frontend, retries=0),
    )
    routing.apply(Config({"main": pool}, routes))
    route, page = routing.table.match(b"/"), routing.table.match(b"/page")
    assert before is not None
    assert route is not None
    assert page is not None
    assert route.balancer is before.balancer
    assert (route.balancer.waiting.limit, route.balancer.budget.share) == (7, 0.5)
    assert (before.retries, before.retry_on, before.retries_timeouts) == (10, frozenset(), False)
    assert (route.retries, route.retry_on, route.retries_timeouts) == (1, {502}, True)
    assert page.retries == 0


def test_a_frontend_is_addressed_by_its_own_name_and_kept_over_reloads(routing: Routing) -> None:
    (frontend,) = parse_addresses("http://localhost:5173")
    pool = PoolConfig("default", parse_addresses("http://a:1"))
    routes = (RouteConfig("/api", "default"), RouteConfig("/", frontend=frontend))
    routing.apply(Config({"default": pool}, routes))
    before = backends(routing)[0]
    route = routing.table.match(b"/")
    assert route is not None
    assert not route.balancer.keep_host
    routing.apply(Config({"default": pool}, routes))
    assert backends(routing)[0] is before


def test_a_directory_is_served_on_one_loopback_port_whatever_is_reloaded(tmp_path: Path) -> None:
    reactor = MemoryReactorClock()
    routing = Routing(reactor)
    pool = PoolConfig("default", parse_addresses("http://a:1"))
    site = Config({"default": pool}, (RouteConfig("/", static=str(tmp_path)),))
    routing.apply(site)
    routing.apply(site)
    assert [(server[0], server[3]) for server in reactor.tcpServers] == [(0, "127.0.0.1")]


def test_routes_to_one_frontend_share_what_is_known_of_it(routing: Routing) -> None:
    (frontend,) = parse_addresses("http://localhost:5173")
    pool = PoolConfig("default", parse_addresses("http://a:1"))
    routes = (RouteConfig("/", frontend=frontend), RouteConfig("/app", frontend=frontend))
    routing.apply(Config({"default": pool}, routes))
    assert backends(routing)[0] is backends(routing, b"/app")[0]
    gone = backends(routing)[0]
    routing.apply(Config({"default": pool}, (RouteConfig("/", "default"),)))
    assert gone.removed


def test_a_directory_that_is_no_longer_served_has_no_port(tmp_path: Path) -> None:
    network = MemoryNetwork()
    routing = Routing(network)
    pool = PoolConfig("default", parse_addresses("http://a:1"))
    routes = (RouteConfig("/", static=str(tmp_path)), RouteConfig("/two", static=str(tmp_path)))
    routing.apply(Config({"default": pool}, routes))
    assert len(network.ports) == 1
    gone = backends(routing)[0]
    routing.apply(Config({"default": pool}, (RouteConfig("/", "default"),)))
    assert (len(network.ports), gone.removed) == (0, True)
    routing.apply(Config({"default": pool}, routes))
    assert len(network.ports) == 1
    assert not backends(routing)[0].removed


def test_an_application_that_changes_is_another_pool(routing: Routing) -> None:
    addresses = parse_addresses("http://a:1")
    routing.apply(config(main=PoolConfig("main", addresses)))
    before = backends(routing)[0]
    routing.apply(config(main=PoolConfig("main", addresses, app="http", placement="request")))
    assert backends(routing)[0] is not before
    assert before.removed


def test_a_pool_that_only_changes_its_routes_is_the_same(routing: Routing) -> None:
    routing.apply(config({"/": "a", "/b": "b"}, a="http://a:1", b="http://b:1"))
    a, b = backends(routing)[0], backends(routing, b"/b")[0]
    changes = routing.apply(config({"/": "b", "/a": "a"}, b="http://b:1", a="http://a:1"))
    assert (backends(routing, b"/a")[0], backends(routing)[0]) == (a, b)
    assert all(not difference.added and not difference.removed for difference in changes.values())


@pytest_twisted.ensureDeferred
async def test_pools_and_routes_of_a_file_carry_requests_and_are_swapped_by_a_reload(
    servers: Any, start_service: Callable[..., ProxyService], get: Callable[..., Any], tmp_path: Path
) -> None:
    conf = tmp_path / "tap.conf"
    images = [servers.start(name) for name in ("image-1", "image-2")]
    text, page = servers.start("text"), servers.start("page")
    pools = f'''
        [pools.images]
        url = "{images[0]},{images[1]}"
        placement = "request"
        [pools.texts]
        url = "{text}"
        app = "http"
    '''
    route = '[[routes]]\nprefix = "%s"\n%s = "%s"\n'
    conf.write_text(
        pools
        + route % ("/api", "pool", "images")
        + route % ("/v1", "pool", "texts")
        + route % ("/", "frontend", page)
    )
    service = start_service()
    assert [await get(service, "/api/x") for _ in range(3)] == [
        b"image-1 /api/x",
        b"image-2 /api/x",
        b"image-1 /api/x",
    ]
    assert await get(service, "/v1/chat") == b"text /v1/chat"
    assert [await get(service, path) for path in ("/", "/apis")] == [b"page /", b"page /apis"]
    conf.write_text(pools + route % ("/v1", "pool", "images"))
    service.reload()
    # The pool goes on where it was.
    assert await get(service, "/v1/x") == b"image-2 /v1/x"
    assert b"No route" in await get(service, "/api/x")


def test_policy_changes_by_reload_and_servers_keep_their_state(routing: Routing) -> None:
    addresses = parse_addresses("http://a:1,http://b:1")
    routing.apply(config(main=PoolConfig("main", addresses)))
    before = backends(routing)
    routing.apply(config(main=PoolConfig("main", addresses, balance=Balance("least-conn"))))
    assert backends(routing) == before
    balancer = routing.table.match(b"/").balancer  # type: ignore[union-attr]
    assert isinstance(balancer.policy, LeastConn)
    routing.apply(config(main=PoolConfig("main", addresses, balance=Balance("hash", "uri"))))
    assert balancer.key_of is not None


def test_sticky_cookies_come_and_go_by_reload_and_servers_keep_their_state(routing: Routing) -> None:
    def apply(**more: Any) -> Any:
        routing.apply(config(llm=PoolConfig("llm", addresses, "http", "request", **more)))
        return routing.table.match(b"/").balancer  # type: ignore[union-attr]

    addresses = parse_addresses("http://a:1,http://b:1")
    assert apply().router is None
    before = backends(routing)
    router = apply(sticky="cookie", sticky_secret="secret").router
    assert backends(routing) == before
    head = parse_request_head(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    line = router.place(head, None, before[1], 0).answer_fields
    assert line.startswith(b"Set-Cookie: comfyproxy-llm=%b." % before[1].fingerprint.encode())
    asked = b"GET / HTTP/1.1\r\nHost: here\r\nCookie: %b\r\n\r\n" % line[12:].split(b";")[0]
    assert router.route(parse_request_head(asked), None, 0) == Pin(before[1])
    again = apply(sticky="cookie", sticky_secret="another").router
    assert again.route(parse_request_head(asked), None, 0) != Pin(before[1])
    assert apply().router is None
