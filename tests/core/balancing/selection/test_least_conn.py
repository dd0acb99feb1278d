"""Least connections: who has the least in flight for its weight, and who of equals."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.least_conn import LeastConn
from tests.core.balancing.selection.servers import (
    begin,
    drawn,
    end,
    go_down,
    places,
    reweigh,
    server,
    servers,
)


def start(policy: LeastConn, count: int) -> str:
    """Begin ``count`` units of work that last."""
    started = []
    for _ in range(count):
        (one,) = drawn(policy, 1)
        begin(policy, one)
        started.append(one)
    return places(started)


def test_backend_with_the_fewest_leases_is_next() -> None:
    a, b, c = backends = servers((1, 1, 1))
    policy = LeastConn(backends)
    assert start(policy, 7) == "abcabca"
    end(policy, b)
    end(policy, b)
    assert start(policy, 3) == "bbc"
    assert [one.leases for one in backends] == [3, 2, 3]
    assert a.index < c.index


def test_leases_are_weighed() -> None:
    a, b = backends = servers((3, 1))
    start(LeastConn(backends), 40)
    assert (a.leases, b.leases) == (30, 10)


def test_idle_backends_take_turns_by_weight() -> None:
    backends = servers((5, 1, 1))
    policy = LeastConn(backends)
    assert Counter(drawn(policy, 70)) == dict(zip(backends, (50, 10, 10), strict=True))
    assert places(drawn(LeastConn(servers((1, 1, 1))), 6)) == "abcabc"


def test_work_that_a_backend_got_without_being_picked_counts() -> None:
    a, b = backends = servers((1, 1))
    policy = LeastConn(backends)
    for _ in range(3):
        begin(policy, a)
    assert start(policy, 3) == "bbb"
    end(policy, a)
    end(policy, a)
    assert start(policy, 2) == "aa"
    assert b.leases == 3


def test_reload_keeps_the_turns_and_sees_the_leases() -> None:
    a, b, c = backends = servers((1, 1, 1))
    policy = LeastConn(backends)
    assert places(drawn(policy, 2)) == "ab"
    policy.use([a, b, c])
    assert places(drawn(policy, 1)) == "c"
    begin(policy, b)
    policy.use([b, a, server(5)])
    assert b not in drawn(policy, 6)


def test_weight_that_grows_counts_at_once() -> None:
    a, _ = backends = servers((1, 1))
    policy = LeastConn(backends)
    assert start(policy, 4) == "abab"
    reweigh(a, 3)
    policy.update(a)
    assert start(policy, 4) == "aaaa"


def test_backend_that_was_down_makes_up_for_no_turn() -> None:
    a, b, c = backends = servers((1, 1, 1))
    policy = LeastConn(backends)
    go_down(policy, a)
    drawn(policy, 60)
    a.usable = True
    policy.update(a)
    assert drawn(policy, 6).count(a) <= 3
    assert b.index < c.index


@given(
    weights=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    steps=st.lists(st.one_of(st.none(), st.integers(0, 50)), max_size=400),
)
def test_pick_is_always_one_of_the_least(weights: list[int], steps: list[int | None]) -> None:
    backends = servers(weights)
    policy, running = LeastConn(backends), list[Backend]()
    for step in steps:
        if step is not None and running:
            end(policy, running.pop(step % len(running)))
            continue
        (one,) = drawn(policy, 1)
        assert one.leases / one.weight == min(other.leases / other.weight for other in backends)
        begin(policy, one)
        running.append(one)


def test_what_is_not_valid_any_more_does_not_pile_up() -> None:
    backends = servers((1, 1, 1, 1))
    policy = LeastConn(backends)
    go_down(policy, backends[0])
    for _ in range(100):
        for _ in range(5):
            begin(policy, backends[3])
        drawn(policy, 4)
        for _ in range(5):
            end(policy, backends[3])
    assert len(policy._heap) <= 2 * len(backends) + 64
    assert set(drawn(policy, 3)) == set(backends[1:])
