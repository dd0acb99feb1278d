"""A configuration as ``comfyproxy check`` shows it, to people and to programs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from comfyproxy.core.config import Config, PoolConfig, RouteConfig
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.configuration.diagnostics import ConfigWarning
from comfyproxy.core.configuration.loading import Loaded
from comfyproxy.errors import ConfigError

_NUMBERS = {"#", "WEIGHT", "MAX CONNS"}


def report_lines(config: Config, *, colour: bool = False) -> Iterator[str]:
    """The configuration in lines to read: what listens, every server of every pool, and the routes."""
    for endpoint in config.listen:
        yield f"listening on {endpoint}"
    for pool in config.pools.values():
        yield ""
        yield from _pool_lines(pool, colour)
    if len(config.routes) > 1:
        yield ""
        yield _bold("routes", colour)
        yield from _table(
            ("PREFIX", "TO"), [(route.prefix, _target(route)) for route in config.routes], colour
        )


def _pool_lines(pool: PoolConfig, colour: bool) -> Iterator[str]:
    count = len(pool.addresses)
    servers = f"{count:,} server" if count == 1 else f"{count:,} servers"
    insecure = ", any certificate" if pool.insecure_backends else ""
    announced = f", PROXY {pool.send_proxy_protocol}" if pool.send_proxy_protocol != "none" else ""
    sticky = f", sticky by {'signed ' if pool.sticky_secret else ''}cookie" if pool.sticky == "cookie" else ""
    yield (
        _bold(f"pool {pool.name}", colour)
        + f": {servers}, {pool.app}, placed by {pool.placement}, balanced by {pool.balance}{sticky}{insecure}"
        + announced
    )
    columns = {
        "#": [str(index) for index in range(count)],
        "URL": [address.url for address in pool.addresses],
        "WEIGHT": [str(address.weight) for address in pool.addresses],
        "MAX CONNS": [str(address.max_conns or "") for address in pool.addresses],
        "BACKUP": ["yes" if address.backup else "" for address in pool.addresses],
        "NAME": [address.name for address in pool.addresses],
        "FROM": [address.origin for address in pool.addresses],
    }
    # Most lists have neither limits nor names.
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    yield from _table(tuple(shown), zip(*shown.values(), strict=True), colour)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], colour: bool) -> Iterator[str]:
    """Aligned columns. They cost microseconds a row, so that a pool of any size can be shown in full."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    cells = (
        f"{{:{'>' if heading in _NUMBERS else '<'}{width}}}"
        for heading, width in zip(headings, widths, strict=True)
    )
    layout = "  " + "  ".join(cells)
    yield _bold(layout.format(*headings).rstrip(), colour)
    for row in rows:
        yield layout.format(*row).rstrip()


def _bold(text: str, colour: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colour else text


def _target(route: RouteConfig) -> str:
    if route.frontend is not None:
        return f"frontend {route.frontend.url}"
    return f"static {route.static}" if route.static is not None else f"pool {route.pool}"


def report_object(loaded: Loaded) -> dict[str, Any]:
    """The configuration as an object for JSON; docs/reference/configuration.md says what is in it."""
    config = loaded.config
    return {
        "ok": True,
        "listen": list(config.listen),
        "tcp": config.tcp,
        "pools": [_pool_object(pool) for pool in config.pools.values()],
        "routes": [_route_object(route) for route in config.routes],
        "warnings": [_warning_object(warning) for warning in loaded.warnings],
    }


def error_object(error: ConfigError) -> dict[str, Any]:
    """The object that stands in place of that when the configuration does not load."""
    place = {"source": error.source, "line": error.line, "column": error.column}
    return {"ok": False, "error": {"message": error.message, **place}}


def _pool_object(pool: PoolConfig) -> dict[str, Any]:
    return {
        "name": pool.name,
        "app": pool.app,
        "placement": pool.placement,
        "balance": str(pool.balance),
        "sticky": pool.sticky,
        "probe": pool.health.probe,
        "insecure_backends": pool.insecure_backends,
        "send_proxy_protocol": pool.send_proxy_protocol,
        "servers": [_server_object(index, address) for index, address in enumerate(pool.addresses)],
    }


def _server_object(index: int, address: Address) -> dict[str, Any]:
    return {
        "index": index,
        "url": address.url,
        "weight": address.weight,
        "max_conns": address.max_conns,
        "backup": address.backup,
        "name": address.name,
        "from": address.origin,
    }


def _route_object(route: RouteConfig) -> dict[str, Any]:
    frontend = route.frontend.url if route.frontend else None
    return {"prefix": route.prefix, "pool": route.pool, "static": route.static, "frontend": frontend}


def _warning_object(warning: ConfigWarning) -> dict[str, Any]:
    place = warning.place
    return {"message": warning.message, "source": place.source, "line": place.line, "column": place.column}
