"""Which route a path belongs to."""

import pytest

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.config import Timeouts


def table(*prefixes: str) -> RouteTable:
    return RouteTable(Route(prefix.encode(), Balancer(Pool(prefix)), Timeouts()) for prefix in prefixes)


@pytest.mark.parametrize(
    ("target", "prefix"),
    [
        (b"/", b"/"),
        (b"/api", b"/api"),
        (b"/api/", b"/api"),
        (b"/api?x", b"/api"),
        (b"/api/view?filename=/api/x/y", b"/api"),
        (b"/apix", b"/"),
        (b"/api/x/y", b"/api/x"),
        (b"/api/xy", b"/api"),
        (b"/%61pi", b"/"),
        (b"/x/../api", b"/"),
        (b"*", b"/"),
    ],
)
def test_the_longest_prefix_in_whole_segments_has_it(target: bytes, prefix: bytes) -> None:
    route = table("/", "/api", "/api/x").match(target)
    assert route is not None
    assert route.prefix == prefix


def test_a_path_below_no_prefix_has_no_route() -> None:
    assert table("/api").match(b"/") is None
    assert table("/api").match(b"*") is None


def test_a_prefix_may_end_with_a_slash() -> None:
    found = table("/api/", "/")
    assert found.match(b"/api").prefix == b"/api/"
    assert found.match(b"/api/x").prefix == b"/api/"


@pytest.mark.parametrize("target", [b"/", b"/x/y?z", b"*"])
def test_a_single_route_for_everything_has_everything(target: bytes) -> None:
    assert table("/").match(target).prefix == b"/"
