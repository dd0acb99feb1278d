"""Rate limits: how often one client may ask, in a table that no number of clients can make large.

The limiter is the generic cell rate algorithm (ITU-T I.371, annex A), which decides as a token bucket does
and keeps one number for each client: the time at which its bucket is full again. Requests come at ``rate``
a second on average, and up to ``burst`` of them at once.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv6Address
from typing import Literal

from comfyproxy.core.http.grammar import TOKEN
from comfyproxy.core.http.http1 import RequestHead

MAX_CLIENTS = 100_000
"""Clients that one limit keeps in mind, in some 20 MB at most."""

LONGEST_KEY = 64
"""Octets up to which a cookie or field is kept as it is; of what is longer, only a digest."""

_ROUNDING = 1e-6
"""Seconds that are no reason to refuse: what doubles that hold the time of day are exact to."""

_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)/(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_BURST = re.compile(r"[1-9][0-9]{0,8}")
_NAME = re.compile(TOKEN.decode())

By = Literal["address", "cookie", "header"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``count`` requests in each ``unit`` (s, m, h or d) for each client, ``burst`` of them at once.

    Clients are told apart by address, or by the cookie or header called ``name``; one that sends none of
    these by its address.
    """

    count: float
    unit: str
    burst: int
    by: By = "address"
    name: str = ""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.count / _SECONDS[self.unit]

    def __str__(self) -> str:
        by = f"{self.by}:{self.name}" if self.name else self.by
        return f"{self.count:.12g}/{self.unit},burst={self.burst},by={by}"


def parse_rate_limit(text: str) -> RateLimit | None:
    """Read ``10/s,burst=20,by=cookie:session``, or ``off``, which is None; raises ValueError with a sentence.

    The burst is what may come in one second, at least 1, unless it is given; clients are told apart by
    address unless ``by`` says otherwise.
    """
    if text == "off":
        return None
    rate, *settings = (part.strip() for part in text.split(","))
    found = _RATE.fullmatch(rate)
    if not found or not float(found[1]):
        raise ValueError(f"{rate!r} is not a rate; write for example 10/s, 300/m, 1000/h or off")
    given = {name: value for name, _, value in (setting.partition("=") for setting in settings)}
    if unknown := sorted(given.keys() - {"burst", "by"}):
        raise ValueError(f"{unknown[0]!r} is not known of a rate limit; there are burst= and by=")
    limit = RateLimit(float(found[1]), found[2], 1)
    burst = given.get("burst", str(max(1, int(limit.rate))))
    if not _BURST.fullmatch(burst):
        raise ValueError(f"burst={burst} is not a whole number from 1 on")
    by, name = _parse_by(given.get("by", "address"))
    return RateLimit(limit.count, limit.unit, int(burst), by, name)


def _parse_by(text: str) -> tuple[By, str]:
    kind, _, name = text.partition(":")
    if kind == "address" and not name:
        return "address", ""
    if kind in ("cookie", "header") and _NAME.fullmatch(name):
        return ("cookie", name) if kind == "cookie" else ("header", name)
    raise ValueError(f"by={text} tells no clients apart; write by=address, by=cookie:NAME or by=header:NAME")


def client_key(address: str) -> str:
    """Who the client at ``address`` is: an IPv4 address, or the /64 of an IPv6 address.

    A /64 is what one site, often one person, has to pick addresses from (RFC 6177, RFC 7421). What is not an
    IP address (the end of a Unix socket) is a client of its own.
    """
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


class RateLimiter:
    """Counts requests against one `RateLimit`; ``size`` is how many clients it keeps in mind.

    Clients are forgotten when they may ask as if they were new. When there are more than that, so are those
    that have not asked for longest: the table does not grow, and the limits of the others hold.

    ``refused`` counts the requests that might not pass.
    """

    def __init__(self, limit: RateLimit, size: int = MAX_CLIENTS) -> None:
        self.limit = limit
        self.refused = 0
        self._interval = 1 / limit.rate
        # What a client may be ahead of its time: the burst, less the request that is being decided on.
        self._ahead = (limit.burst - 1) * self._interval
        self._size = size
        self._full_again: dict[bytes | str, float] = {}
        name = limit.name if limit.by == "cookie" else limit.name.lower()
        self._name = name.encode()

    def __len__(self) -> int:
        return len(self._full_again)

    def take(self, key: bytes | str, now: float) -> float:
        """Count a request of ``key`` at the time ``now``: 0 if it may pass, else the seconds until it might.

        What may not pass is not counted against the client: asking too early costs it nothing.
        """
        table = self._full_again
        full_again = max(table.pop(key, now), now)
        wait = full_again - self._ahead - now
        if wait > _ROUNDING:
            table[key] = full_again
            self.refused += 1
            return wait
        self._forget(now)
        table[key] = full_again + self._interval
        return 0

    def give_back(self, key: bytes | str) -> None:
        """Do not count the last request of ``key`` after all."""
        if key in self._full_again:
            self._full_again[key] -= self._interval

    def _forget(self, now: float) -> None:
        """Make room: who has not asked for longest stands first, as each goes to the end when it asks."""
        table = self._full_again
        for _ in range(2):
            oldest = next(iter(table), None)
            if oldest is None or (table[oldest] > now and len(table) < self._size):
                return
            del table[oldest]

    def key(self, head: RequestHead, address: str) -> bytes | str:
        """Who asks, by this limit's lights."""
        if self.limit.by != "address" and (value := self._value(head)):
            return value if len(value) <= LONGEST_KEY else blake2b(value, digest_size=16).digest()
        return client_key(address)

    def _value(self, head: RequestHead) -> bytes:
        if self.limit.by == "cookie":
            return _cookie(head.notable.get(b"cookie", b""), self._name)
        return b",".join(head.values(self._name))


def admit(
    limiters: Iterable[RateLimiter], head: RequestHead, address: str, now: float
) -> tuple[RateLimiter, float] | None:
    """Count a request against all of ``limiters``; returns the one that refuses it, and for how many seconds.

    What one refuses counts with none.
    """
    taken: list[tuple[RateLimiter, bytes | str]] = []
    for limiter in limiters:
        key = limiter.key(head, address)
        wait = limiter.take(key, now)
        if wait:
            for other, others_key in taken:
                other.give_back(others_key)
            return limiter, wait
        taken.append((limiter, key))
    return None


def _cookie(cookies: bytes, name: bytes) -> bytes:
    """What the first cookie of that name says (RFC 6265 section 4.2)."""
    for pair in cookies.split(b";") if name in cookies else ():
        found, _, value = pair.strip(b" \t").partition(b"=")
        if found == name:
            return value
    return b""
