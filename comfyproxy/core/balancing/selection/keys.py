"""What a request is hashed by: its client's address, a field, a cookie, a parameter, or what it asks for."""

import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from comfyproxy.core.http.http1 import RequestHead

KeyOf = Callable[[RequestHead | None, bytes], bytes | None]
"""The key of a request: from its head (``None`` for plain TCP) and the client's address; ``None`` where the
request has none."""


def address_key(head: RequestHead | None, peer: bytes) -> bytes | None:
    """The client's address; of IPv6 the first 64 bits, as a host changes the others (RFC 8981)."""
    return _network(peer)


@lru_cache(4096)
def _network(peer: bytes) -> bytes | None:
    try:
        address = ip_address(peer.partition(b"%")[0].decode("ascii"))
    except ValueError:
        return peer or None
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return mapped.packed if mapped is not None else address.packed[:8]
    return address.packed


def header_key(name: str) -> KeyOf:
    """The value of the field ``name``."""
    field = name.lower().encode()

    def key(head: RequestHead | None, peer: bytes) -> bytes | None:
        return None if head is None else head.value(field) or None

    return key


def cookie_key(name: str) -> KeyOf:
    """The value of the cookie ``name``; the first, where there are several."""
    pattern = re.compile(rb"(?:^|[;,])[ \t]*" + re.escape(name.encode()) + rb"=([^;,]+)")

    def key(head: RequestHead | None, peer: bytes) -> bytes | None:
        cookies = None if head is None else head.notable.get(b"cookie")
        found = None if cookies is None else pattern.search(cookies)
        return None if found is None else found[1]

    return key


def query_key(name: str) -> KeyOf:
    """The value of the parameter ``name`` as it stands in the target; the first, where there are several."""
    pattern = re.compile(rb"[?&]" + re.escape(name.encode()) + rb"=([^&]+)")

    def key(head: RequestHead | None, peer: bytes) -> bytes | None:
        found = None if head is None else pattern.search(head.target, len(head.path))
        return None if found is None else found[1]

    return key


def uri_key(head: RequestHead | None, peer: bytes) -> bytes | None:
    """Path and query."""
    return None if head is None else head.target
