"""Round robin: who has the turn, through failures, reloads and weights that change."""

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.round_robin import RoundRobin
from tests.core.balancing.selection.servers import (
    begin,
    come_up,
    drawn,
    end,
    go_down,
    picks,
    places,
    reweigh,
    server,
    servers,
)

WEIGHTS = {"equal": (1, 1, 1, 1, 1), "equal and heavy": (7, 7, 7), "unequal": (5, 1, 1, 3), "one": (4,)}


@pytest.fixture(params=WEIGHTS.values(), ids=WEIGHTS.keys())
def weights(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param


@pytest.mark.parametrize("rounds", [1, 3])
def test_every_full_round_gives_each_backend_its_weight(weights: tuple[int, ...], rounds: int) -> None:
    policy = RoundRobin(servers(weights))
    assert Counter(one.index for one in picks(policy, rounds * sum(weights))) == Counter(
        {place: rounds * weight for place, weight in enumerate(weights)}
    )


@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=7), draws=st.integers(1, 60))
def test_shares_are_fair_within_one_at_any_time(weights: list[int], draws: int) -> None:
    served = Counter(one.index for one in picks(RoundRobin(servers(weights)), draws))
    for place, weight in enumerate(weights):
        low, high = (bound * weight for bound in virtual_time(weights, draws))
        assert low - 1 <= served[place] <= high + 1


def virtual_time(weights: list[int], draws: int) -> tuple[float, float]:
    """Between how many rounds have passed after ``draws``: the backends' first turns are spread over one."""
    total, spread = sum(weights), len(weights)
    return max(0.0, (draws - spread) / total), (draws + spread) / total


@pytest.mark.parametrize(
    ("weights", "sequence"),
    [((1, 1, 1), "abcabc"), ((5, 1, 1), "aabacaaaabacaa"), ((2, 1), "abaaba"), ((3, 2, 1), "abacba")],
)
def test_turns_of_heavy_and_light_backends_interleave(weights: tuple[int, ...], sequence: str) -> None:
    assert places(picks(RoundRobin(servers(weights)), len(sequence))) == sequence


def test_backend_that_is_down_leaves_its_share_to_all(weights: tuple[int, ...]) -> None:
    backends = servers((*weights, 1, 1))
    policy = RoundRobin(backends)
    go_down(policy, backends[0])
    served = Counter(drawn(policy, 20 * (sum(weights) + 2 - weights[0])))
    for one in backends[1:]:
        assert abs(served[one] - 20 * one.address.weight) <= 2


def test_backend_that_refuses_does_not_double_its_neighbours_share(weights: tuple[int, ...]) -> None:
    backends = servers((*weights, 1, 1))
    policy, refusing = RoundRobin(backends), backends[0]
    served: Counter[Backend] = Counter()
    for _ in range(20 * (sum(weights) + 2)):
        first = policy.pick()
        found = policy.pick(None, (refusing,)) if first is refusing else first
        assert found is not None
        served[found] += 1
    extra = weights[0] / (sum(weights) + 2 - weights[0])
    for one in backends[1:]:
        assert abs(served[one] - 20 * one.address.weight * (1 + extra)) <= 20


@pytest.mark.parametrize("draws", range(8))
def test_backend_that_comes_back_makes_up_for_nothing(weights: tuple[int, ...], draws: int) -> None:
    backends = servers((*weights, 1, 1))
    policy, total = RoundRobin(backends), sum(weights) + 2
    picks(policy, draws)
    go_down(policy, backends[0])
    picks(policy, 50 * total + draws)
    come_up(policy, backends[0])
    assert picks(policy, total).count(backends[0]) <= weights[0] + 1


@pytest.mark.parametrize("draws", range(9))
def test_reload_that_changes_nothing_goes_on_where_it_was(weights: tuple[int, ...], draws: int) -> None:
    backends = servers(weights)
    undisturbed, reloaded = RoundRobin(backends), RoundRobin(backends)
    picks(undisturbed, draws)
    picks(reloaded, draws)
    reloaded.use(list(backends))
    assert picks(reloaded, 2 * sum(weights)) == picks(undisturbed, 2 * sum(weights))


def test_reload_before_every_request_still_serves_everybody(weights: tuple[int, ...]) -> None:
    backends = servers(weights)
    policy = RoundRobin(backends)
    served: Counter[int] = Counter()
    for _ in range(3 * sum(weights)):
        policy.use(list(backends))
        served[next(iter(policy.order())).index] += 1
    assert served == Counter({place: 3 * weight for place, weight in enumerate(weights)})


@given(
    before=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    draws=st.integers(0, 12),
    kept=st.lists(st.integers(0, 5), unique=True, max_size=6),
    after=st.lists(st.integers(1, 4), min_size=12, max_size=12),
    added=st.integers(0, 3),
)
def test_reload_gives_every_backend_its_turn_within_a_round(
    before: list[int], draws: int, kept: list[int], after: list[int], added: int
) -> None:
    backends = servers(before)
    survivors = [backends[place] for place in kept if place < len(backends)]
    now = survivors + [server(place) for place in range(10, 10 + added)]
    assume(now)
    policy = RoundRobin(backends)
    picks(policy, draws)
    for one, weight in zip(now, after, strict=False):
        reweigh(one, weight)
    policy.use(now)
    total = sum(one.address.weight for one in now)
    served = Counter(picks(policy, total + len(now)))
    assert set(served) == set(now)
    for one in now:
        assert abs(served[one] - one.address.weight) <= 2 + len(now) * one.address.weight / total


def test_order_that_is_not_used_up_does_not_disturb_the_next() -> None:
    backends = servers((1, 1, 1))
    policy = RoundRobin(backends)
    first = policy.order()
    assert next(first) is backends[0]
    second = policy.order()
    assert [one.index for one in second] == [1, 2, 0]
    assert [one.index for one in first] == [1, 2]


def test_turn_goes_to_the_next_survivor_when_its_backend_is_removed() -> None:
    a, b, c, d = backends = servers((1, 1, 1, 1))
    policy = RoundRobin(backends)
    picks(policy, 1)
    policy.use([d, a, c])
    assert picks(policy, 4) == [c, d, a, c]
    assert b.index == 1


def test_turn_begins_at_the_start_when_nobody_survives() -> None:
    policy = RoundRobin(servers((1, 1, 1)))
    picks(policy, 2)
    fresh = servers((1, 1))
    policy.use(fresh)
    assert picks(policy, 2) == fresh


def test_weights_that_become_unequal_and_equal_again_keep_the_turn() -> None:
    a, b, c, d = backends = servers((1, 1, 1, 1))
    policy = RoundRobin(backends)
    picks(policy, 1)
    reweigh(c, 2)
    policy.use(backends)
    assert picks(policy, 2) == [b, c]
    reweigh(c, 1)
    policy.use(backends)
    assert picks(policy, 4) == [d, a, b, c]


def test_backend_whose_weight_grows_need_not_wait_for_its_old_turn() -> None:
    a, _, c = backends = servers((8, 8, 1))
    policy = RoundRobin(backends)
    assert picks(policy, 12).count(c) == 1
    reweigh(c, 8)
    reweigh(a, 4)
    policy.use(backends)
    assert c in picks(policy, 4)


def test_pool_that_shrinks_does_not_work_off_its_former_size() -> None:
    backends = servers([1] * 99 + [2])
    policy = RoundRobin(backends)
    picks(policy, 50)
    served, waiting = backends[0], backends[98]
    reweigh(waiting, 2)
    policy.use([served, waiting])
    assert picks(policy, 30).count(served) == 10


def test_slow_start_has_a_growing_share_and_ends_in_even_turns() -> None:
    a, b, c = backends = servers((1, 1, 1))
    policy = RoundRobin(backends)
    picks(policy, 1)
    b.weight = 0.5
    policy.update(b)
    assert Counter(picks(policy, 50)) == {a: 20, b: 10, c: 20}
    b.weight = 1.0
    policy.update(b)
    assert Counter(picks(policy, 30)) == {a: 10, b: 10, c: 10}
    assert places(picks(policy, 6)) in ("abcabc", "bcabca", "cabcab")


def test_full_backends_of_equal_weight_wait_until_they_have_room_then_stand_behind() -> None:
    a, b, c = backends = servers((1, 1, 1), max_conns=1)
    policy = RoundRobin(backends)
    assert policy.watches
    for one in drawn(policy, 1):
        begin(policy, one)
    assert places(drawn(policy, 4)) == "bcbc"
    end(policy, a)
    assert places(drawn(policy, 3)) == "bca"
    assert (b.leases, c.leases) == (0, 0)


def test_full_backends_of_unequal_weight_are_left_out_at_once_as_in_nginx() -> None:
    a, b, c = backends = servers((5, 1, 1), max_conns=1)
    policy = RoundRobin(backends)
    begin(policy, a)
    assert places(drawn(policy, 4)) == "bcbc"
    end(policy, a)
    assert places(drawn(policy, 7)) == "aabacaa"
    assert (b.leases, c.leases) == (0, 0)


def test_backends_without_a_limit_need_no_watching() -> None:
    assert not RoundRobin(servers((1, 2))).watches


def test_work_that_ends_on_a_removed_backend_that_began_slowly_changes_nothing() -> None:
    a, b = backends = servers((1, 1), max_conns=5)
    policy = RoundRobin(backends)
    begin(policy, b)
    b.weight = 0.5
    policy.use([a])
    b.removed = True
    end(policy, b)
    assert not policy._ramping
    assert drawn(policy, 3) == [a, a, a]
