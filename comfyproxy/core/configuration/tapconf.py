"""``tap.conf``: TOML whose keys are the options, with tables for several pools and for routes.

::

    placement = "client"

    [pools.gpu]
    file = "gpu.txt"

    [[routes]]
    prefix = "/"
    pool = "gpu"
    timeouts = { response = "2h" }
    response_headers = { set = { X-Frame-Options = "DENY" }, remove = ["Server"] }
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyproxy.core.config import DEFAULT_POOL
from comfyproxy.core.configuration.diagnostics import Place, did_you_mean
from comfyproxy.core.configuration.kinds import FLAG
from comfyproxy.core.configuration.option import Option
from comfyproxy.core.configuration.options import OPTION, OPTIONS, TIMEOUT_OPTIONS
from comfyproxy.core.configuration.settings import Given, Layer, give
from comfyproxy.core.configuration.tomllines import Path, statement_lines
from comfyproxy.core.http.headerrules import ACTIONS, HeaderRule
from comfyproxy.errors import ConfigError

_POOL_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PREFIX = re.compile(r"/[^\s?#]*")
_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)")
_TYPES = {bool: "boolean", list: "array", dict: "table"}
_BYTE_ORDER_MARK = "\ufeff"

_TOP_LEVEL = {option.key: option for option in OPTIONS if option.in_tap_conf}
_OF_POOLS = {option.key: option for option in OPTIONS if option.for_pools}
_PAGES = {option.key: option for option in OPTIONS if option.group == "pages"}
_RULES = {f"{key}s": OPTION[key] for key in ("request_header", "response_header")}
_OF_ROUTES = _PAGES | {option.key: option for option in OPTIONS if option.for_routes}


@dataclass(frozen=True, slots=True)
class PoolTable:
    """One of ``[pools]``: the options it sets for itself, its servers among them."""

    place: Place
    options: Layer


@dataclass(frozen=True, slots=True)
class RouteTable:
    """One of ``[[routes]]``: leads to a pool, or to ``static`` or ``frontend`` in ``options``.

    What it sets for itself is there too, timeouts under the keys of their options.
    """

    place: Place
    prefix: str
    pool: str | None
    options: Layer


@dataclass(frozen=True, slots=True)
class TapConf:
    """What a ``tap.conf`` says. Every pool that a route names is there."""

    source: str = "tap.conf"
    options: Layer = field(default_factory=dict)
    pools: Mapping[str, PoolTable] = field(default_factory=dict)
    routes: tuple[RouteTable, ...] = ()


def parse_tap_conf(text: str, source: str, directory: str) -> TapConf:
    """Read the content of a ``tap.conf``; relative paths in it start at ``directory``. Raises ConfigError."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise _syntax_error(str(error), text, source) from None
    return _Reader(text, source, directory).document(document)


class _Reader:
    """Reads the tables of one document, and knows where everything stands in it."""

    def __init__(self, text: str, source: str, directory: str) -> None:
        self._source = source
        self._directory = directory
        self._lines = statement_lines(text)

    def document(self, document: dict[str, Any]) -> TapConf:
        options = {key: value for key, value in document.items() if key not in ("pools", "routes")}
        layer = self._layer(options, (), _TOP_LEVEL, "pools", "routes")
        pools = self._pools(document.get("pools", {}), layer)
        routes = self._routes(document.get("routes", []), pools)
        if len(pools) > 1 and not routes:
            _, last = pools.popitem()
            raise last.place.error("several pools need [[routes]] that say what goes to which")
        return TapConf(self._source, layer, pools, routes)

    def _pools(self, content: object, top_level: Layer) -> dict[str, PoolTable]:
        table = self._table(content, ("pools",))
        for key in ("url", "file"):
            if table and key in top_level:
                raise top_level[key].place.error(f"{key} stands beside [pools]; put it into one of them")
        return {name: self._pool(name, content) for name, content in table.items()}

    def _pool(self, name: str, content: object) -> PoolTable:
        path = ("pools", name)
        place = self._place(*path)
        if not _POOL_NAME.fullmatch(name):
            raise place.error(f"{name!r} cannot name a pool; use up to 64 letters, digits, dots, - and _")
        layer = self._layer(self._table(content, path), path, _OF_POOLS)
        if "url" not in layer and "file" not in layer:
            raise place.error(f"the pool {name} has no servers; give it url or file")
        return PoolTable(place, layer)

    def _routes(self, content: object, pools: Mapping[str, PoolTable]) -> tuple[RouteTable, ...]:
        if not isinstance(content, list):
            raise self._place("routes").error("routes is an array of tables; begin each with [[routes]]")
        routes: dict[str, RouteTable] = {}
        for index, table in enumerate(content):
            route = self._route(index, table)
            if first := routes.get(route.prefix):
                raise route.place.error(f"{route.prefix} has a route before, at {first.place}")
            if route.pool is not None and route.pool not in (pools or (DEFAULT_POOL,)):
                known = did_you_mean(route.pool, pools or (DEFAULT_POOL,))
                raise self._place("routes", index, "pool").error(f"there is no pool {route.pool}{known}")
            routes[route.prefix] = route
        return tuple(routes.values())

    def _route(self, index: int, content: object) -> RouteTable:
        path = ("routes", index)
        place = self._place(*path)
        table = dict(self._table(content, path))
        prefix, pool = table.pop("prefix", None), table.pop("pool", None)
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise self._place(*path, "prefix").error(
                'a route needs a prefix that begins with /, such as "/api"'
            )
        timeouts_path = (*path, "timeouts")
        timeouts = self._table(table.pop("timeouts", {}), timeouts_path)
        options = self._layer(table, path, _OF_ROUTES, "prefix", "pool", "timeouts")
        if len(options.keys() & _PAGES) + (pool is not None) != 1:
            raise place.error(f"the route {prefix} leads to exactly one of pool, static and frontend")
        if pool is not None and not isinstance(pool, str):
            raise self._place(*path, "pool").error("pool takes the name of one of [pools]")
        options = {**options, **self._layer(timeouts, timeouts_path, TIMEOUT_OPTIONS)}
        return RouteTable(place, prefix.rstrip("/") or "/", pool, options)

    def _layer(
        self, table: Mapping[str, Any], path: Path, known: Mapping[str, Option], *others: str
    ) -> dict[str, Given]:
        """The options in a table; a key that is neither one of them nor of ``others`` is an error."""
        layer = {}
        for key, value in table.items():
            place = self._place(*path, key)
            if key in _RULES and (option := _RULES[key]).key in known:
                if option.key in table:
                    raise place.error(f"{key} and {option.key} exclude each other: they say the same")
                layer[option.key] = self._rules(option, value, (*path, key))
                continue
            if key not in known:
                raise place.error(f"{key} is not known here{did_you_mean(key, (*known, *others))}")
            if value != []:
                texts = _texts(known[key], value, place)
                layer[known[key].key] = give(known[key], texts, place, self._directory)
        return layer

    def _rules(self, option: Option, content: object, path: Path) -> Given:
        """Rules for header fields, as a table: ``{ set = {...}, add = {...}, remove = [...] }``."""
        table = self._table(content, path)
        texts = []
        for action, rules in table.items():
            place = self._place(*path, action)
            if action not in ACTIONS:
                raise place.error(f"{action} is not known here{did_you_mean(action, ACTIONS)}")
            if action == "remove":
                rules = dict.fromkeys(map(str, rules), "") if isinstance(rules, list) else None
            if not isinstance(rules, dict):
                shape = '["NAME"]' if action == "remove" else '{ NAME = "VALUE" }'
                raise place.error(f"{action} is written as {action} = {shape}")
            for name, values in rules.items():
                if ":" in name:
                    raise place.error(f"{name!r} cannot name a header field")
                texts += [str(HeaderRule(action, name, value)) for value in _texts(option, values, place)]
        return Given(option, tuple(texts), self._place(*path), self._directory)

    def _table(self, content: object, path: Path) -> Mapping[str, Any]:
        if not isinstance(content, dict):
            raise self._place(*path).error(f"{path[0]} takes tables, not single values")
        return content

    def _place(self, *path: str | int) -> Place:
        """Where a key is set, or the nearest thing around it whose line is known."""
        while path and path not in self._lines:
            path = path[:-1]
        return Place(self._source, self._lines.get(path))


def _texts(option: Option, value: object, place: Place) -> Iterator[str]:
    """A value as the other sources would write it."""
    for one in value if option.repeatable and isinstance(value, list) else [value]:
        if isinstance(one, bool) and option.kind is FLAG:
            yield FLAG.show(one)
        elif isinstance(one, str | int | float) and not isinstance(one, bool):
            yield str(one)
        else:
            raise place.error(f"{option.key} takes no {_TYPES.get(type(one), 'date or time')}")


def _syntax_error(message: str, text: str, source: str) -> ConfigError:
    """What `tomllib` complains of; where, is in its message, and else the end of the text is meant."""
    found = _POSITION.search(message)
    reason = message[: found.start()] if found else message
    line = int(found["line"]) if found and found["line"] else text.rstrip().count("\n") + 1
    column = int(found["column"]) if found and found["column"] else None
    return ConfigError(f"this is not TOML: {reason[:1].lower()}{reason[1:]}", source, line, column)
