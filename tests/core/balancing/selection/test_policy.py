"""What holds for every policy: each backend once, none that is not available, none that was tried."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.balance import Balance, make_policy, parse_balance
from comfyproxy.core.balancing.selection.policy import Ordered, Selection, may_fill, units
from tests.core.balancing.selection.servers import begin, come_up, end, go_down, reweigh, server, servers

WEIGHTS = {"equal": (1, 1, 1, 1, 1), "equal and heavy": (7, 7, 7), "unequal": (5, 1, 1, 3), "one": (4,)}
POLICIES = ["round-robin", "least-conn", "random-two", "ewma", "first", "ip-hash", "hash:uri"]
KEYS = [None, b"key"]

Make = Callable[[Sequence[Backend]], Selection]


def make(name: str, backends: Sequence[Backend]) -> Selection:
    policy = make_policy(parse_balance(name), Random(0).random, clock=lambda: 0.0)
    policy.use(backends)
    return policy


@pytest.fixture(params=POLICIES)
def policy_of(request: pytest.FixtureRequest) -> Make:
    return lambda backends: make(request.param, backends)


@pytest.fixture(params=WEIGHTS.values(), ids=WEIGHTS.keys())
def weights(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param


@pytest.fixture(params=KEYS, ids=["no key", "key"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    return request.param


def test_order_has_every_backend_once(policy_of: Make, weights: tuple[int, ...], key: bytes | None) -> None:
    backends = servers(weights)
    policy = policy_of(backends)
    for taken in range(3 * len(backends)):
        list(islice(policy.order(key), taken % len(backends)))
        assert sorted(one.index for one in policy.order(key)) == list(range(len(backends)))


def test_order_of_nobody_is_empty(policy_of: Make, key: bytes | None) -> None:
    policy = policy_of([])
    assert list(policy.order(key)) == []
    policy.use(servers((1, 2)))
    policy.use([])
    assert list(policy.order(key)) == []
    assert policy.pick(key) is None


def test_what_is_tried_is_not_picked(policy_of: Make, weights: tuple[int, ...], key: bytes | None) -> None:
    backends = servers((*weights, 1, 1))
    policy = policy_of(backends)
    left = backends[-2:]
    for _ in range(20):
        assert policy.pick(key, backends[:-2]) in left
        assert policy.pick(key, backends) is None
    assert policy.pick(key, [server(99)]) in backends


@pytest.mark.parametrize("told", [True, False])
def test_what_is_down_is_left_out_until_it_is_told_to_be_back(
    policy_of: Make, weights: tuple[int, ...], key: bytes | None, told: bool
) -> None:
    backends = servers((*weights, 1, 1))
    policy, down = policy_of(backends), backends[:-2]
    for one in down:
        one.usable = False
        if told:
            policy.update(one)
    assert {policy.pick(key) for _ in range(60)} <= set(backends[-2:])
    assert set(policy.order(key)) == set(backends[-2:])
    come_up(policy, *down)
    assert sorted(one.index for one in policy.order(key)) == list(range(len(backends)))


def test_nobody_is_found_while_all_are_down(policy_of: Make, key: bytes | None) -> None:
    backends = servers((1, 2, 1))
    policy = policy_of(backends)
    go_down(policy, *backends)
    assert policy.pick(key) is None
    assert list(policy.order(key)) == []
    come_up(policy, backends[1])
    assert policy.pick(key) is backends[1]


def test_what_is_full_is_left_out_until_it_has_room(
    policy_of: Make, weights: tuple[int, ...], key: bytes | None
) -> None:
    backends = servers((*weights, 1), max_conns=2)
    policy = policy_of(backends)
    assert policy.watches
    for _ in range(2 * len(backends)):
        one = policy.pick(key)
        assert one is not None
        begin(policy, one)
    assert [one.leases for one in backends] == [2] * len(backends)
    assert policy.pick(key) is None
    end(policy, backends[0])
    assert policy.pick(key) is backends[0]


def test_backends_that_it_has_not_may_end_and_change(policy_of: Make) -> None:
    backends = servers((1, 2))
    policy, gone = policy_of(backends), server(9)
    begin(policy, gone)
    end(policy, gone, 1.0, 2.0)
    policy.update(gone)
    assert sorted(one.index for one in policy.order()) == [0, 1]


def test_weight_may_change_between_reloads(policy_of: Make, key: bytes | None) -> None:
    backends = servers((4, 4, 4))
    policy = policy_of(backends)
    for weight in (0.4, 2.2, 4.0):
        backends[1].weight = weight
        policy.update(backends[1])
        assert sorted(one.index for one in policy.order(key)) == [0, 1, 2]


STEPS = st.lists(
    st.tuples(st.sampled_from(("pick", "end", "down", "up", "reload", "reweigh")), st.integers(0, 6)),
    max_size=60,
)


@settings(max_examples=300)
@given(
    name=st.sampled_from(POLICIES),
    weights=st.lists(st.integers(1, 4), min_size=1, max_size=7),
    steps=STEPS,
    fills=st.booleans(),
)
def test_whatever_happens_it_finds_somebody_as_long_as_there_is_one(
    name: str, weights: list[int], steps: list[tuple[str, int]], fills: bool
) -> None:
    backends = servers(weights, max_conns=2 if fills else 0)
    policy, running = make(name, backends), list[Backend]()
    for step, number in steps:
        one = backends[number % len(backends)]
        tried = backends[:number] if number < 3 else []
        if step == "pick":
            found = policy.pick(b"%d" % number if number % 2 else None, tried)
            able = [other for other in backends if other.is_available and other not in tried]
            assert (found in able) if able else found is None
            if found is not None:
                begin(policy, found)
                running.append(found)
        elif step == "end" and running:
            end(policy, running.pop(number % len(running)), number / 2, now=number)
        elif step == "down":
            go_down(policy, one)
        elif step == "up":
            come_up(policy, one)
        elif step == "reweigh":
            one.weight = one.address.weight * (1 + number) / 7
            policy.update(one)
        elif step == "reload":
            if number % 3 == 0:
                reweigh(one, 1 + number)
            backends = [*backends[number % len(backends) :], *backends[: number % len(backends)]]
            policy.use(backends)
    able = [one.index for one in backends if one.is_available]
    assert sorted(one.index for one in policy.order()) == sorted(able)


class FromTheLast:
    """The least that a policy may be."""

    def use(self, backends: Sequence[Backend]) -> None:
        self.backends = backends

    def order(self, key: bytes | None = None) -> Iterator[Backend]:
        return reversed(self.backends)


def test_policy_that_has_only_an_order_is_picked_from() -> None:
    backends = servers((1, 1, 1))
    policy = Ordered(FromTheLast())
    policy.use(backends)
    assert policy.pick() is backends[2]
    assert policy.pick(None, [backends[2]]) is backends[1]
    backends[2].usable = False
    begin(policy, backends[1])
    end(policy, backends[1])
    assert list(policy.order()) == [backends[1], backends[0]]
    assert policy.pick(b"", backends) is None


def test_base_of_policies_leaves_using_and_picking_to_them() -> None:
    with pytest.raises(NotImplementedError):
        Selection().use([])
    with pytest.raises(NotImplementedError):
        Selection().pick()
    Selection().given_back(server(0), 0.0, 0.0)


@pytest.mark.parametrize(("weight", "share"), [(1.0, 100), (3.0, 300), (0.25, 25), (0.001, 1)])
def test_share_is_counted_in_hundredths_and_never_nothing(weight: float, share: int) -> None:
    one = server(0)
    one.weight = weight
    assert units(one) == share


def test_only_backends_with_a_limit_may_fill() -> None:
    assert not may_fill(servers((1, 1)))
    assert may_fill([*servers((1, 1)), server(2, max_conns=1)])


def test_default_is_round_robin() -> None:
    assert parse_balance("round-robin") == Balance()
