"""Which pool a path belongs to."""

from collections.abc import Iterable
from dataclasses import dataclass

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.ratelimits import RateLimiter
from comfyproxy.core.config import DEFAULT_RETRIES, Timeouts
from comfyproxy.core.http.headerrules import HeaderRules


@dataclass(frozen=True, slots=True)
class Route:
    """Requests whose path is ``prefix`` or lies below it go to ``balancer``, under these timeouts.

    ``comfyui`` says that ComfyUI's page reads the answers, so that ours take its error shape.
    ``request_rules`` and ``response_rules`` change the fields of requests and answers. A request is
    tried on up to ``retries`` other servers; one that may be repeated also after an answer of a status in
    ``retry_on``, and with ``retries_timeouts`` after none in time.
    """

    prefix: bytes
    balancer: Balancer
    timeouts: Timeouts
    comfyui: bool = False
    retries: int = DEFAULT_RETRIES
    retry_on: frozenset[int] = frozenset()
    retries_timeouts: bool = False
    request_rules: HeaderRules | None = None
    response_rules: HeaderRules | None = None
    rate_limits: tuple[RateLimiter, ...] = ()
    max_body: int | None = None
    """As in `Limits`, whose word holds if it is None; so is ``min_rate``."""
    min_rate: int | None = None


class RouteTable:
    """Routes by longest prefix, in whole path segments: ``/api`` has ``/api/x`` below it, not ``/apix``.

    Paths are compared as received: what is forwarded is what was routed by.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = sorted(routes, key=lambda route: len(route.prefix), reverse=True)
        only = self.routes[0] if len(self.routes) == 1 else None
        self._only = only if only is not None and only.prefix == b"/" else None

    def match(self, target: bytes) -> Route | None:
        """The route of a request target, or ``None``; ``*`` belongs to the route of ``/``."""
        if self._only is not None:
            return self._only
        path = target.partition(b"?")[0]
        for route in self.routes:
            prefix = route.prefix.rstrip(b"/")
            if path == prefix or path.startswith(prefix + b"/") or (not prefix and path == b"*"):
                return route
        return None
