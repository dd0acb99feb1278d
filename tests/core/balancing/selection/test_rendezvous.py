"""Rendezvous hashing: keys stay, and only those of a server that goes move."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection import rendezvous
from comfyproxy.core.balancing.selection.rendezvous import Rendezvous
from comfyproxy.core.configuration.addresses import Address
from tests.core.balancing.selection.servers import (
    begin,
    come_up,
    drawn,
    end,
    go_down,
    reweigh,
    server,
    servers,
)

KEYS = [b"10.0.%d.%d" % (number // 250, number % 250) for number in range(2000)]


def homes(policy: Rendezvous, keys: list[bytes] = KEYS) -> dict[bytes, Backend]:
    return {key: drawn(policy, 1, key=key)[0] for key in keys}


def test_key_stays_with_its_backend() -> None:
    policy = Rendezvous(servers([1] * 10))
    assert homes(policy) == homes(policy)


def test_every_process_finds_the_same_backend_whatever_the_order_of_the_list() -> None:
    backends = servers((1, 3, 1, 2))
    other = servers((1, 3, 1, 2))
    first, second = homes(Rendezvous(backends)), homes(Rendezvous(other[::-1]))
    assert {key: one.url for key, one in first.items()} == {key: one.url for key, one in second.items()}


def test_known_keys_have_known_homes() -> None:
    """A release that computes otherwise would move every client's home."""
    policy = Rendezvous([Backend(Address("http", f"10.0.0.{number}", 8188)) for number in range(1, 6)])
    found = [drawn(policy, 1, key=key)[0].address.host[-1] for key in (b"alice", b"bob", b"carol", b"/a?b=1")]
    assert "".join(found) == "4521"


@pytest.mark.parametrize("weights", [(1,) * 8, (5, 1, 1, 3)])
def test_keys_are_spread_by_weight(weights: tuple[int, ...]) -> None:
    backends = servers(weights)
    keys = [b"key-%d" % number for number in range(20_000)]
    served = Counter(homes(Rendezvous(backends), keys).values())
    for one in backends:
        expected = 20_000 * one.address.weight / sum(weights)
        assert served[one] == pytest.approx(expected, abs=5 * expected**0.5)


@given(
    weights=st.lists(st.integers(1, 5), min_size=2, max_size=8),
    gone=st.integers(0, 7),
    how=st.sampled_from(("removed", "down", "tried", "full")),
)
def test_only_the_keys_of_a_server_that_goes_move(weights: list[int], gone: int, how: str) -> None:
    backends = servers(weights, max_conns=1 if how == "full" else 0)
    policy, leaving = Rendezvous(backends), backends[gone % len(backends)]
    keys = KEYS[:300]
    before = homes(policy, keys)
    if how == "removed":
        policy.use([one for one in backends if one is not leaving])
        after = homes(policy, keys)
    elif how == "tried":
        after = {key: drawn(policy, 1, [leaving], key)[0] for key in keys}
    elif how == "down":
        go_down(policy, leaving)
        after = homes(policy, keys)
    else:
        begin(policy, leaving)
        after = homes(policy, keys)
    assert leaving not in after.values()
    assert all(after[key] is home for key, home in before.items() if home is not leaving)


def test_keys_of_a_server_that_goes_are_spread_over_all_others_and_come_back() -> None:
    backends = servers([1] * 5)
    policy = Rendezvous(backends)
    before = homes(policy)
    go_down(policy, backends[2])
    moved = Counter(one for key, one in homes(policy).items() if before[key] is backends[2])
    assert len(moved) == 4
    assert max(moved.values()) < 1.6 * min(moved.values())
    come_up(policy, backends[2])
    assert homes(policy) == before


@given(weights=st.lists(st.integers(1, 5), min_size=1, max_size=8), weight=st.integers(1, 5))
def test_keys_move_only_to_a_server_that_comes(weights: list[int], weight: int) -> None:
    backends = servers(weights)
    policy, new = Rendezvous(backends), server(20, weight)
    before = homes(policy, KEYS[:300])
    policy.use([new, *backends])
    after = homes(policy, KEYS[:300])
    assert all(after[key] in (home, new) for key, home in before.items())


def test_server_that_gets_more_weight_only_wins_keys() -> None:
    backends = servers((1, 1, 1))
    policy = Rendezvous(backends)
    before = homes(policy)
    reweigh(backends[0], 2)
    policy.use(backends)
    after = homes(policy)
    assert all(after[key] in (home, backends[0]) for key, home in before.items())
    assert Counter(after.values())[backends[0]] == pytest.approx(1000, abs=100)


def test_slow_start_moves_no_key() -> None:
    backends = servers((1, 1, 1))
    policy = Rendezvous(backends)
    before = homes(policy)
    backends[0].weight = 0.1
    policy.update(backends[0])
    assert homes(policy) == before


def test_reload_that_changes_nothing_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backends = servers((1, 1, 1))
    policy = Rendezvous(backends)
    before = homes(policy)
    monkeypatch.setattr(Rendezvous, "_scores", None)
    policy.use(list(backends))
    assert homes(policy) == before


def test_next_ranks_are_found_however_many_are_down() -> None:
    backends = servers([1] * 100)
    policy = Rendezvous(backends)
    ranking = list(policy.order(b"key"))
    assert sorted(one.index for one in ranking) == list(range(100))
    go_down(policy, *ranking[:70])
    assert policy.pick(b"key") is ranking[70]
    come_up(policy, ranking[30])
    assert policy.pick(b"key") is ranking[30]


def test_what_is_remembered_of_further_ranks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MAX_RANKS", 100)
    backends = servers([1] * 10)
    policy = Rendezvous(backends)
    go_down(policy, backends[0])
    before = homes(policy)
    assert sum(map(len, policy._ranks.values())) <= 100 + rendezvous.FIRST_RANKS
    assert homes(policy) == before


def test_requests_without_the_key_take_turns() -> None:
    a, b, c = backends = servers((1, 1, 1), max_conns=1)
    policy = Rendezvous(backends)
    assert drawn(policy, 3) == [a, b, c]
    begin(policy, a)
    assert drawn(policy, 4) == [b, c, b, c]
    end(policy, a)
    assert a in drawn(policy, 3)


def test_empty_key_is_a_key() -> None:
    policy = Rendezvous(servers((1, 1, 1)))
    assert len(set(drawn(policy, 5, key=b""))) == 1
