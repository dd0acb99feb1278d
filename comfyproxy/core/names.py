"""How this machine says that names become addresses: resolv.conf(5) and hosts(5), as values."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain, zip_longest

DNS_PORT = 53

MAX_NAME_SERVERS = 3
"""Name servers that count, as in resolv.conf(5)."""


@dataclass(frozen=True, slots=True)
class NameServers:
    """Whom to ask, and how: IP addresses and ports, and the options of resolv.conf(5) under their names."""

    servers: tuple[tuple[str, int], ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 5
    attempts: int = 2


def parse_resolv_conf(text: str) -> NameServers:
    """Read a ``/etc/resolv.conf``; what cannot be understood is left out, as other resolvers do."""
    servers: list[tuple[str, int]] = []
    search: tuple[str, ...] = ()
    options = {"ndots": 1, "timeout": 5, "attempts": 2}
    for line in text.splitlines():
        key, *values = line.split("#")[0].split(";")[0].split() or [""]
        if key == "nameserver" and values and _is_address(values[0]):
            servers.append((values[0], DNS_PORT))
        elif key in ("search", "domain"):
            search = tuple(value.strip(".") for value in values if value != ".")
        elif key == "options":
            for value in values:
                name, _, number = value.partition(":")
                if name in options and number.isdecimal():
                    options[name] = int(number)
    return NameServers(
        tuple(servers[:MAX_NAME_SERVERS]),
        search,
        min(options["ndots"], 15),
        max(min(options["timeout"], 30), 1),
        max(min(options["attempts"], 5), 1),
    )


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Read a ``/etc/hosts``: the addresses of each name, in lower case, in their order."""
    found: dict[str, dict[str, None]] = {}
    for line in text.splitlines():
        address, *names = line.split("#")[0].split() or [""]
        if _is_address(address):
            for name in names:
                found.setdefault(name.lower(), {})[address] = None
    return {name: tuple(addresses) for name, addresses in found.items()}


def candidates(name: str, search: tuple[str, ...], ndots: int) -> tuple[str, ...]:
    """The full names that ``name`` may mean, in the order in which they are to be asked for."""
    if name.endswith("."):
        return (name[:-1],)
    below = tuple(f"{name}.{domain}" for domain in search)
    return (name, *below) if name.count(".") >= ndots else (*below, name)


def interleave(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Take turns, so that a family of addresses that leads nowhere costs one attempt (RFC 8305 section 4)."""
    pairs: Iterator[str | None] = chain.from_iterable(zip_longest(first, second))
    return tuple(address for address in pairs if address is not None)


def is_usable(address: str) -> bool:
    """Whether a server can be at ``address``: not at 0.0.0.0, with which filters answer, nor at many."""
    known = ip_address(address)
    return not (known.is_unspecified or known.is_multicast)


def _is_address(text: str) -> bool:
    try:
        # One with a zone (fe80::1%eth0) is beyond what sockets take as they are.
        return "%" not in text and bool(ip_address(text))
    except ValueError:
        return False
