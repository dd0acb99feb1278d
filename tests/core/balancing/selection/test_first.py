"""The first that has room."""

from comfyproxy.core.balancing.selection.first import First
from tests.core.balancing.selection.servers import begin, come_up, drawn, end, go_down, places, servers


def test_servers_are_filled_one_after_the_other() -> None:
    backends = servers((1, 1, 1), max_conns=2)
    policy = First(backends)
    started = []
    for _ in range(6):
        (one,) = drawn(policy, 1)
        begin(policy, one)
        started.append(one)
    assert places(started) == "aabbcc"
    assert policy.pick() is None
    end(policy, backends[1])
    end(policy, backends[0])
    assert places(drawn(policy, 2)) == "aa"


def test_first_that_works_and_was_not_tried_is_taken() -> None:
    a, b, c = backends = servers((1, 1, 1))
    policy = First(backends)
    assert not policy.watches
    go_down(policy, a)
    assert places(drawn(policy, 3)) == "bbb"
    assert policy.pick(None, [b]) is c
    come_up(policy, a)
    assert places(drawn(policy, 3)) == "aaa"


def test_order_of_the_pool_counts_after_a_reload() -> None:
    a, b = servers((1, 1))
    policy = First([a, b])
    policy.use([b, a])
    assert places(drawn(policy, 2)) == "bb"
