"""The table of ids: what it remembers, what it need not remember, and what it forgets."""

from collections.abc import Callable

import pytest

from comfyproxy.comfyui.affinity import MAX_ENTRIES, TIME_TO_LIVE, AffinityTable
from comfyproxy.comfyui.identity import mint_client_id, mint_prompt_id
from comfyproxy.core.balancing.backend import Lease
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.configuration.addresses import parse_addresses


@pytest.fixture
def pool(make_pool: Callable[..., Pool]) -> Pool:
    """server1, server2 and server3."""
    return make_pool()


def reload(pool: Pool, servers: str) -> None:
    pool.apply(diff(pool.addresses, parse_addresses(servers)))


def test_an_id_is_found_where_it_was_bound(pool: Pool) -> None:
    table = AffinityTable(pool)
    one, two, _ = pool.backends
    assert table.find("mine", 0) is None
    table.bind("mine", one, 0)
    table.bind("yours", two, 0)
    assert (table.find("mine", 1), table.find("yours", 1)) == (one, two)
    table.bind("mine", two, 2)
    assert table.find("mine", 3) is two


def test_an_id_that_names_its_backend_is_found_without_having_been_bound(pool: Pool) -> None:
    table = AffinityTable(pool)
    for backend in pool.backends:
        assert table.find(mint_prompt_id(backend.fingerprint), 0) is backend
        assert table.find(mint_client_id(backend.fingerprint), 0) is backend
    assert table.find(mint_prompt_id("000000000000"), 0) is None


def test_an_id_that_names_its_backend_takes_no_room(pool: Pool) -> None:
    table = AffinityTable(pool)
    one, two, _ = pool.backends
    minted = mint_client_id(one.fingerprint)
    table.bind(minted, one, 0)
    assert len(table) == 0
    table.bind(minted, two, 0)
    assert (len(table), table.find(minted, 0)) == (1, two)
    table.bind(minted, one, 0)
    assert (len(table), table.find(minted, 0)) == (0, one)


def test_the_least_recently_used_ids_are_forgotten_first(pool: Pool) -> None:
    table = AffinityTable(pool, size=3)
    one, *_ = pool.backends
    for name in "abc":
        table.bind(name, one, 0)
    assert table.find("a", 1) is one
    table.bind("d", one, 2)
    assert [name for name in "abcd" if table.find(name, 3)] == ["a", "c", "d"]
    assert len(table) == 3


def test_an_id_that_is_not_used_is_forgotten(pool: Pool) -> None:
    table = AffinityTable(pool, ttl=10)
    one, *_ = pool.backends
    table.bind("used", one, 0)
    table.bind("unused", one, 0)
    assert table.find("used", 9) is one
    assert table.find("used", 18) is one
    assert table.find("unused", 10) is None
    assert len(table) == 1


def test_expired_ids_make_room_as_others_come(pool: Pool) -> None:
    table = AffinityTable(pool, ttl=10)
    one, *_ = pool.backends
    for number in range(5):
        table.bind(f"old {number}", one, number)
    table.bind("new", one, 12.5)
    assert len(table) == 3


def test_an_expired_id_still_says_what_it_says_itself(pool: Pool) -> None:
    table = AffinityTable(pool, ttl=10)
    one, two, _ = pool.backends
    minted = mint_client_id(one.fingerprint)
    table.bind(minted, two, 0)
    assert table.find(minted, 10) is one


def test_an_id_of_a_removed_backend_is_kept_while_it_has_work(pool: Pool) -> None:
    table = AffinityTable(pool)
    one, *_ = pool.backends
    table.bind("mine", one, 0)
    socket = Lease(one)
    reload(pool, "http://server2:8188")
    assert table.find("mine", 1) is one
    socket.release()
    assert table.find("mine", 2) is None
    assert len(table) == 0


def test_a_backend_that_comes_back_is_found_by_what_names_it(pool: Pool) -> None:
    table = AffinityTable(pool)
    one, *_ = pool.backends
    minted = mint_prompt_id(one.fingerprint)
    table.bind("mine", one, 0)
    reload(pool, "http://server2:8188")
    assert table.find(minted, 1) is None
    reload(pool, "http://server[1-3]:8188")
    assert table.find(minted, 2) is pool.backends[0]
    assert table.find("mine", 2) is None


def test_the_bounds_cover_ten_histories_and_a_weekend() -> None:
    assert MAX_ENTRIES >= 10 * 10_000
    assert TIME_TO_LIVE >= 4 * 24 * 3600
