"""Who is let in: how many clients, how many of one address, and how often each may ask."""

from collections import Counter
from collections.abc import Collection, Sequence
from heapq import nsmallest
from math import inf
from typing import Any

from twisted.logger import Logger

from comfyproxy.core.balancing.ratelimits import RateLimiter, admit, client_key
from comfyproxy.core.config import Limits
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.core.http.trust import Trust
from comfyproxy.proxy.draining import ClientConnection, Work
from comfyproxy.proxy.gate import Gate
from comfyproxy.proxy.sparinglog import SparingLog

MOST_SPARED = 32
"""Idle connections that are closed at a time to make room (as many as nginx)."""

SPARED_AFTER = 1.0
"""Seconds that such a connection has been idle at least: who has just connected is about to ask."""

TOO_MANY_CONNECTIONS = "Too many connections are open from this address."
TOO_OFTEN = "This client asks more often than it may."


class Admission:
    """The limits of one proxy on its clients, and what they have refused.

    ``refused`` counts by reason, for example ``rate_limit``: every request and connection that did not get
    what it wanted because of a limit or because it was too slow.
    """

    log = Logger(namespace="comfyproxy.limits")

    def __init__(self, reactor: Any, connections: Collection[ClientConnection]) -> None:
        self.refused: Counter[str] = Counter()
        self.gate = Gate(reactor, self._make_room)
        self._connections = connections
        self._per_address = 0
        self._places: Counter[str] = Counter()
        self._reactor = reactor
        self._sparing = SparingLog(reactor, self.log)

    def adopt(self, limits: Limits, possible: int = 0) -> None:
        """Go by ``limits``; where they do not say how many connections, by ``possible`` (0: any number)."""
        self._per_address = limits.connections_per_address
        self.gate.limit = limits.connections or possible
        self.gate.look()

    def enter(self, peer: str, trust: Trust) -> int:
        """Count a connection from ``peer``; returns by how many its client has too many, this one included.

        Proxies that ``trust`` has, have as many as they want: they bring other people's requests.
        """
        self.gate.entered()
        key = client_key(peer)
        self._places[key] += 1
        most = self._per_address
        if not most or self._places[key] <= most or trust.trusts(peer.encode()):
            return 0
        self.refuse("connections_per_address", key, f"{key} has more than {most} connections")
        return self._places[key] - most

    def may_be_told(self, excess: int) -> bool:
        """Whether to answer a connection that is one of ``excess`` too many; of very many, only some."""
        return excess <= self._per_address

    def leave(self, peer: str) -> None:
        """A connection from ``peer`` is gone."""
        key = client_key(peer)
        self._places[key] -= 1
        if not self._places[key]:
            del self._places[key]
        self.gate.left()

    def wait(self, limiters: Sequence[RateLimiter], head: RequestHead, address: bytes) -> float:
        """Count a request of the client at ``address``: 0 if it may pass, else the seconds until it might."""
        client = address.decode()
        refusal = admit(limiters, head, client, self._reactor.seconds())
        if refusal is None:
            return 0
        limiter, wait = refusal
        self.refuse("rate_limit", client, f"{client} asks more often than {limiter.limit}")
        return wait

    def refuse(self, reason: str, client: str, text: str) -> None:
        """Count that ``client`` did not get what it wanted, and say so now and then."""
        self.refused[reason] += 1
        self._sparing.warn((reason, client_key(client)), f"{text}.")

    def stop(self) -> None:
        """Leave no timer."""
        self.gate.stop()

    def _make_room(self) -> None:
        """Close the clients' connections that have been idle for longest; a client can make a new one."""
        if not self.gate.is_short:
            self._sparing.warn(
                "full", f"All {self.gate.limit} connections are in use: who comes now has to wait."
            )
        before = self._reactor.seconds() - SPARED_AFTER
        idle = [
            (since, number, one)
            for number, one in enumerate(self._connections)
            if one.work is Work.IDLE and (since := getattr(one, "idle_since", inf)) <= before
        ]
        for _, _, connection in nsmallest(MOST_SPARED, idle):
            connection.drain()
