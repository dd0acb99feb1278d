"""Weighted turns against nginx's own algorithm, written down as it is there."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.smooth import SmoothTurns
from tests.core.balancing.selection.servers import places, server, servers


class Nginx:
    """``ngx_http_upstream_get_peer``, all weights being what they are configured to be."""

    def __init__(self, weights: list[int]) -> None:
        self.weights = weights
        self.current = [0] * len(weights)

    def pick(self, eligible: list[bool]) -> int | None:
        best, total = None, 0
        for peer, weight in enumerate(self.weights):
            if not eligible[peer]:
                continue
            self.current[peer] += weight
            total += weight
            if best is None or self.current[peer] > self.current[best]:
                best = peer
        if best is not None:
            self.current[best] -= total
        return best


def turns(policy: SmoothTurns, count: int) -> list[Backend]:
    found = [policy.pick() for _ in range(count)]
    return [one for one in found if one is not None]


@pytest.mark.parametrize(
    ("weights", "sequence"),
    [
        ((5, 1, 1), "aabacaaaabacaa"),
        ((1, 1, 1), "abcabc"),
        ((2, 1), "abaaba"),
        ((1, 2), "babbab"),
        ((3, 2, 1), "abacbaabacba"),
        ((7,), "aaa"),
    ],
)
def test_turns_are_those_of_nginx(weights: tuple[int, ...], sequence: str) -> None:
    assert places(turns(SmoothTurns(servers(weights)), len(sequence))) == sequence


@given(weights=st.lists(st.integers(1, 60), min_size=1, max_size=40), count=st.integers(0, 150))
def test_turns_of_any_weights_are_those_of_nginx(weights: list[int], count: int) -> None:
    policy, nginx = SmoothTurns(servers(weights)), Nginx(weights)
    everybody = [True] * len(weights)
    assert [one.index for one in turns(policy, count)] == [nginx.pick(everybody) for _ in range(count)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pick"), st.sets(st.integers(0, 8), max_size=3)),
        st.tuples(st.sampled_from(("down", "up", "weigh")), st.integers(0, 80)),
    ),
    max_size=120,
)


@settings(max_examples=300)
@given(weights=st.lists(st.integers(1, 20), min_size=1, max_size=9), steps=STEPS)
def test_turns_are_those_of_nginx_while_servers_fail_return_weigh_more_and_were_tried(
    weights: list[int], steps: list[tuple[str, set[int] | int]]
) -> None:
    backends = servers(weights)
    policy, nginx = SmoothTurns(backends), Nginx(weights)
    for step, what in steps:
        if isinstance(what, int):
            one = backends[what % len(backends)]
            if step == "weigh":
                one.weight, nginx.weights[one.index] = 1.0 + what // 9, 1 + what // 9
            else:
                one.usable = step == "up"
            policy.update(one)
            continue
        tried = [one for one in backends if one.index in what]
        expected = nginx.pick([one.usable and one not in tried for one in backends])
        found = policy.pick(tried)
        assert (None if found is None else found.index) == expected
        assert policy.credits() == {one: 100 * nginx.current[one.index] for one in backends}


def test_backend_that_was_not_told_to_be_down_costs_its_turn_and_is_left_out() -> None:
    a, b, c = backends = servers((5, 1, 1))
    policy = SmoothTurns(backends)
    a.usable = False
    assert places(turns(policy, 6)) == "bcbcbc"
    a.usable = True
    assert places(turns(policy, 2)) == "bc"
    policy.update(a)
    assert places(turns(policy, 7)) == "aabacaa"
    assert b.index < c.index


@given(st.lists(st.integers(1, 20), min_size=2, max_size=8))
def test_turns_of_a_backend_are_spread_over_the_round(weights: list[int]) -> None:
    total = sum(weights)
    sequence = [one.index for one in turns(SmoothTurns(servers(weights)), 3 * total)]
    for place, weight in enumerate(weights):
        at = [turn for turn, index in enumerate(sequence) if index == place]
        assert max(then - turn for turn, then in pairwise(at)) <= 2 * total / weight


def test_share_follows_the_weight_of_the_moment() -> None:
    a, b = backends = servers((4, 4))
    policy = SmoothTurns(backends)
    a.weight = 1.0
    policy.update(a)
    assert Counter(turns(policy, 50)) == {a: 10, b: 40}
    a.weight = 4.0
    policy.update(a)
    assert Counter(turns(policy, 50)) == {a: 25, b: 25}
    policy.update(server(7))
    assert policy.weight == 800


def test_credits_are_where_turns_begin() -> None:
    a, b, c = backends = servers((1, 1, 1))
    policy = SmoothTurns(backends, {a: -200, b: 150, c: 0})
    assert places(turns(policy, 3)) == "bcb"
    assert sum(policy.credits().values()) == -50


def test_thousand_servers_are_as_exact_as_three() -> None:
    weights = [1 + place % 10 for place in range(1000)]
    policy, nginx = SmoothTurns(servers(weights)), Nginx(weights)
    everybody = [True] * len(weights)
    for _ in range(300):
        found = policy.pick()
        assert found is not None
        assert found.index == nginx.pick(everybody)


def test_what_is_not_valid_any_more_does_not_pile_up() -> None:
    a, b, c = backends = servers((1, 1, 1))
    policy = SmoothTurns(backends, {a: -10_000_000, b: -10_000_000})
    for _ in range(2_000):
        assert policy.pick([a, b]) is c
    assert sum(map(len, policy._heaps)) <= 2 * (2 * len(backends) + 65)
    assert policy.credits() == {a: -10_000_000, b: -10_000_000, c: 0}


def test_weights_come_and_go_in_any_number() -> None:
    backends = servers([1] * 40)
    policy, nginx = SmoothTurns(backends), Nginx([1] * 40)
    everybody = [True] * 40
    for step in range(400):
        one = backends[step % 40]
        one.weight, nginx.weights[one.index] = float(2 + step), 2 + step
        policy.update(one)
        found = policy.pick()
        assert found is not None
        assert found.index == nginx.pick(everybody)
    assert len(policy._heaps) <= 128
