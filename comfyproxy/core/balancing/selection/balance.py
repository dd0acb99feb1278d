"""The policies by the names that configurations have for them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import random as random_number
from time import monotonic

from comfyproxy.core.balancing.selection.first import First
from comfyproxy.core.balancing.selection.keys import (
    KeyOf,
    address_key,
    cookie_key,
    header_key,
    query_key,
    uri_key,
)
from comfyproxy.core.balancing.selection.least_conn import LeastConn
from comfyproxy.core.balancing.selection.lots import Random
from comfyproxy.core.balancing.selection.policy import Selection
from comfyproxy.core.balancing.selection.random_two import PeakEwma, RandomTwo
from comfyproxy.core.balancing.selection.rendezvous import Rendezvous
from comfyproxy.core.balancing.selection.round_robin import RoundRobin

PLAIN_POLICIES = ("round-robin", "least-conn", "random-two", "ewma", "first", "ip-hash")
SOURCES = ("header", "cookie", "query")

_NAMED = re.compile(r"hash:(header|cookie|query)=(.*)")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PARAMETER = re.compile(r"[!$'()*+,\-./0-9:;?@A-Z_a-z~%]+")


@dataclass(frozen=True, slots=True)
class Balance:
    """A policy: ``kind`` is one of `PLAIN_POLICIES` or ``hash``, which goes by ``source`` (one of `SOURCES`,
    or ``uri``) and the ``name`` in it."""

    kind: str = "round-robin"
    source: str = ""
    name: str = ""

    def __str__(self) -> str:
        """As configurations have it."""
        if not self.source:
            return self.kind
        return f"{self.kind}:{self.source}={self.name}" if self.name else f"{self.kind}:{self.source}"

    @property
    def needs_http(self) -> bool:
        """Whether it looks at requests, which plain TCP has not."""
        return bool(self.source)

    @property
    def key_of(self) -> KeyOf | None:
        """What finds the key of a request; ``None`` where the policy goes by none."""
        if self.kind == "ip-hash":
            return address_key
        if self.kind != "hash":
            return None
        if self.source == "uri":
            return uri_key
        return {"header": header_key, "cookie": cookie_key, "query": query_key}[self.source](self.name)


def parse_balance(text: str) -> Balance:
    """Read a policy as configurations have it; raises `ValueError` with a sentence."""
    if text in PLAIN_POLICIES:
        return Balance(text)
    if text == "hash:uri":
        return Balance("hash", "uri")
    named = _NAMED.fullmatch(text)
    if named is None:
        raise ValueError(
            f"{text!r} is not a policy; there are {', '.join(PLAIN_POLICIES)}, hash:header=NAME, "
            "hash:cookie=NAME, hash:query=NAME and hash:uri"
        )
    source, name = named.groups()
    if not (_PARAMETER if source == "query" else _TOKEN).fullmatch(name):
        raise ValueError(f"{text!r} needs the name of a {_TOLD[source]} after the =")
    return Balance("hash", source, name)


_TOLD = {"header": "header field", "cookie": "cookie", "query": "parameter, as it stands in a URL"}


def make_policy(
    balance: Balance, random: Random = random_number, clock: Callable[[], float] = monotonic
) -> Selection:
    """A policy of that name, without backends."""
    makers: dict[str, Callable[[], Selection]] = {
        "round-robin": RoundRobin,
        "least-conn": LeastConn,
        "random-two": partial(RandomTwo, random),
        "ewma": partial(PeakEwma, random, clock),
        "first": First,
        "ip-hash": Rendezvous,
        "hash": Rendezvous,
    }
    return makers[balance.kind]()
