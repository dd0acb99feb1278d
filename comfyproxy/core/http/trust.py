"""Whose word about a request's client is believed, and whom a chain of proxies comes from.

Each proxy adds the address that it saw to the end of ``X-Forwarded-For`` or ``Forwarded`` (RFC 7239). Anybody
can send such a field, so a chain is read from its end: an address counts as long as the proxy that told it is
trusted. The first that is not trusted is the client (nginx's ``real_ip_recursive``, Caddy's
``trusted_proxies_strict``); what stands before it is hearsay.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from comfyproxy.core.http.grammar import TOKEN

KEPT_ANSWERS = 4096
"""Addresses whose trust is remembered."""

MAX_PARTS = 16
"""Commas that one element of ``Forwarded`` may have between quotes; more make it malformed."""

_WITH_PORT = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")
_PAIR = rb"[ \t]*(" + TOKEN + rb')=(?:"((?:[^"\\]|\\.)*+)"|(' + TOKEN + rb"))[ \t]*"
_PAIRS = re.compile(_PAIR + rb"(?:;|\Z)")
_ELEMENT = re.compile(_PAIR + rb"(?:;" + _PAIR + rb")*+")


class Trust:
    """Networks (addresses or CIDR) of proxies that are believed. Raises ValueError for what is not one."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(ip_network(network, strict=False) for network in networks)
        self._known: dict[bytes, bool] = {}

    def trusts(self, host: bytes) -> bool:
        """Is ``host`` an address of a trusted proxy?"""
        if not self._networks:
            return False
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= KEPT_ANSWERS:
                self._known.clear()
            known = self._known[host] = self._has(_address(host))
        return known

    def _has(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)

    def client(self, peer: bytes, told: Iterable[bytes]) -> bytes:
        """The address of the client behind ``peer``, which connected to us.

        ``told`` are the addresses that proxies have told, the nearest first. One that is not an address ends
        the chain; where everybody is trusted, the farthest is the client.
        """
        client = peer
        for hop in told:
            if not self.trusts(client) or (address := read_node(hop)) is None:
                break
            client = address
        return client


def read_node(text: bytes) -> bytes | None:
    """The address in ``text``, in its usual spelling and without a port; ``None`` if there is none.

    ``192.0.2.1``, ``192.0.2.1:4711``, ``2001:DB8::1`` and ``[2001:DB8::1]:4711`` are taken (RFC 7239 section
    6, and what proxies write into ``X-Forwarded-For``).
    """
    text = text.strip(b" \t")
    match = _WITH_PORT.fullmatch(text)
    address = _address(text if match is None else match[1] or match[2])
    return None if address is None else str(address).encode()


def plain_address(host: str) -> str:
    """``host``, without the prefix by which a socket that listens on ``::`` shows clients of IPv4."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def _address(text: bytes) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # A zone is another machine's name for one of its interfaces, and may be any text.
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def told_by_list(values: Iterable[bytes]) -> Iterator[bytes]:
    """The entries of ``X-Forwarded-For`` lines, the nearest first."""
    return reversed(b",".join(values).split(b","))


def told_by_forwarded(values: Iterable[bytes]) -> Iterator[bytes]:
    """The ``for`` nodes of ``Forwarded`` lines (RFC 7239 section 4), the nearest first; empty where there is
    none to be had.

    They are taken apart from the end: what a client has put at the beginning, an open quote say, must not
    change how that is read which a trusted proxy added.
    """
    rest, comma = b",".join(values), b","
    while comma:
        rest, comma, element = rest.rpartition(b",")
        for _ in range(MAX_PARTS):
            if element.count(b'"') % 2 == 0 or not comma:
                break
            rest, comma, more = rest.rpartition(b",")
            element = more + b"," + element
        yield _for_node(element)


def _for_node(element: bytes) -> bytes:
    if _ELEMENT.fullmatch(element) is None:
        return b""
    for name, quoted, plain in _PAIRS.findall(element):
        if name.lower() == b"for":
            return bytes(quoted or plain)
    return b""
