"""What ``comfyproxy check`` shows."""

import pytest

from comfyproxy.core.balancing.selection.balance import Balance
from comfyproxy.core.config import Config, PoolConfig, RouteConfig
from comfyproxy.core.configuration.addresses import Address, parse_addresses
from comfyproxy.core.configuration.diagnostics import ConfigWarning, Place
from comfyproxy.core.configuration.loading import Loaded
from comfyproxy.errors import ConfigError
from comfyproxy.service.report import error_object, report_lines, report_object


def configured(*addresses: Address, routes: tuple[RouteConfig, ...] = ()) -> Config:
    pool = PoolConfig("default", addresses)
    return Config(pools={"default": pool}, routes=routes or (RouteConfig("/", pool="default"),))


def lines(config: Config) -> str:
    return "\n".join(report_lines(config))


def test_a_pool_is_a_table_with_the_columns_that_say_something() -> None:
    assert lines(configured(*parse_addresses("http://server[9-10]:8188", "servers.txt:1"))) == (
        "listening on tcp:8080:interface=127.0.0.1\n"
        "\n"
        "pool default: 2 servers, comfyui, placed by prompt, balanced by round-robin\n"
        "  #  URL                   WEIGHT  FROM\n"
        "  0  http://server9:8188        1  servers.txt:1\n"
        "  1  http://server10:8188       1  servers.txt:1"
    )


def test_limits_and_names_have_columns_where_there_are_some() -> None:
    addresses = parse_addresses("http://a max_conns=8, http://b weight=12 name=gpu-b")
    assert lines(configured(*addresses)).splitlines()[3:] == [
        "  #  URL          WEIGHT  MAX CONNS  NAME   FROM",
        "  0  http://a:80       1          8         --url",
        "  1  http://b:80      12             gpu-b  --url",
    ]


def test_backups_have_a_column_where_there_are_some() -> None:
    assert lines(configured(*parse_addresses("http://a, http://b backup=1"))).splitlines()[3:] == [
        "  #  URL          WEIGHT  BACKUP  FROM",
        "  0  http://a:80       1          --url",
        "  1  http://b:80       1  yes     --url",
    ]


@pytest.mark.parametrize(("secret", "told"), [("", "sticky by cookie"), ("hush", "sticky by signed cookie")])
def test_policy_and_stickiness_are_told_and_the_secret_is_not(secret: str, told: str) -> None:
    pool = PoolConfig(
        "llm",
        (Address("http", "a", 80),),
        "http",
        "request",
        balance=Balance("hash", "uri"),
        sticky="cookie",
        sticky_secret=secret,
    )
    config = Config(pools={"llm": pool}, routes=(RouteConfig("/", pool="llm"),))
    assert f"pool llm: 1 server, http, placed by request, balanced by hash:uri, {told}\n" in lines(config)
    shown = f"{report_object(Loaded(config, ()))} {lines(config)} {config!r}"
    assert "'balance': 'hash:uri', 'sticky': 'cookie'" in shown
    assert "hush" not in shown


def test_one_server_is_one_server() -> None:
    assert "pool default: 1 server, comfyui" in lines(configured(Address("http", "a", 80)))


def test_unchecked_certificates_are_told() -> None:
    pool = PoolConfig("gpu", (Address("https", "a", 443),), "http", "request", insecure_backends=True)
    text = lines(Config(pools={"gpu": pool}, routes=(RouteConfig("/", pool="gpu"),)))
    assert "pool gpu: 1 server, http, placed by request, balanced by round-robin, any certificate" in text


def test_that_connections_are_announced_is_told() -> None:
    pool = PoolConfig("gpu", (Address("http", "a", 80),), send_proxy_protocol="v2")
    text = lines(Config(pools={"gpu": pool}, routes=(RouteConfig("/", pool="gpu"),)))
    assert ", balanced by round-robin, PROXY v2\n" in text


def test_routes_are_shown_when_there_are_several() -> None:
    routes = (
        RouteConfig("/api", pool="default"),
        RouteConfig("/ui", static="/srv/dist"),
        RouteConfig("/", frontend=Address("http", "localhost", 5173)),
    )
    assert lines(configured(Address("http", "a", 80), routes=routes)).splitlines()[-5:] == [
        "routes",
        "  PREFIX  TO",
        "  /api    pool default",
        "  /ui     static /srv/dist",
        "  /       frontend http://localhost:5173",
    ]


def test_a_long_pool_is_shown_in_full() -> None:
    text = lines(configured(*parse_addresses("http://a[1-2000]")))
    assert "pool default: 2,000 servers" in text
    assert sum(line.split()[1].startswith("http://") for line in text.splitlines()[4:]) == 2000


def test_headings_stand_out_in_colour_and_nothing_else_changes() -> None:
    config = configured(Address("http", "a", 80))
    coloured = list(report_lines(config, colour=True))
    assert coloured[2].startswith("\x1b[1mpool default\x1b[0m: 1 server")
    assert coloured[3].startswith("\x1b[1m  #  URL")
    assert [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in coloured] == list(
        report_lines(config)
    )


def test_the_object_has_all_of_it() -> None:
    address = Address("http", "a", 80, weight=2, max_conns=8, name="gpu-a", origin="servers.txt:3")
    warning = ConfigWarning(Place("servers.txt", 4, 1), "this is odd")
    assert report_object(Loaded(configured(address), (warning,))) == {
        "ok": True,
        "listen": ["tcp:8080:interface=127.0.0.1"],
        "tcp": False,
        "pools": [
            {
                "name": "default",
                "app": "comfyui",
                "placement": "prompt",
                "balance": "round-robin",
                "sticky": "none",
                "probe": "comfyui",
                "insecure_backends": False,
                "send_proxy_protocol": "none",
                "servers": [
                    {
                        "index": 0,
                        "url": "http://a:80",
                        "weight": 2,
                        "max_conns": 8,
                        "backup": False,
                        "name": "gpu-a",
                        "from": "servers.txt:3",
                    }
                ],
            }
        ],
        "routes": [{"prefix": "/", "pool": "default", "static": None, "frontend": None}],
        "warnings": [{"message": "this is odd", "source": "servers.txt", "line": 4, "column": 1}],
    }


def test_a_frontend_is_its_url_there() -> None:
    route = RouteConfig("/", frontend=Address("http", "vite", 5173))
    loaded = Loaded(configured(Address("http", "a", 80), routes=(route,)), ())
    assert report_object(loaded)["routes"][0]["frontend"] == "http://vite:5173"


def test_an_error_has_its_place_apart() -> None:
    assert error_object(ConfigError("this is wrong", "servers.txt", 3, 7)) == {
        "ok": False,
        "error": {"message": "this is wrong", "source": "servers.txt", "line": 3, "column": 7},
    }
