"""A configuration put together from settings: pools, routes, checks, and what replaces what."""

from collections.abc import Mapping
from typing import Any

import pytest

from comfyproxy.core.balancing.ratelimits import RateLimit
from comfyproxy.core.config import (
    BALANCED_PREFIXES,
    ComfyUIConfig,
    Config,
    HealthConfig,
    Limits,
    RouteConfig,
    Timeouts,
)
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.configuration.diagnostics import Place
from comfyproxy.core.configuration.loading import Loaded, load
from comfyproxy.core.configuration.options import TIMEOUT_OPTIONS
from comfyproxy.core.configuration.settings import CommandLine, command_line_layer
from comfyproxy.core.configuration.tapconf import TapConf, parse_tap_conf
from comfyproxy.errors import ConfigError


class Disk:
    """Files in memory, and the one directory /site/dist."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def read(self, path: str, named_by: Place | None) -> str:
        if path not in self._files:
            raise ConfigError(f"missing, named by {named_by}", path)
        return self._files[path]

    def is_directory(self, path: str) -> bool:
        return path == "/site/dist"

    def shown(self, path: str) -> str:
        return path.removeprefix("/site/")


FILES = {
    "/site/servers.txt": "http://a\nhttp://b weight=2\n",
    "/site/servers.JSON": '["http://c"]',
    "/site/empty.txt": "# nobody\n",
    "/etc/gpu.txt": "http://gpu[1-2]:8188\n",
}


def loaded(options: CommandLine, tap_conf: str = "") -> Loaded:
    conf = parse_tap_conf(tap_conf, "tap.conf", "/etc") if tap_conf else TapConf()
    return load([command_line_layer(options, "/site")], conf, Disk(FILES))


def config(options: CommandLine, tap_conf: str = "") -> Config:
    return loaded(options, tap_conf).config


def urls(config: Config, pool: str = "default") -> list[str]:
    return [address.url for address in config.pools[pool].addresses]


def failure(options: CommandLine, tap_conf: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(options, tap_conf)
    return str(caught.value)


class TestServers:
    def test_without_any_it_is_comfyui_on_this_machine(self) -> None:
        result = loaded({})
        assert urls(result.config) == ["http://127.0.0.1:8188"]
        assert result.config.pools["default"].addresses[0].origin == "default"
        assert result.config.routes == (RouteConfig("/", pool="default"),)
        assert result.config.listen == ("tcp:8080:interface=127.0.0.1",)
        assert result.warnings == ()

    def test_urls_come_before_files_whatever_their_order(self) -> None:
        options = {"file": ["servers.txt", "servers.JSON"], "url": ["http://x, http://y", "http://z"]}
        pool = config(options).pools["default"]
        assert [(address.url, address.origin) for address in pool.addresses] == [
            ("http://x:80", "--url"),
            ("http://y:80", "--url"),
            ("http://z:80", "--url"),
            ("http://a:80", "servers.txt:1"),
            ("http://b:80", "servers.txt:2"),
            ("http://c:80", "servers.JSON:1"),
        ]
        assert pool.addresses[4].weight == 2

    def test_doubles_between_sources_are_told(self) -> None:
        result = loaded({"url": ["http://b"], "file": ["servers.txt"]})
        assert urls(result.config) == ["http://b:80", "http://a:80"]
        assert [str(warning) for warning in result.warnings] == [
            "servers.txt:2:1: http://b:80 is named before, at --url; left out here"
        ]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"url": ["http://a, http://b:0"]}, "--url:20: the port 0 is not a number from 1 to 65535"),
            ({"url": [" , "]}, "--url: there is no server in it; write for example http://server1:8188"),
            ({"file": ["empty.txt"]}, "--file: there is no server in it; write for example http://server1:8188"),
            ({"file": ["gone.txt"]}, "/site/gone.txt: missing, named by --file"),
            (
                {"url": ["http://a[1-9]"], "max_servers": "8"},
                "--url:1: http://a[1-9] makes 9 servers in all, more than the 8 allowed;"
                " shorten the range or raise --max-servers",
            ),
        ],
    )  # fmt: skip
    def test_a_mistake_is_told_at_its_source(self, options: CommandLine, message: str) -> None:
        assert failure(options) == message

    def test_a_mistake_in_tap_conf_has_its_line(self) -> None:
        assert failure({}, 'debug = true\nurl = "http://a:0"') == (
            "tap.conf:2: the port 0 is not a number from 1 to 65535"
        )

    @pytest.mark.parametrize(
        ("options", "probe"),
        [
            ({}, "comfyui"),
            ({"app": "http"}, "none"),
            ({"tcp": True, "url": ["tcp://db1:5432"]}, "none"),
            ({"app": "http", "probe": "http:/health"}, "http:/health"),
            ({"probe": "none"}, "none"),
        ],
    )
    def test_servers_are_checked_as_the_application_needs_it(
        self, options: dict[str, Any], probe: str
    ) -> None:
        assert config(options).pools["default"].health == HealthConfig(probe=probe)

    def test_health_is_as_it_is_said_to_be(self) -> None:
        said = {"probe_status": "200,204", "probe_fall": "5", "eject_failures": "0", "panic_threshold": "50%"}
        assert config(said).pools["default"].health == HealthConfig(
            status=((200, 200), (204, 204)), fall=5, eject_failures=0, panic_threshold=0.5
        )

    def test_servers_that_behave_as_one_have_their_own_options(self) -> None:
        said = {"placement": "prompt", "requeue": True, "queue_status": "pool", "home": "http://gpu1:8188"}
        pool = config(said).pools["default"]
        assert pool.placement == "prompt"
        assert pool.comfyui == ComfyUIConfig(requeue=True, queue_status="pool", home="http://gpu1:8188")

    @pytest.mark.parametrize(
        "options", [{"app": "http", "url": ["http://a"]}, {"tcp": True, "url": ["tcp://a:1"]}]
    )
    def test_only_comfyui_has_prompts_to_place(self, options: CommandLine) -> None:
        with pytest.raises(ConfigError, match="prompt is for ComfyUI"):
            config({"placement": "prompt"} | options)

    def test_plain_connections_have_none(self) -> None:
        assert config({"tcp": True, "url": ["tcp://a:1"]}).pools["default"].placement == "request"


class TestPool:
    @pytest.mark.parametrize(
        ("options", "app", "placement"),
        [
            ({}, "comfyui", "prompt"),
            ({"placement": "client"}, "comfyui", "client"),
            ({"app": "http"}, "http", "request"),
            ({"placement": "request"}, "comfyui", "request"),
            ({"app": "http", "placement": "client"}, "http", "client"),
        ],
    )
    def test_placement_is_as_the_application_needs_it(
        self, options: CommandLine, app: str, placement: str
    ) -> None:
        pool = config(options).pools["default"]
        assert (pool.app, pool.placement) == (app, placement)

    def test_certificates_are_checked_unless_asked_not_to(self) -> None:
        assert not config({}).pools["default"].insecure_backends
        assert config({"insecure_backends": True}).pools["default"].insecure_backends


class TestPages:
    @pytest.mark.parametrize(
        ("options", "target"),
        [
            ({"static": "dist"}, RouteConfig("/", static="/site/dist")),
            ({"frontend": "http://vite:5173"}, RouteConfig("/", frontend=Address("http", "vite", 5173))),
        ],
    )
    def test_the_routes_of_the_guide_go_to_the_pool_and_the_rest_elsewhere(
        self, options: CommandLine, target: RouteConfig
    ) -> None:
        balanced = tuple(RouteConfig(prefix, pool="default") for prefix in BALANCED_PREFIXES)
        assert config(options).routes == (*balanced, target)

    def test_a_single_named_pool_takes_the_place_of_the_default_one(self) -> None:
        routes = config({"static": "dist"}, '[pools.gpu]\nfile = "gpu.txt"').routes
        assert {route.pool for route in routes} == {"gpu", None}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"static": "dist", "frontend": "http://a"},
                "--frontend: static and frontend exclude each other: both serve the pages",
            ),
            ({"static": "gone"}, "--static: gone is not a directory"),
            ({"frontend": "http://a:0"}, "--frontend: the port 0 is not a number from 1 to 65535"),
            (
                {"frontend": "http://a[1-2]"},
                "--frontend: http://a[1-2] is not the URL of one HTTP server, such as http://localhost:5173",
            ),
            (
                {"frontend": "tcp://a:1"},
                "--frontend: tcp://a:1 is not the URL of one HTTP server, such as http://localhost:5173",
            ),
        ],
    )
    def test_a_mistake_is_told(self, options: CommandLine, message: str) -> None:
        assert failure(options) == message


class TestTcp:
    def test_plain_connections_are_balanced(self) -> None:
        result = config({"tcp": True, "url": ["tcp://db[1-2]:5432"]})
        assert result.tcp
        assert urls(result) == ["tcp://db1:5432", "tcp://db2:5432"]

    def test_one_named_pool_will_do(self) -> None:
        assert urls(config({"tcp": True}, '[pools.db]\nurl = "tcp://db:1"'), "db") == ["tcp://db:1"]

    def test_off_is_off_wherever_it_is_said(self) -> None:
        assert not config({}, "tcp = false").tcp

    @pytest.mark.parametrize(
        ("options", "tap_conf", "message"),
        [
            ({"tcp": True}, "", "--tcp: tcp needs servers; give for example --url tcp://db1:5432"),
            (
                {"tcp": True, "url": ["db:1"]},
                "",
                "--url:1: db:1 is an HTTP server; write tcp:// for plain TCP, or leave out --tcp",
            ),
            (
                {"url": ["tcp://db:1"]},
                "",
                "--url:1: tcp://db:1 is for plain TCP; balance that with --tcp, or write http://",
            ),
            (
                {"tcp": True, "url": ["tcp://db:1"], "static": "dist"},
                "",
                "--static: static serves HTTP, and tcp balances plain TCP connections",
            ),
            (
                {"tcp": True, "url": ["tcp://db:1"], "frontend": "http://a"},
                "",
                "--frontend: frontend serves HTTP, and tcp balances plain TCP connections",
            ),
            (
                {},
                'tcp = true\nurl = "tcp://db:1"\n[[routes]]\nprefix = "/"\npool = "default"',
                "tap.conf:1: tcp balances one pool; several pools or [[routes]] need HTTP",
            ),
        ],
    )
    def test_what_needs_http_is_refused(self, options: CommandLine, tap_conf: str, message: str) -> None:
        assert failure(options, tap_conf) == message


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


LIMITS = (
    "max_head",
    "max_line",
    "max_fields",
    "max_body",
    "max_message",
    "max_connections",
    "max_connections_per_address",
    "max_requests",
    "min_rate",
    "max_servers",
)


def test_every_other_option_finds_its_field() -> None:
    result = config(
        {
            "listen": ["tcp:80", "tcp6:80"],
            "websocket": "relay",
            "plain_io": True,
            "request_id": "answers",
            "trusted_proxy": ["10.0.0.0/8"],
            "accept_proxy_protocol": True,
            "forwarding_headers": ["forwarded, x-real-ip"],
            "access_log": "json",
            "access_log_file": "access.log",
            "debug": True,
            **{option.key: f"{index}m" for index, option in enumerate(TIMEOUT_OPTIONS.values())},
            "drain_timeout": "7m",
            "resolve_interval": "8m",
            "name_server": ["10.0.0.53", "[::1]:8600"],
            **{key: f"{index}" for index, key in enumerate(LIMITS, 1)},
            "rate_limit": ["10/s", "off", "100/m,by=cookie:id"],
        }
    )
    assert result == Config(
        pools=result.pools,
        routes=result.routes,
        listen=("tcp:80", "tcp6:80"),
        websocket="relay",
        plain_io=True,
        request_ids="answers",
        trusted_proxies=("10.0.0.0/8",),
        accept_proxy_protocol=True,
        forwarding_headers=("forwarded", "x-real-ip"),
        access_log="json",
        access_log_file="/site/access.log",
        debug=True,
        drain_timeout=420,
        resolve_interval=480,
        name_servers=(("10.0.0.53", 53), ("::1", 8600)),
        timeouts=Timeouts(0, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600),
        rate_limits=(RateLimit(10, "s", 10), RateLimit(100, "m", 1, "cookie", "id")),
        limits=Limits(*range(1, len(LIMITS) + 1)),
    )


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ({}, ("x-forwarded", "x-real-ip")),
        ({"forwarding_headers": ["none"]}, ()),
        ({"forwarding_headers": ["x-forwarded;forwarded"]}, ("x-forwarded", "forwarded")),
    ],
)
def test_what_tells_servers_about_clients(given: CommandLine, kinds: tuple[str, ...]) -> None:
    assert config(given).forwarding_headers == kinds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"forwarding_headers": ["none,forwarded"]}, "--forwarding-headers: none stands alone"),
        ({"forwarding_headers": ["via"]}, "--forwarding-headers: 'via' is not one of"),
        (
            {"accept_proxy_protocol": True},
            "--accept-proxy-protocol: accept_proxy_protocol needs trusted_proxy, the networks",
        ),
        ({"request_header": ["set Via"]}, "--request-header: set Via needs a value"),
        ({"response_header": ["set Host: a"]}, "--response-header: Host can only be set"),
    ],
)
def test_what_cannot_be_of_headers_is_told(given: CommandLine, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(given)


def test_a_pool_says_whether_its_connections_begin_with_a_header() -> None:
    text = (
        "send_proxy_protocol = 'v2'\n"
        "[pools.a]\nurl = 'http://a'\nsend_proxy_protocol = 'v1'\n[pools.b]\nurl = 'http://b'\n"
        "[[routes]]\nprefix = '/a'\npool = 'a'\n[[routes]]\nprefix = '/'\npool = 'b'\n"
    )
    pools = config({}, text).pools
    assert {name: pool.send_proxy_protocol for name, pool in pools.items()} == {"a": "v1", "b": "v2"}


def test_rules_for_fields_are_those_of_the_route_else_of_all() -> None:
    text = (
        "request_headers = { set = { X-A = '1' } }\nresponse_header = 'remove Server'\n"
        "[[routes]]\nprefix = '/a'\npool = 'default'\nrequest_headers = { remove = ['X-B'] }\n"
        "[[routes]]\nprefix = '/b'\npool = 'default'\nresponse_headers = {}\n"
    )
    rules = [
        ([str(rule) for rule in route.request_headers], [str(rule) for rule in route.response_headers])
        for route in config({}, text).routes
    ]
    assert rules == [(["remove X-B"], ["remove Server"]), (["set X-A: 1"], [])]


def test_rules_on_the_command_line_are_for_everything() -> None:
    result = config({"request_header": ["set X-A: b, c; d", "remove X-B"], "static": "dist"})
    assert {tuple(map(str, route.request_headers)) for route in result.routes} == {
        ("set X-A: b, c; d", "remove X-B")
    }


@pytest.mark.parametrize(
    ("options", "tap_conf", "path"),
    [
        ({}, "", "-"),
        ({"access_log_file": "-"}, "", "-"),
        ({"access_log_file": "file:///var/log/a%20b"}, "", "/var/log/a b"),
        ({}, 'access_log_file = "access.log"', "/etc/access.log"),
    ],
)
def test_the_access_log_is_the_console_or_a_file(options: CommandLine, tap_conf: str, path: str) -> None:
    assert config(options, tap_conf).access_log_file == path


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
