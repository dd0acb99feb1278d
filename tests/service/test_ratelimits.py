"""The limiters of routes: whose they are, and what a reload leaves of them."""

from comfyproxy.core.balancing.ratelimits import RateLimit
from comfyproxy.core.config import Config, RouteConfig
from comfyproxy.service.ratelimits import Limiters

SLOW = RateLimit(1, "h", 1)
FAST = RateLimit(9, "s", 9)


def config(*routes: RouteConfig, of_all: tuple[RateLimit, ...] = (SLOW,)) -> Config:
    return Config(pools={}, routes=routes, rate_limits=of_all)


def test_routes_without_their_own_share_those_of_all():
    limiters = Limiters()
    first, second, own = (
        RouteConfig("/a", rate_limits=(SLOW,)),
        RouteConfig("/b", rate_limits=(SLOW,)),
        RouteConfig("/c", rate_limits=(SLOW, FAST)),
    )
    shared = limiters.of(config(first, second, own), first)
    assert limiters.of(config(first, second, own), second)[0] is shared[0]
    of_its_own = limiters.of(config(first, second, own), own)
    assert [limiter.limit for limiter in of_its_own] == [SLOW, FAST]
    assert of_its_own[0] is not shared[0]


def test_routes_with_the_same_limits_of_their_own_have_each_their_own():
    limiters = Limiters()
    first, second = RouteConfig("/a", rate_limits=(FAST,)), RouteConfig("/b", rate_limits=(FAST,))
    whole = config(first, second)
    assert limiters.of(whole, first)[0] is not limiters.of(whole, second)[0]


def test_a_limit_that_stays_keeps_its_count_through_reloads():
    limiters = Limiters()
    route = RouteConfig("/", rate_limits=(SLOW,))
    (before,) = limiters.of(config(route), route)
    for _ in range(3):
        limiters.turn_over()
        assert limiters.of(config(route), route) == (before,)


def test_a_limit_that_went_is_forgotten():
    limiters = Limiters()
    route, none = RouteConfig("/", rate_limits=(SLOW,)), RouteConfig("/")
    (before,) = limiters.of(config(route), route)
    limiters.turn_over()
    assert limiters.of(config(none), none) == ()
    limiters.turn_over()
    assert limiters.of(config(route), route) != (before,)
