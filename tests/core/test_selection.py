"""The order of candidates: one suite over every policy, then what weights add."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from comfyproxy.core.addresses import Address
from comfyproxy.core.backend import Backend
from comfyproxy.core.selection import Policy, RoundRobin

WEIGHTS = {"equal": (1, 1, 1, 1, 1), "equal and heavy": (7, 7, 7), "unequal": (5, 1, 1, 3), "one": (4,)}
POLICIES: list[type[RoundRobin]] = [RoundRobin]


def backend(place: int, weight: int = 1) -> Backend:
    return Backend(Address("http", f"gpu{place}", 8188, weight=weight), place)


def servers(weights: Iterable[int]) -> list[Backend]:
    return [backend(place, weight) for place, weight in enumerate(weights)]


def reweigh(one: Backend, weight: int) -> None:
    """What a reload does to a survivor."""
    one.address = Address("http", one.address.host, 8188, weight=weight)


def picks(policy: Policy, count: int, usable: Callable[[Backend], bool] = lambda one: True) -> list[Backend]:
    """The first usable candidate of each of ``count`` orders."""
    return [next(filter(usable, policy.order())) for _ in range(count)]


def places(backends: Sequence[Backend]) -> str:
    return "".join("abcdefgh"[one.index] for one in backends)


@pytest.fixture(params=POLICIES)
def policy_type(request: pytest.FixtureRequest) -> type[RoundRobin]:
    return request.param


@pytest.fixture(params=WEIGHTS.values(), ids=WEIGHTS.keys())
def weights(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param


def test_order_has_every_backend_once(policy_type: type[RoundRobin], weights: tuple[int, ...]) -> None:
    backends = servers(weights)
    policy = policy_type(backends)
    for taken in range(3 * len(backends)):
        list(islice(policy.order(), taken % len(backends)))
        assert sorted(one.index for one in policy.order()) == list(range(len(backends)))


def test_order_of_nobody_is_empty(policy_type: type[RoundRobin]) -> None:
    policy = policy_type()
    assert list(policy.order()) == []
    policy.use(servers((1, 2)))
    policy.use([])
    assert list(policy.order()) == []


@pytest.mark.parametrize("rounds", [1, 3])
def test_every_full_round_gives_each_backend_its_weight(
    policy_type: type[RoundRobin], weights: tuple[int, ...], rounds: int
) -> None:
    policy = policy_type(servers(weights))
    assert Counter(one.index for one in picks(policy, rounds * sum(weights))) == Counter(
        {place: rounds * weight for place, weight in enumerate(weights)}
    )


@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=7), draws=st.integers(1, 60))
def test_shares_are_fair_within_one_at_any_time(weights: list[int], draws: int) -> None:
    for policy_type in POLICIES:
        served = Counter(one.index for one in picks(policy_type(servers(weights)), draws))
        for place, weight in enumerate(weights):
            low, high = (bound * weight for bound in virtual_time(weights, draws))
            assert low - 1 <= served[place] <= high + 1


def virtual_time(weights: list[int], draws: int) -> tuple[float, float]:
    """Between how many rounds have passed after ``draws``: the backends' first turns are spread over one."""
    total, spread = sum(weights), len(weights)
    return max(0.0, (draws - spread) / total), (draws + spread) / total


def test_backend_that_is_full_leaves_its_share_to_all(
    policy_type: type[RoundRobin], weights: tuple[int, ...]
) -> None:
    backends = servers((*weights, 1, 1))
    full = backends[0]
    draws = 20 * (sum(weights) + 2 - weights[0])
    served = Counter(picks(policy_type(backends), draws, lambda one: one is not full))
    for one in backends[1:]:
        assert abs(served[one] - 20 * one.address.weight) <= 2


def test_backend_that_refuses_does_not_double_its_neighbours_share(
    policy_type: type[RoundRobin], weights: tuple[int, ...]
) -> None:
    backends = servers((*weights, 1, 1))
    policy, refusing = policy_type(backends), backends[0]
    served: Counter[Backend] = Counter()
    for _ in range(20 * (sum(weights) + 2 - weights[0])):
        first = next(iter(policy.order()))
        again = (one for one in policy.order() if one is not refusing)
        served[next(again) if first is refusing else first] += 1
        again.close()
    for one in backends[1:]:
        assert abs(served[one] - 20 * one.address.weight) <= 3


@pytest.mark.parametrize("draws", range(8))
def test_backend_that_comes_back_makes_up_for_nothing(
    policy_type: type[RoundRobin], weights: tuple[int, ...], draws: int
) -> None:
    backends = servers((*weights, 1, 1))
    policy, total = policy_type(backends), sum(weights) + 2
    picks(policy, 50 * total + draws, lambda one: one is not backends[0])
    assert picks(policy, total).count(backends[0]) <= weights[0] + 1


@pytest.mark.parametrize("draws", range(9))
def test_reload_that_changes_nothing_goes_on_where_it_was(
    policy_type: type[RoundRobin], weights: tuple[int, ...], draws: int
) -> None:
    backends = servers(weights)
    undisturbed, reloaded = policy_type(backends), policy_type(backends)
    picks(undisturbed, draws)
    picks(reloaded, draws)
    reloaded.use(list(backends))
    assert picks(reloaded, 2 * sum(weights)) == picks(undisturbed, 2 * sum(weights))


def test_reload_before_every_request_still_serves_everybody(
    policy_type: type[RoundRobin], weights: tuple[int, ...]
) -> None:
    backends = servers(weights)
    policy = policy_type(backends)
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
    now = survivors + [backend(place) for place in range(10, 10 + added)]
    assume(now)
    for policy_type in POLICIES:
        policy = policy_type(backends)
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


@pytest.mark.parametrize(
    ("weights", "sequence"),
    [
        ((1, 1, 1), "abcabc"),
        ((5, 1, 1), "aabaacaaabaaca"),
        ((2, 1), "aabaab"),
        ((1, 2), "abbabb"),
        ((3, 2, 1), "abaabcabaabc"),
    ],
)
def test_turns_of_heavy_and_light_backends_interleave(weights: tuple[int, ...], sequence: str) -> None:
    assert places(picks(RoundRobin(servers(weights)), len(sequence))) == sequence


@given(st.lists(st.integers(1, 20), min_size=2, max_size=8))
def test_turns_of_a_backend_are_spread_over_the_round(weights: list[int]) -> None:
    total = sum(weights)
    sequence = [one.index for one in picks(RoundRobin(servers(weights)), 3 * total)]
    for place, weight in enumerate(weights):
        turns = [at for at, index in enumerate(sequence) if index == place]
        assert max(then - at for at, then in pairwise(turns)) <= total / weight + len(weights)


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
    assert c not in picks(policy, 10)
    reweigh(c, 8)
    reweigh(a, 4)
    policy.use(backends)
    assert c in picks(policy, 4)
