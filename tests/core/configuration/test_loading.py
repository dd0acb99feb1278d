"""A configuration put together from settings: servers, checks, and what replaces what."""

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
from comfyproxy.core.configuration.options import TIMEOUT_OPTIONS
from comfyproxy.core.configuration.settings import CommandLine
from comfyproxy.errors import ConfigError
from tests.core.configuration.loaded import config, failure, loaded, urls


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
