"""Rules that change the fields of requests and answers on their way: ``set``, ``add`` and ``remove``.

A rule is read and checked where the configuration is, and compiled when it is loaded. What frames a message,
belongs to one connection or shakes hands for a WebSocket is ours and not to be had by a rule.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from comfyproxy.core.configuration.diagnostics import did_you_mean
from comfyproxy.core.http.grammar import TEXT, TOKEN
from comfyproxy.core.http.headers import HOP_BY_HOP, Forwarder
from comfyproxy.core.http.http1 import RequestHead, is_valid_host

Action = Literal["set", "add", "remove"]
Side = Literal["request", "response"]
ACTIONS: tuple[Action, ...] = get_args(Action)

VARIABLES = {
    "client": "the address that the request is believed to come from",
    "host": "the host that was asked for, with its port if it has one",
    "peer": "the address that the connection comes from: the client's, or the nearest proxy's",
    "request_id": "the request's X-Request-ID, which is made where there is none",
    "scheme": "http or https, as the client is believed to have asked",
    "server": "the server of the pool, host and port",
}
"""What may stand in braces in a value."""

_OURS = HOP_BY_HOP | frozenset(
    b"content-length trailer expect max-forwards sec-websocket-key sec-websocket-version "
    b"sec-websocket-accept sec-websocket-protocol sec-websocket-extensions".split()
)
_RULE = re.compile(r"(set|add|remove)\s+([^\s:]+)\s*(?::\s*(.*?)\s*)?", re.DOTALL)
_NAME = re.compile(TOKEN)
_VALUE = re.compile(TEXT + rb"*+")
_VARIABLE = re.compile(r"\{([a-z_]+)\}")
_EXAMPLE = '"set X-Robots-Tag: noindex" or "remove X-Powered-By"'
_HOST_VALUES = ("{host}", "{server}")


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """One rule: ``set`` replaces every field of that name, ``add`` leaves those that are there."""

    action: Action
    name: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.name}" + ("" if self.action == "remove" else f": {self.value}")


def parse_rule(text: str, side: Side) -> HeaderRule:
    """Read ``set NAME: VALUE``, ``add NAME: VALUE`` or ``remove NAME``. Raises ValueError with a sentence."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a rule for header fields; write for example {_EXAMPLE}")
    action: Action = found[1]  # type: ignore[assignment]  # As the expression has it.
    name, value = found[2], found[3]
    if bool(value) == (action == "remove"):
        wrong = "takes no value" if value else f"needs a value; remove {name} leaves the field out"
        raise ValueError(f"{action} {name} {wrong}")
    rule = HeaderRule(action, name, value or "")
    _check_name(rule, side)
    _check_value(rule)
    return rule


def _check_name(rule: HeaderRule, side: Side) -> None:
    name = rule.name.lower().encode(errors="replace")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{rule.name!r} cannot name a header field")
    if name in _OURS:
        raise ValueError(f"{rule.name} is between this proxy and its peers; no rule may change it")
    if name == b"host" and (side == "response" or rule.action != "set"):
        raise ValueError("Host can only be set, and only in requests")


def _check_value(rule: HeaderRule) -> None:
    try:
        value = rule.value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the value of {rule.name} has characters that no header field can have") from None
    if not _VALUE.fullmatch(value):
        raise ValueError(f"the value of {rule.name} has a line end or a control character in it")
    for name in _VARIABLE.findall(rule.value):
        if name not in VARIABLES:
            raise ValueError(f"there is no variable {{{name}}}{did_you_mean(name, VARIABLES)}")
    if rule.name.lower() == "host" and rule.value not in _HOST_VALUES and not is_valid_host(value):
        raise ValueError(f"{rule.value!r} is not a host; write a name, {' or '.join(_HOST_VALUES)}")


ValueOf = Callable[[str], bytes]
"""Looks one of `VARIABLES` up."""


class HeaderRules:
    """The rules of one route for one side, compiled: those that remove first, then those that set and add.

    Of several that set the same field the last counts. ``Host`` is not among the fields that `apply` gets:
    `host` says what it is to be.
    """

    __slots__ = ("_added", "_host", "_removed")

    def __init__(self, rules: Iterable[HeaderRule]) -> None:
        adding = []
        setting: dict[str, HeaderRule] = {}
        names = set()
        for rule in rules:
            if rule.action == "set":
                setting[rule.name.lower()] = rule
            elif rule.action == "add":
                adding.append(rule)
            if rule.action != "add":
                names.add(rule.name.lower())
        host = setting.pop("host", None)
        self._host = None if host is None else _parts(host.value)
        self._removed = _lines_named(names)
        self._added = _merged(
            part
            for rule in (*setting.values(), *adding)
            for part in (f"{rule.name}: ".encode(), *_parts(rule.value), b"\r\n")
        )

    def apply(self, fields: bytes, value_of: ValueOf) -> bytes:
        """``fields``, each with its CRLF, as they go on."""
        if self._removed is not None:
            fields = self._removed.sub(b"", fields)
        return fields + _filled(self._added, value_of)

    def host(self, host: bytes, value_of: ValueOf) -> bytes:
        """The host to ask for in place of ``host``."""
        return host if self._host is None else _filled(self._host, value_of)


_Parts = tuple[bytes | str, ...]
"""Octets as they are, and names of variables."""


def compile_rules(rules: Iterable[HeaderRule]) -> HeaderRules | None:
    """`HeaderRules`, or ``None`` where there are no rules."""
    rules = tuple(rules)
    return HeaderRules(rules) if rules else None


def _lines_named(names: set[str]) -> re.Pattern[bytes] | None:
    """Matches the lines of fields of these names, and of those that a CGI-style backend takes for them."""
    if not names:
        return None
    spelt = (re.sub("[^0-9a-z]", lambda mark: "[^0-9A-Za-z:\\r\\n]", name) for name in sorted(names))
    return re.compile(rb"(?im)^(?:" + "|".join(spelt).encode() + rb"):[^\n]*+\n")


def _parts(value: str) -> _Parts:
    """``value`` taken apart at its variables."""
    pieces = _VARIABLE.split(value)
    return tuple(
        piece if number % 2 else piece.encode("latin-1") for number, piece in enumerate(pieces) if piece
    )


def _merged(parts: Iterable[bytes | str]) -> _Parts:
    """``parts`` with neighbouring octets in one piece."""
    merged: list[bytes | str] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, bytes) and isinstance(last, bytes):
            merged[-1] = last + part
        else:
            merged.append(part)
    return tuple(merged)


def _filled(parts: _Parts, value_of: ValueOf) -> bytes:
    return b"".join(part if isinstance(part, bytes) else value_of(part) for part in parts)


def lookup(head: RequestHead, forwarder: Forwarder, server: bytes, request_id: Callable[[], str]) -> ValueOf:
    """Looks variables up for one request, each when it is asked for."""

    def value_of(name: str) -> bytes:
        if name == "client":
            return forwarder.client(head)
        if name == "peer":
            return forwarder.peer
        if name == "host":
            return head.host
        if name == "scheme":
            return forwarder.scheme(head)
        return server if name == "server" else request_id().encode()

    return value_of
