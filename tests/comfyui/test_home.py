"""Which server keeps what belongs to users, and what is done while it is down."""

from collections.abc import Callable

import pytest

from comfyproxy.comfyui.home import Home, find_server
from comfyproxy.core.balancing.backend import AdminState
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.pool import HealthRules, Pool
from comfyproxy.core.balancing.routing import Default, Pin, Refuse
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.core.http.http1 import RequestHead

MakeHead = Callable[..., RequestHead]


def pool_of(servers: str = "http://a:1, http://b:1, http://c:1") -> Pool:
    return Pool("main", parse_addresses(servers), rules=HealthRules(probed=True, panic=0))


def take_down(pool: Pool, place: int) -> None:
    for _ in range(3):
        pool.observed(pool.backends[place], False, 1.0)
    for backend in pool.backends:
        if backend is not pool.backends[place]:
            pool.observed(backend, True, 1.0)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_everything_goes_to_the_first_server(make_head: MakeHead, method: str) -> None:
    pool = pool_of()
    decision = Home(pool).decide(make_head(method, "/userdata/workflows%2Fa.json"))
    assert decision == Pin(pool.backends[0], strict=method != "GET")


def test_what_an_operator_took_out_of_use_is_no_home() -> None:
    pool = pool_of()
    pool.set_admin(pool.backends[0], AdminState.DRAIN, 1.0)
    assert Home(pool).backend() is pool.backends[1]


def test_a_backup_is_no_home_while_there_are_others() -> None:
    assert Home(pool := pool_of("http://a:1 backup=1, http://b:1")).backend() is pool.backends[1]
    assert Home(pool := pool_of("http://a:1 backup=1")).backend() is pool.backends[0]


def test_a_configured_home_is_kept(make_head: MakeHead) -> None:
    pool = pool_of()
    assert Home(pool, "http://b:1").decide(make_head("GET", "/settings")) == Pin(pool.backends[1])


def test_while_it_is_down_others_are_read(make_head: MakeHead) -> None:
    pool = pool_of()
    take_down(pool, 0)
    home = Home(pool)
    assert home.backend() is pool.backends[0]
    assert home.decide(make_head("GET", "/settings")) == Default()
    assert home.upload() == Default()


def test_while_it_is_down_nothing_is_written(make_head: MakeHead) -> None:
    pool = pool_of("http://a:1 name=gpu-a, http://b:1")
    take_down(pool, 0)
    refusal = Home(pool).decide(make_head("POST", "/settings"))
    assert isinstance(refusal, Refuse)
    assert refusal.status == 503
    assert "gpu-a, is down" in refusal.message


def test_a_server_without_a_name_has_a_number(make_head: MakeHead) -> None:
    pool = pool_of()
    take_down(pool, 0)
    refusal = Home(pool).decide(make_head("POST", "/settings"))
    assert isinstance(refusal, Refuse)
    assert "number 1" in refusal.message
    assert "http://a" not in refusal.message


def test_a_home_that_is_not_in_the_pool_is_named(make_head: MakeHead) -> None:
    refusal = Home(pool_of(), "gpu-z").decide(make_head("POST", "/settings"))
    assert isinstance(refusal, Refuse)
    assert "'gpu-z'" in refusal.message


def test_an_empty_pool_has_none(make_head: MakeHead) -> None:
    pool = pool_of()
    pool.apply(diff(pool.addresses, ()))
    home = Home(pool)
    assert home.backend() is None
    assert isinstance(home.decide(make_head("POST", "/settings")), Refuse)


def test_uploads_go_to_it_and_fail_over() -> None:
    pool = pool_of()
    assert Home(pool).upload() == Pin(pool.backends[0], strict=False)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("gpu-b", 1),
        ("http://b:8188", 1),
        ("HTTP://B:8188/", 1),
        ("b:8188", 1),
        ("http://c:8188", 2),
        ("http://d:8188", None),
        ("http://x[1-9]:8188", None),
        ("", None),
        (":::", None),
    ],
)
def test_a_server_is_named_as_it_may_be_in_a_list(text: str, place: int | None) -> None:
    pool = pool_of("http://a:8188 name=gpu-a, http://b:8188 name=gpu-b, http://c:8188")
    assert find_server(pool, text) is (None if place is None else pool.backends[place])
