"""From settings to a `Config`: reads the servers, builds pools and routes, checks that all fits together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from comfyproxy.core.balancing.ratelimits import RateLimit
from comfyproxy.core.balancing.selection.balance import Balance
from comfyproxy.core.config import (
    BALANCED_PREFIXES,
    DEFAULT_PLACEMENTS,
    DEFAULT_POOL,
    DEFAULT_PROBES,
    DEFAULT_URL,
    App,
    ComfyUIConfig,
    Config,
    HealthConfig,
    Limits,
    Placement,
    PoolConfig,
    RouteConfig,
    Timeouts,
)
from comfyproxy.core.configuration.addresses import Address, Parsed, ServerList
from comfyproxy.core.configuration.comfyui_options import COMFYUI_OPTIONS
from comfyproxy.core.configuration.diagnostics import ConfigWarning, Place
from comfyproxy.core.configuration.health_options import HEALTH_OPTIONS
from comfyproxy.core.configuration.options import LIMIT_OPTIONS, TIMEOUT_OPTIONS
from comfyproxy.core.configuration.settings import Given, Layer, Settings
from comfyproxy.core.configuration.tapconf import TapConf
from comfyproxy.core.configuration.urls import parse_url


class Files(Protocol):
    """The disk, as far as a configuration needs it."""

    def read(self, path: str, named_by: Place | None) -> str:
        """The text of a file; raises ConfigError with the reason if it cannot be read."""

    def is_directory(self, path: str) -> bool:
        """Is there a directory?"""

    def shown(self, path: str) -> str:
        """The path as people are shown it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and what was odd about its sources."""

    config: Config
    warnings: tuple[ConfigWarning, ...]


def load(layers: Sequence[Layer], tap_conf: TapConf, files: Files) -> Loaded:
    """Put together what the sources say: the layers, the strongest first, and below them ``tap_conf``.

    Raises ConfigError at the first thing that cannot be.
    """
    warnings: list[ConfigWarning] = []
    settings = Settings((*layers, tap_conf.options))
    tap_conf = _unless_replaced(tap_conf, Settings(layers), warnings)
    _check_tcp(settings, tap_conf)
    _check_trust(settings)
    pools = _pools(settings, tap_conf, files, warnings)
    config = Config(
        pools=pools,
        routes=_routes(settings, tap_conf, tuple(pools), files),
        listen=settings.value("listen"),
        tcp=settings.value("tcp"),
        websocket=settings.value("websocket"),
        trusted_proxies=settings.value("trusted_proxy"),
        accept_proxy_protocol=settings.value("accept_proxy_protocol"),
        forwarding_headers=_forwarding_headers(settings),
        access_log=settings.value("access_log"),
        access_log_file=_access_log_file(settings),
        debug=settings.value("debug"),
        plain_io=settings.value("plain_io"),
        request_ids=settings.value("request_id"),
        drain_timeout=settings.value("drain_timeout"),
        resolve_interval=settings.value("resolve_interval"),
        name_servers=settings.value("name_server"),
        rate_limits=_rate_limits(settings),
        timeouts=_timeouts(settings),
        limits=_limits(settings),
    )
    warnings += _never_sticky(settings, tap_conf, config)
    return Loaded(config, (*warnings, *_without_effect(tap_conf), *_unused_pools(tap_conf, config)))


def _unless_replaced(tap_conf: TapConf, stronger: Settings, warnings: list[ConfigWarning]) -> TapConf:
    """Leave out pools and routes when a stronger source names servers: that describes the one-pool case."""
    servers = stronger.given("url") or stronger.given("file")
    if servers is None or not (tap_conf.pools or tap_conf.routes):
        return tap_conf
    warnings.append(ConfigWarning(servers.place, f"this replaces the pools and routes of {tap_conf.source}"))
    return TapConf(tap_conf.source, tap_conf.options)


def _check_tcp(settings: Settings, tap_conf: TapConf) -> None:
    """Plain TCP has no paths to route by."""
    given = settings.given("tcp")
    if given is None or not settings.value("tcp"):
        return
    for other in filter(None, map(settings.given, ("static", "frontend"))):
        raise other.place.error(f"{other.option.name} serves HTTP, and tcp balances plain TCP connections")
    if tap_conf.routes or len(tap_conf.pools) > 1:
        raise given.place.error("tcp balances one pool; several pools or [[routes]] need HTTP")
    if not tap_conf.pools and not (settings.given("url") or settings.given("file")):
        raise given.place.error("tcp needs servers; give for example --url tcp://db1:5432")


def _check_trust(settings: Settings) -> None:
    given = settings.given("accept_proxy_protocol")
    if given is not None and settings.value("accept_proxy_protocol") and not settings.value("trusted_proxy"):
        raise given.place.error(
            f"{given.option.key} needs trusted_proxy, the networks of the proxies that send it"
        )


def _forwarding_headers(settings: Settings) -> tuple[str, ...]:
    kinds: tuple[str, ...] = settings.value("forwarding_headers")
    given = settings.given("forwarding_headers")
    if given is not None and "none" in kinds and len(kinds) > 1:
        raise given.place.error("none stands alone: it means that nothing is sent")
    return () if "none" in kinds else kinds


def _pools(
    settings: Settings, tap_conf: TapConf, files: Files, warnings: list[ConfigWarning]
) -> dict[str, PoolConfig]:
    if not tap_conf.pools:
        return {DEFAULT_POOL: _pool(DEFAULT_POOL, settings, files, warnings)}
    return {
        name: _pool(name, settings.below(table.options), files, warnings)
        for name, table in tap_conf.pools.items()
    }


def _pool(name: str, settings: Settings, files: Files, warnings: list[ConfigWarning]) -> PoolConfig:
    servers = _servers(settings, files)
    warnings += servers.warnings
    app = settings.value("app")
    return PoolConfig(
        name=name,
        addresses=servers.addresses,
        app=app,
        placement=_placement(settings, app),
        insecure_backends=settings.value("insecure_backends"),
        balance=_balance(settings),
        sticky=settings.value("sticky") if app == "http" and not settings.value("tcp") else "none",
        sticky_secret=settings.value("sticky_secret") or "",
        health=_health(settings, DEFAULT_PROBES[app]),
        comfyui=_comfyui(settings),
        send_proxy_protocol=settings.value("send_proxy_protocol"),
        max_queue=settings.value("max_queue"),
        retry_budget=settings.value("retry_budget"),
    )


def _placement(settings: Settings, app: App) -> Placement:
    given, placement = settings.given("placement"), settings.value("placement")
    is_tcp = settings.value("tcp")
    if given is not None and placement == "prompt" and (app != "comfyui" or is_tcp):
        raise given.place.error("prompt is for ComfyUI (app = comfyui); other services know no prompts")
    return placement or ("request" if is_tcp else DEFAULT_PLACEMENTS[app])


def _balance(settings: Settings) -> Balance:
    balance: Balance = settings.value("balance")
    given = settings.given("balance")
    if given is not None and balance.needs_http and settings.value("tcp"):
        raise given.place.error(f"{balance} looks at requests, and tcp balances plain TCP connections")
    return balance


def _health(settings: Settings, probe: str) -> HealthConfig:
    values = {option.key.removeprefix("probe_"): settings.value(option.key) for option in HEALTH_OPTIONS}
    values["probe"] = values["probe"] or ("none" if settings.value("tcp") else probe)
    return HealthConfig(**values)


def _comfyui(settings: Settings) -> ComfyUIConfig:
    values = {option.key: settings.value(option.key) for option in COMFYUI_OPTIONS}
    return ComfyUIConfig(**{name: value for name, value in values.items() if value is not None})


def _servers(settings: Settings, files: Files) -> Parsed:
    """The servers of one pool: those of its URLs, then those of its files."""
    url, file = settings.given("url"), settings.given("file")
    servers = ServerList(settings.value("max_servers"), tcp=settings.value("tcp"))
    if url is None and file is None:
        servers.add_text(DEFAULT_URL, Place("default"))
    if url:
        # A place without a line is an option or a variable, whose text begins at the first column.
        place = url.place if url.place.line else Place(url.place.source, column=1)
        for text in url.texts:
            servers.add_text(text, place)
    if file:
        for path in file.paths():
            add = servers.add_json_file if path.lower().endswith(".json") else servers.add_text_file
            add(files.read(path, file.place), files.shown(path))
    parsed = servers.parsed()
    if not parsed.addresses and (given := file or url):
        raise given.place.error("there is no server in it; write for example http://server1:8188")
    return parsed


def _routes(
    settings: Settings, tap_conf: TapConf, pools: Sequence[str], files: Files
) -> tuple[RouteConfig, ...]:
    static, frontend = settings.given("static"), settings.given("frontend")
    page = static or frontend
    if static and frontend:
        raise frontend.place.error("static and frontend exclude each other: both serve the pages")
    if page and tap_conf.routes:
        raise page.place.error(f"{tap_conf.source} has [[routes]]; put {page.option.key} into one of them")
    if tap_conf.routes:
        return tuple(
            _route(route.prefix, route.pool, settings.below(route.options), files)
            for route in tap_conf.routes
        )
    if page is None:
        return (_route("/", pools[0], settings, files),)
    balanced = (RouteConfig(prefix, pool=pools[0], **_of_route(settings)) for prefix in BALANCED_PREFIXES)
    return (*balanced, _route("/", None, settings, files))


def _route(prefix: str, pool: str | None, settings: Settings, files: Files) -> RouteConfig:
    static, frontend = settings.given("static"), settings.given("frontend")
    return RouteConfig(
        prefix,
        pool=pool,
        static=_directory(static, files) if static else None,
        frontend=_server(frontend) if frontend else None,
        **_of_route(settings),
    )


def _of_route(settings: Settings) -> dict[str, Any]:
    """What a route has wherever it leads."""
    return {
        "timeouts": _timeouts(settings),
        "retries": settings.value("retries"),
        "retry_on": settings.value("retry_on"),
        "max_body": settings.value("max_body"),
        "min_rate": settings.value("min_rate"),
        "rate_limits": _rate_limits(settings),
        "request_headers": settings.value("request_header"),
        "response_headers": settings.value("response_header"),
    }


def _directory(given: Given, files: Files) -> str:
    (path,) = given.paths()
    if not files.is_directory(path):
        raise given.place.error(f"{files.shown(path)} is not a directory")
    return path


def _server(given: Given) -> Address:
    """The one HTTP server that a URL names."""
    (text,) = given.values()
    pattern = parse_url(text, given.place)
    if pattern.size != 1 or pattern.scheme == "tcp":
        raise given.place.error(f"{text} is not the URL of one HTTP server, such as http://localhost:5173")
    ((scheme, host, port),) = pattern.expand()
    return Address(scheme, host, port, origin=given.place.origin)


def _access_log_file(settings: Settings) -> str:
    given = settings.given("access_log_file")
    if given is None or given.texts == ("-",):
        return "-"
    return given.paths()[0]


def _timeouts(settings: Settings) -> Timeouts:
    return Timeouts(**{name: settings.value(option.key) for name, option in TIMEOUT_OPTIONS.items()})


def _limits(settings: Settings) -> Limits:
    return Limits(**{name: settings.value(option.key) for name, option in LIMIT_OPTIONS.items()})


def _rate_limits(settings: Settings) -> tuple[RateLimit, ...]:
    return tuple(limit for limit in settings.value("rate_limit") if limit is not None)


def _never_sticky(settings: Settings, tap_conf: TapConf, config: Config) -> list[ConfigWarning]:
    """Sticky cookies that no pool has, though they are asked for."""
    asked = [settings, *(settings.below(table.options) for table in tap_conf.pools.values())]
    given = [one.given("sticky") for one in asked if one.value("sticky") != "none"]
    if not given or given[0] is None or any(pool.sticky != "none" for pool in config.pools.values()):
        return []
    told = "is for plain HTTP services (app = http); clients of ComfyUI stay with their servers anyway"
    if config.tcp:
        told = "needs HTTP, and tcp balances plain TCP connections; ip-hash keeps a client with its server"
    return [ConfigWarning(given[0].place, f"sticky {told}")]


def _without_effect(tap_conf: TapConf) -> list[ConfigWarning]:
    given = (route.options.get("head_timeout") for route in tap_conf.routes)
    message = "head has no effect here: whose a request is, shows only when its head is there"
    return [ConfigWarning(head.place, message) for head in given if head is not None]


def _unused_pools(tap_conf: TapConf, config: Config) -> list[ConfigWarning]:
    used = {route.pool for route in config.routes}
    return [
        ConfigWarning(table.place, f"no route leads to the pool {name}")
        for name, table in tap_conf.pools.items()
        if name not in used
    ]
