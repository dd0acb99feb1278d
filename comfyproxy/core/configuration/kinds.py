"""How the values of options are written: one `Kind` for durations, one for sizes, and so on.

Every source of configuration writes values as text, tap.conf too (where ``30`` and ``"30s"`` mean the same),
so a kind has one parser for all of them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from comfyproxy.core.balancing.ratelimits import parse_rate_limit
from comfyproxy.core.balancing.selection.balance import parse_balance
from comfyproxy.core.http.headerrules import parse_rule

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d|)")
_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_TOO_MANY = 1_000_000_000
_SIZE = re.compile(r"([0-9]{1,12})(?:([KMG])(?:i?B)?)?", re.IGNORECASE)
_MULTIPLES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_PROBE = re.compile(r"http:/[!-~]*")
_STATUSES = re.compile(r"([2-5][0-9][0-9])(?:-([2-5][0-9][0-9]))?")
_COUNT = re.compile(r"[0-9]{1,9}")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%?")
_FLAGS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_ENDPOINT = re.compile(r"[A-Za-z][A-Za-z0-9+_-]*:.+")
_NAME_SERVER = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")
_HOST_AND_PORT = re.compile(r"(?:(localhost|[0-9.]+|\[[0-9a-fA-F:]+\])?:)?([0-9]+)")


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to write values.

    ``parse`` raises ValueError with a sentence; ``show`` is its inverse. ``separator`` is a pattern that
    divides one text into several values, where an option may have them.
    """

    metavar: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    separator: str = ""
    choices: tuple[str, ...] = ()


def _parse_text(text: str) -> str:
    if not text:
        raise ValueError("the value is empty")
    return text


def _parse_flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError(f"{text!r} is neither true nor false")
    return _FLAGS[text.lower()]


def _parse_duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a duration; write for example 30, 500ms, 30s, 5m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def _parse_period(text: str) -> float:
    seconds = _parse_duration(text)
    if not seconds:
        raise ValueError("0 would be no time at all")
    return seconds


def _show_duration(seconds: float) -> str:
    if not seconds:
        return "0"
    counts = {unit: seconds / _UNITS[unit] for unit in ("d", "h", "m", "s", "ms")}
    fitting = {unit: count for unit, count in counts.items() if count < _TOO_MANY}
    for unit, count in fitting.items():
        if seconds % _UNITS[unit] == 0:
            return f"{count:.0f}{unit}"
    unit = list(fitting)[-1]
    return f"{fitting[unit]:.3f}".rstrip("0").rstrip(".") + unit


def _parse_size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a number of bytes; write for example 65536, 64K or 1M")
    return int(found[1]) * _MULTIPLES[(found[2] or "").upper()]


def _parse_bound(text: str) -> int:
    size = _parse_size(text)
    if not size:
        raise ValueError("0 would let nothing through")
    return size


def _show_size(size: int) -> str:
    for unit in ("G", "M", "K"):
        if size and size % _MULTIPLES[unit] == 0:
            return f"{size // _MULTIPLES[unit]}{unit}"
    return str(size)


def _parse_count(text: str) -> int:
    if not _COUNT.fullmatch(text) or int(text) == 0:
        raise ValueError(f"{text!r} is not a whole number from 1 to 999999999")
    return int(text)


def _parse_number(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number from 0 to 999999999")
    return int(text)


def _parse_percent(text: str) -> float:
    found = _PERCENT.fullmatch(text)
    if not found or float(found[1]) > 100:
        raise ValueError(f"{text!r} is not a share from 0% to 100%; write for example 20%")
    return float(found[1]) / 100


def _parse_network(text: str) -> str:
    try:
        network = ip_network(text)
    except ValueError:
        pass
    else:
        _refuse_zone(network.network_address, "a network")
        return str(network)
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a network; write for example 10.0.0.0/8 or fd00::/8") from None
    raise ValueError(f"{text!r} goes on after its mask; write {meant}")


def _parse_endpoint(text: str) -> str:
    """Accept what looks like a Twisted endpoint string; only Twisted, with its plugins, knows what is one."""
    if found := _HOST_AND_PORT.fullmatch(text):
        host = (found[1] or "").strip("[]").replace(":", r"\:")
        plain = f"tcp:{found[2]}" + (f":interface={host}" if host else "")
        raise ValueError(f"{text!r} is not a Twisted endpoint; write {plain}")
    if not _ENDPOINT.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a Twisted endpoint; write for example tcp:8080:interface=127.0.0.1"
        )
    return text


def _parse_name_server(text: str) -> tuple[str, int]:
    found = _NAME_SERVER.fullmatch(text)
    try:
        address = ip_address((found[1] or found[2]) if found else text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a name server; write for example 10.0.0.53 or [::1]:8600"
        ) from None
    _refuse_zone(address, "a name server")
    port = int(found[3] or 53) if found else 53
    if not 0 < port < 65_536:
        raise ValueError(f"{port} is not a port; there are those from 1 to 65535")
    return str(address), port


def _refuse_zone(address: IPv4Address | IPv6Address, what: str) -> None:
    """Sockets do not take a zone (fe80::1%eth0) as it is, and who is trusted does not depend on one."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{what} has no IPv6 zone; remove %{address.scope_id}")


def _show_name_server(server: tuple[str, int]) -> str:
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parse_probe(text: str) -> str:
    if text in ("comfyui", "tcp", "none") or _PROBE.fullmatch(text):
        return text
    raise ValueError(f"{text!r} is no check; write comfyui, tcp, none, or for example http:/health")


def _parse_statuses(text: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for part in text.split(","):
        found = _STATUSES.fullmatch(part.strip())
        if not found or (first := int(found[1])) > (last := int(found[2] or first)):
            raise ValueError(f"{text!r} are no statuses; write for example 200-399 or 200,204")
        ranges.append((first, last))
    return tuple(ranges)


def _show_statuses(ranges: tuple[tuple[int, int], ...]) -> str:
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)


def choice(*choices: str, separator: str = "") -> Kind:
    """One of a few words; ``separator`` as in `Kind`."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return Kind("|".join(choices), parse, separator=separator, choices=choices)


FLAG = Kind("", _parse_flag, lambda value: "true" if value else "false")
SERVER_LIST = Kind("URLS", _parse_text)
"""A list of servers, which `comfyproxy.core.configuration.addresses` divides and reads."""
URL = Kind("URL", _parse_text)
SERVER = Kind("SERVER", _parse_text)
FILE = Kind("FILE", _parse_text, separator=";")
DIRECTORY = Kind("DIR", _parse_text)
ENDPOINT = Kind("ENDPOINT", _parse_endpoint, separator=";")
NETWORK = Kind("NETWORK", _parse_network, separator="[,;]")
NAME_SERVER = Kind("ADDRESS", _parse_name_server, _show_name_server, separator="[,;]")
DURATION = Kind("TIME", _parse_duration, _show_duration)
PERIOD = Kind("TIME", _parse_period, _show_duration)
"""A duration that is not 0."""
PROBE = Kind("PROBE", _parse_probe)
STATUSES = Kind("STATUSES", _parse_statuses, _show_statuses)
SIZE = Kind("SIZE", _parse_size, _show_size)
BOUND = Kind("SIZE", _parse_bound, _show_size)
COUNT = Kind("COUNT", _parse_count)
BALANCE = Kind("POLICY", parse_balance)
SECRET = Kind("TEXT", _parse_text)
NUMBER = Kind("COUNT", _parse_number)
RATE_LIMIT = Kind("RATE", parse_rate_limit, lambda limit: str(limit or "off"), separator=";")
"""A count that may be 0."""
REQUEST_RULE = Kind("RULE", partial(parse_rule, side="request"), separator="\n")
RESPONSE_RULE = Kind("RULE", partial(parse_rule, side="response"), separator="\n")
PERCENT = Kind("PERCENT", _parse_percent, lambda share: f"{share * 100:g}%")
"""A share, as a fraction of 1."""
