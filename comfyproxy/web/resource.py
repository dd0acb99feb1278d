"""`RoundRobinResource`: a pool of servers as a resource of any twisted.web site."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.web.server import NOT_DONE_YET

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.changes import Changes, diff
from comfyproxy.core.balancing.pool import HealthRules, Pool
from comfyproxy.core.balancing.ratelimits import RateLimiter, parse_rate_limit
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.config import DEFAULT_RETRIES, Limits, RequestIDs, Timeouts
from comfyproxy.core.configuration.addresses import Address, parse_addresses
from comfyproxy.core.http.headerrules import compile_rules, parse_rule
from comfyproxy.core.http.headers import WRITTEN
from comfyproxy.proxy.accesslog import AccessLog
from comfyproxy.proxy.health import HealthWatch
from comfyproxy.proxy.probes import ProbePlan, Slots
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.proxy.transports import with_eager_writes
from comfyproxy.web.front import RequestFront
from comfyproxy.web.streaming import StreamingFront

with warnings.catch_warnings():
    # It imports a base class that Twisted deprecates for new code, and that is none of ours.
    warnings.filterwarnings("ignore", "twisted.web.http.HTTPClient was deprecated", DeprecationWarning)
    from twisted.web.proxy import ReverseProxyResource

Servers = str | Iterable[str | Address]
"""Server lists as everywhere (``http://gpu[1-8]:8188, http://spare:8188``), or addresses."""


class RoundRobinResource(ReverseProxyResource):
    """Relays everything at and below its place to the servers of a pool, each in turn.

    ``pool`` is a list of servers, a `Pool`, or a `Balancer`, which also brings a router (ComfyUI's:
    `comfyproxy.comfyui.router`) and says whether the client's ``Host`` passes. Resources that are to take
    turns together share a `Balancer`, or are one resource at several places.

    ``path`` is ``None`` for the request's target to pass as received, octet by octet. With a path, the
    part of the target that leads to this resource is replaced by it, as `ReverseProxyResource` does: at
    ``/gpu`` and with the path ``b""``, ``/gpu/queue?x`` becomes ``/queue?x``.

    ``reactor`` is the default reactor if it is not given. ``comfyui`` says that the servers are ComfyUI's:
    their sockets are always read (`comfyproxy.proxy.relay`), and answers of our own have ComfyUI's error
    shape. ``trusted`` are networks of proxies whose ``X-Forwarded-For`` is believed, ``forwarding`` what
    backends are told by (`comfyproxy.core.http.headers.WRITABLE`). ``request_headers`` and
    ``response_headers`` are rules such as ``set X-Client: {client}``, ``add NAME: VALUE`` or ``remove NAME``.
    ``retries`` and ``retry_on`` are those of a `Route`, ``request_ids`` those of a `Proxy`. ``rate_limits``
    are such as ``10/s,burst=20``, for each client. ``log`` gets the lines that the site's own log has not.
    ``probe`` says how servers are checked, ``health`` what is made of that and of requests that fail;
    without either nothing is. ``debug`` names servers in the answers of our own.

    ``host`` and ``port`` are the first server's. `ConfigError` is raised for servers that do not parse,
    ``ValueError`` for networks, rules and rate limits.
    """

    isLeaf = True
    path: bytes | None

    def __init__(
        self,
        pool: Servers | Pool | Balancer,
        path: bytes | None = None,
        reactor: Any = None,
        *,
        comfyui: bool = False,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        trusted: tuple[str, ...] = (),
        forwarding: tuple[str, ...] = WRITTEN,
        request_headers: Iterable[str] = (),
        response_headers: Iterable[str] = (),
        retries: int = DEFAULT_RETRIES,
        retry_on: Iterable[int] = (),
        rate_limits: Iterable[str] = (),
        request_ids: RequestIDs = "errors",
        log: AccessLog | None = None,
        health: HealthRules | None = None,
        probe: ProbePlan | None = None,
        debug: bool = False,
    ) -> None:
        servers = pool.pool if isinstance(pool, Balancer) else _pool(pool)
        super().__init__(*_first(servers), path, *(() if reactor is None else (reactor,)))
        self.balancer = pool if isinstance(pool, Balancer) else Balancer(servers, clock=self.reactor.seconds)
        timeouts = timeouts or Timeouts()
        route = Route(
            b"/",
            self.balancer,
            timeouts,
            comfyui,
            retries=retries,
            retry_on=frozenset(retry_on),
            rate_limits=_limiters(rate_limits),
            request_rules=compile_rules(parse_rule(text, "request") for text in request_headers),
            response_rules=compile_rules(parse_rule(text, "response") for text in response_headers),
        )
        self.proxy = Proxy(
            with_eager_writes(self.reactor),
            RouteTable([route]),
            limits=limits,
            timeouts=timeouts,
            log=log,
            trusted=trusted,
            forwarding=forwarding,
            request_ids=request_ids,
            debug=debug,
        )
        self.proxy.background.follow((self.balancer,))
        self._watch = self._watch_health(health, probe)

    def _watch_health(self, health: HealthRules | None, probe: ProbePlan | None) -> HealthWatch | None:
        if health is None and probe is None:
            return None
        watch = HealthWatch(self.reactor, self.balancer, Slots(), self.proxy.close_idle)
        watch.follow(replace(health or HealthRules(), probed=probe is not None), probe)
        return watch

    def render(self, request: Any) -> int:
        """Relay ``request``, whatever its method."""
        RequestFront(self.proxy, request).start(self._retarget)
        return NOT_DONE_YET

    def begin_upload(self, request: Any) -> StreamingFront:
        """Relay ``request``, whose body is still to come (`comfyproxy.web.streaming.StreamingSite`)."""
        front = StreamingFront(self.proxy, request)
        front.start(self._retarget)
        return front

    def getChild(self, path: bytes, request: Any) -> "RoundRobinResource":
        """This resource: it is a leaf, and what lies below it is the backends' business."""
        return self

    def _retarget(self, request: Any, target: bytes) -> bytes:
        if self.path is None or target == b"*":
            return target
        path, mark, query = target.partition(b"?")
        # twisted.web has decoded the segments, so they are counted here and taken from the octets received.
        segments = path[1:].split(b"/")
        below = segments[max(len(segments) - len(request.postpath), 0) :] if request.postpath else []
        return (b"/".join([self.path, *below]) or b"/") + mark + query

    def reload(self, servers: Servers) -> Changes:
        """Use these servers from now on, and return what differs; raises `ConfigError` and changes nothing.

        Servers that stay keep their state and connections; what runs on those that go is finished there.
        """
        changes = diff(self.balancer.pool.addresses, _addresses(servers))
        self.apply(changes)
        return changes

    def apply(self, changes: Changes) -> None:
        """Use the servers that ``changes`` wants from now on."""
        self.balancer.apply(changes)
        self.proxy.forget_removed()
        if self._watch is not None:
            self._watch.look_again()

    def stop(self, drain: float = 0) -> "Deferred[None]":
        """Refuse what comes and end what runs; fires when no connection and no timer is left.

        What runs has up to ``drain`` seconds to end by itself.
        """
        return ensureDeferred(self._stop(drain))

    async def _stop(self, drain: float) -> None:
        await self.proxy.drain(drain).run()
        if self._watch is not None:
            self._watch.stop()
        await self.proxy.close()


def _pool(servers: Servers | Pool) -> Pool:
    return servers if isinstance(servers, Pool) else Pool("default", _addresses(servers))


def _first(pool: Pool) -> tuple[str, int]:
    """The host and the port of the first server."""
    return next(((address.host, address.port) for address in pool.addresses), ("", 0))


def _limiters(texts: Iterable[str]) -> tuple[RateLimiter, ...]:
    return tuple(RateLimiter(limit) for limit in map(parse_rate_limit, texts) if limit is not None)


def _addresses(servers: Servers) -> tuple[Address, ...]:
    if isinstance(servers, str):
        servers = (servers,)
    found: dict[str, Address] = {}
    for server in servers:
        named = (server,) if isinstance(server, Address) else parse_addresses(server, "RoundRobinResource")
        for address in named:
            found.setdefault(address.key, address)
    return tuple(found.values())
