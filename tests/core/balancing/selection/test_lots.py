"""Drawing lots: in proportion to weights, two different ones, whatever leaves and comes back."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.balancing.selection.lots import Lots
from tests.core.balancing.selection.servers import reweigh, server, servers


def test_first_lot_falls_in_proportion_to_weights() -> None:
    backends = servers((5, 1, 1, 3))
    lots = Lots(Random(1).random)
    lots.use(backends)
    drawn = Counter(lots.two()[0] for _ in range(10_000))
    for one in backends:
        assert drawn[one] == pytest.approx(1000 * one.weight, abs=150)


def test_second_lot_falls_in_proportion_among_the_others() -> None:
    a, b, c = backends = servers((2, 1, 3))
    lots = Lots(Random(2).random)
    lots.use(backends)
    pairs = Counter(lots.two() for _ in range(12_000))
    for first, second in ((a, b), (a, c), (b, a), (b, c), (c, a), (c, b)):
        share = first.weight / 6 * second.weight / (6 - first.weight)
        assert pairs[first, second] == pytest.approx(12_000 * share, rel=0.15)
    assert sum(pairs.values()) == 12_000


def test_every_number_draws_whose_share_it_lies_in() -> None:
    a, b, c = backends = servers((1, 2, 1))
    numbers = iter((0.0, 0.0, 0.25, 0.0, 0.74, 0.99, 0.75, 0.5))
    lots = Lots(lambda: next(numbers))
    lots.use(backends)
    assert [lots.two() for _ in range(4)] == [(a, b), (b, a), (b, c), (c, b)]


@given(
    weights=st.lists(st.integers(1, 9), max_size=9),
    down=st.sets(st.integers(0, 8)),
    tried=st.sets(st.integers(0, 8)),
    seed=st.integers(0, 1000),
    told=st.booleans(),
)
def test_two_are_different_available_and_not_tried(
    weights: list[int], down: set[int], tried: set[int], seed: int, told: bool
) -> None:
    backends = servers(weights)
    lots = Lots(Random(seed).random)
    lots.use(backends)
    for one in backends:
        one.usable = one.index not in down
        if told:
            lots.update(one)
    able = [one for one in backends if one.usable and one.index not in tried]
    excluded = [one for one in backends if one.index in tried]
    for _ in range(20):
        found = [one for one in lots.two(excluded) if one is not None]
        assert len(set(found)) == min(2, len(able))
        assert set(found) <= set(able)
    for one in backends:
        one.usable = True
        lots.update(one)
    seen = {one for _ in range(40 * len(backends)) for one in lots.two()}
    assert {one for one in backends if one.weight >= 2} <= seen


def test_one_that_is_alone_is_drawn_alone_and_nobody_from_nobody() -> None:
    (one,) = backends = servers((3,))
    lots = Lots(Random(3).random)
    assert lots.two() == (None, None)
    lots.use(backends)
    assert lots.two() == (one, None)
    assert lots.two([one]) == (None, None)
    assert lots.two([server(9)]) == (one, None)


def test_share_follows_the_weight() -> None:
    a, b = backends = servers((1, 1))
    lots = Lots(Random(4).random)
    lots.use(backends)
    reweigh(a, 9)
    lots.update(a)
    lots.update(server(9))
    firsts = Counter(lots.two()[0] for _ in range(2_000))
    assert firsts[a] == pytest.approx(1800, abs=80)
    assert firsts[b] == 2_000 - firsts[a]
