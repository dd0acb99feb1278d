"""The rate limiters of one configuration after the other."""

from comfyproxy.core.balancing.ratelimits import RateLimit, RateLimiter
from comfyproxy.core.config import Config, RouteConfig


class Limiters:
    """Makes the limiters of routes; a limit that stays keeps its count, so that a reload pardons nobody.

    Routes that have no limits of their own share one limiter for each limit of all.
    """

    def __init__(self) -> None:
        self._before: dict[tuple[str, RateLimit], RateLimiter] = {}
        self._now: dict[tuple[str, RateLimit], RateLimiter] = {}

    def turn_over(self) -> None:
        """Another configuration begins: what it does not ask for is forgotten at the next one."""
        self._before, self._now = self._now, {}

    def of(self, config: Config, route: RouteConfig) -> tuple[RateLimiter, ...]:
        """Those of ``route``."""
        owner = "" if route.rate_limits == config.rate_limits else route.prefix
        return tuple(self._one(owner, limit) for limit in route.rate_limits)

    def _one(self, owner: str, limit: RateLimit) -> RateLimiter:
        key = (owner, limit)
        if key not in self._now:
            self._now[key] = self._before[key] if key in self._before else RateLimiter(limit)
        return self._now[key]
