"""A configuration of several pools and routes, and how each is balanced."""

from typing import Any

import pytest

from comfyproxy.core.balancing.ratelimits import RateLimit
from comfyproxy.core.config import RouteConfig, Timeouts
from comfyproxy.core.configuration.settings import CommandLine
from tests.core.configuration.loaded import config, failure, loaded, urls

TWO_POOLS = """
response_timeout = "10m"
[pools.gpu]
file = "gpu.txt"
[pools.llm]
url = "http://llm:8000"
app = "http"
insecure_backends = true
max_queue = 0
retry_budget = 100
[[routes]]
prefix = "/v1"
pool = "llm"
timeouts = { response = "2h" }
retries = 1
retry_on = ["503", "timeout"]
[[routes]]
prefix = "/"
pool = "gpu"
"""


class TestPoolsAndRoutes:
    def test_each_pool_has_its_own_servers_and_options(self) -> None:
        result = config({}, TWO_POOLS)
        assert (urls(result, "gpu"), urls(result, "llm")) == (
            ["http://gpu1:8188", "http://gpu2:8188"],
            ["http://llm:8000"],
        )
        gpu, llm = result.pools["gpu"], result.pools["llm"]
        assert (gpu.name, gpu.app, gpu.placement, gpu.insecure_backends) == (
            "gpu",
            "comfyui",
            "prompt",
            False,
        )
        assert (llm.name, llm.app, llm.placement, llm.insecure_backends) == ("llm", "http", "request", True)
        assert (gpu.max_queue, gpu.retry_budget, llm.max_queue, llm.retry_budget) == (1024, 0.2, 0, 1.0)

    def test_routes_keep_their_order_and_have_timeouts_and_retries_of_their_own(self) -> None:
        general = Timeouts(response=600)
        assert config({}, TWO_POOLS).timeouts == general
        assert config({}, TWO_POOLS).routes == (
            RouteConfig(
                "/v1",
                pool="llm",
                timeouts=Timeouts(response=7200),
                retries=1,
                retry_on=("503", "timeout"),
            ),
            RouteConfig("/", pool="gpu", timeouts=general),
        )

    def test_what_a_pool_or_a_route_says_of_itself_goes_before_the_command_line(self) -> None:
        result = config({"app": "comfyui", "placement": "request", "response_timeout": "1s"}, TWO_POOLS)
        assert [(pool.app, pool.placement) for pool in result.pools.values()] == [
            ("comfyui", "request"),
            ("http", "request"),
        ]
        assert [route.timeouts.response for route in result.routes] == [7200, 1]

    @pytest.mark.parametrize("options", [{"url": ["http://x"]}, {"file": ["servers.txt"]}])
    def test_servers_on_the_command_line_replace_pools_and_routes(self, options: CommandLine) -> None:
        result = loaded(options, TWO_POOLS)
        assert list(result.config.pools) == ["default"]
        assert [route.prefix for route in result.config.routes] == ["/"]
        assert result.config.timeouts.response == 600
        (warning,) = result.warnings
        assert str(warning) == f"--{next(iter(options))}: this replaces the pools and routes of tap.conf"

    def test_a_route_may_lead_to_pages(self) -> None:
        tap_conf = '[[routes]]\nprefix = "/ui"\nstatic = "/site/dist"\n'
        assert config({}, tap_conf).routes == (RouteConfig("/ui", static="/site/dist"),)

    def test_pages_of_the_command_line_do_not_know_their_place_among_routes(self) -> None:
        assert failure({"static": "dist"}, TWO_POOLS) == (
            "--static: tap.conf has [[routes]]; put static into one of them"
        )

    def test_a_pool_that_no_route_leads_to_is_told(self) -> None:
        tap_conf = TWO_POOLS + '[pools.spare]\nurl = "http://spare"\n'
        (warning,) = loaded({}, tap_conf).warnings
        assert str(warning) == "tap.conf:20: no route leads to the pool spare"

    def test_a_route_has_limits_of_its_own_or_those_of_all(self) -> None:
        own = 'max_body = "1M"\nmin_rate = 0\nrate_limit = "5/s"\n'
        result = config({"max_body": "1K", "rate_limit": ["1/s"]}, TWO_POOLS + own)
        assert (result.limits.body, result.rate_limits) == (1024, (RateLimit(1, "s", 1),))
        first, *_, last = [(route.max_body, route.min_rate, route.rate_limits) for route in result.routes]
        assert first == (1024, 100, (RateLimit(1, "s", 1),))
        assert last == (1 << 20, 0, (RateLimit(5, "s", 5),))

    def test_a_route_can_be_without_rate_limits(self) -> None:
        result = config({"rate_limit": ["1/s"]}, TWO_POOLS + 'rate_limit = "off"\n')
        assert result.routes[-1].rate_limits == ()

    def test_a_timeout_that_counts_before_the_route_is_known_is_told(self) -> None:
        (warning,) = loaded({}, TWO_POOLS + "timeouts = { head = 1 }\n").warnings
        assert str(warning).startswith("tap.conf:20: head has no effect here")


class TestBalancing:
    def test_round_robin_without_cookies_is_the_default(self) -> None:
        pool = config({"url": ["http://a"]}).pools["default"]
        assert (str(pool.balance), pool.sticky, pool.sticky_secret) == ("round-robin", "none", "")

    def test_each_pool_has_its_own_or_that_of_all(self) -> None:
        pools = config({"balance": "least-conn"}, HASHED).pools
        assert {name: str(pool.balance) for name, pool in pools.items()} == {
            "gpu": "least-conn",
            "llm": "hash:header=X-User",
        }

    def test_sticky_cookies_are_for_plain_http(self) -> None:
        result = loaded({"sticky": "cookie", "sticky_secret": "hush"}, HASHED)
        assert {name: pool.sticky for name, pool in result.config.pools.items()} == {
            "gpu": "none",
            "llm": "cookie",
        }
        assert result.config.pools["llm"].sticky_secret == "hush"
        assert result.warnings == ()

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"url": ["http://a"]}, "is for plain HTTP services (app = http); clients of ComfyUI stay"),
            ({"url": ["tcp://a:1"], "tcp": True, "app": "http"}, "needs HTTP, and tcp balances plain TCP"),
        ],
    )
    def test_sticky_cookies_that_nobody_gets_are_told(self, options: CommandLine, told: str) -> None:
        result = loaded({"sticky": "cookie", **options})
        assert result.config.pools["default"].sticky == "none"
        (warning,) = result.warnings
        assert str(warning).startswith(f"--sticky: sticky {told}")

    def test_pool_that_wants_them_and_cannot_is_told(self) -> None:
        (warning,) = loaded({}, '[pools.gpu]\nurl = "http://a"\nsticky = "cookie"\n' + ROUTE_TO_GPU).warnings
        assert str(warning).startswith("tap.conf:3: sticky is for plain HTTP")

    @pytest.mark.parametrize("balance", ["hash:uri", "hash:cookie=a"])
    def test_policies_that_look_at_requests_need_http(self, balance: str) -> None:
        options: dict[str, Any] = {"tcp": True, "url": ["tcp://a:1"], "balance": balance}
        assert failure(options) == (
            f"--balance: {balance} looks at requests, and tcp balances plain TCP connections"
        )
        assert str(config({**options, "balance": "ip-hash"}).pools["default"].balance) == "ip-hash"


ROUTE_TO_GPU = '[[routes]]\nprefix = "/"\npool = "gpu"\n'
HASHED = f"""
[pools.gpu]
url = "http://a"
[pools.llm]
url = "http://b"
app = "http"
balance = "hash:header=X-User"
{ROUTE_TO_GPU}
[[routes]]
prefix = "/v1"
pool = "llm"
"""
