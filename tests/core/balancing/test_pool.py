"""A pool over its reloads."""

from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.balancing.backend import Backend, Lease
from comfyproxy.core.balancing.changes import Changes, diff
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.configuration.addresses import Address


def address(host: str, weight: int = 1, max_conns: int = 0) -> Address:
    return Address("http", host, 8188, weight=weight, max_conns=max_conns)


A, B, C = address("a"), address("b"), address("c")


def reload(pool: Pool, *wanted: Address) -> Changes:
    changes = diff(pool.addresses, wanted)
    pool.apply(changes)
    return changes


def test_pool_has_its_backends_in_order() -> None:
    pool = Pool("gpus", [B, A, C])
    assert [backend.url for backend in pool.backends] == ["http://b:8188", "http://a:8188", "http://c:8188"]
    assert [backend.index for backend in pool.backends] == [0, 1, 2]
    assert len(pool) == 3
    assert pool.name == "gpus"
    assert pool.addresses == (B, A, C)
    assert pool.removed == ()


def test_pool_may_be_empty() -> None:
    pool = Pool("gpus")
    assert (len(pool), pool.backends, pool.find("3786d252ee8a")) == (0, (), None)


def test_backends_take_over_whether_certificates_are_verified() -> None:
    pool = Pool("gpus", [A], verify=False)
    reload(pool, A, B)
    assert [backend.verify for backend in pool.backends] == [False, False]
    assert Pool("gpus", [A]).backends[0].verify


def test_survivors_keep_object_and_leases_and_take_the_new_address_and_place() -> None:
    pool = Pool("gpus", [A, B])
    a, b = pool.backends
    Lease(a)
    reload(pool, C, address("b", weight=5), address("a", max_conns=1))
    assert pool.backends[1:] == (b, a)
    assert (b.address.weight, b.index) == (5, 1)
    assert (a.leases, a.index, a.is_full) == (1, 2, True)


def test_removed_backend_without_work_is_forgotten() -> None:
    pool = Pool("gpus", [A, B])
    a = pool.backends[0]
    reload(pool, B)
    assert a.removed
    assert not pool.holds(a)
    assert pool.find(a.fingerprint) is None
    assert pool.removed == ()


def test_removed_backend_stays_findable_until_its_last_lease_ends() -> None:
    pool = Pool("gpus", [A, B])
    a = pool.backends[0]
    first, second = Lease(a), Lease(a)
    reload(pool, B)
    assert a not in pool.backends
    first.release()
    assert pool.holds(a)
    assert pool.find(a.fingerprint) is a
    assert pool.removed == (a,)
    second.release()
    assert not pool.holds(a)
    assert pool.find(a.fingerprint) is None
    assert pool.find(a.fingerprint) is None
    assert pool.removed == ()


def test_removed_backend_with_work_outlives_further_reloads() -> None:
    pool = Pool("gpus", [A, B, C])
    a, b, _ = pool.backends
    Lease(a)
    reload(pool, B, C)
    Lease(b)
    reload(pool, C)
    assert set(pool.removed) == {a, b}
    assert pool.find(a.fingerprint) is a
    assert pool.find(b.fingerprint) is b


def test_removed_backend_with_work_comes_back_as_the_same_object_if_named_again() -> None:
    pool = Pool("gpus", [A, B])
    a = pool.backends[0]
    Lease(a)
    reload(pool, B)
    reload(pool, B, address("a", weight=3))
    assert pool.backends[1] is a
    assert (a.removed, a.leases, a.index, a.address.weight) == (False, 1, 1, 3)
    assert pool.removed == ()


def test_removed_backend_whose_work_ended_comes_back_as_a_new_one() -> None:
    pool = Pool("gpus", [A])
    a = pool.backends[0]
    lease = Lease(a)
    reload(pool)
    lease.release()
    reload(pool, A)
    assert pool.backends[0] is not a
    assert pool.find(a.fingerprint) is pool.backends[0]


def test_changes_computed_before_another_reload_still_lead_to_what_they_want() -> None:
    pool = Pool("gpus", [A, B])
    stale = diff(pool.addresses, [B])
    reload(pool, B, C)
    pool.apply(stale)
    assert pool.addresses == (B,)


addresses = st.lists(
    st.builds(address, st.sampled_from("abcd"), st.integers(1, 2), st.integers(0, 1)),
    max_size=5,
    unique_by=lambda one: one.key,
)


@given(addresses, addresses)
def test_applying_the_difference_gives_what_was_wanted(old: list[Address], new: list[Address]) -> None:
    pool = Pool("gpus", old)
    before = {backend.url: backend for backend in pool.backends}
    changes = reload(pool, *new)
    assert pool.addresses == changes.wanted == tuple(new)
    assert [backend.index for backend in pool.backends] == list(range(len(new)))
    for backend in pool.backends:
        assert before.get(backend.url, backend) is backend
        assert pool.find(backend.fingerprint) is backend
    assert {one.url for one in changes.added} == {one.url for one in pool.backends} - set(before)


@given(st.lists(addresses | st.tuples(st.sampled_from(["lease", "release"]), st.integers(0, 9)), max_size=20))
def test_backends_live_while_they_are_named_or_have_work(steps: list[object]) -> None:
    pool = Pool("gpus", [A, B])
    alive: dict[str, Backend] = {backend.url: backend for backend in pool.backends}
    leases: list[Lease] = []
    for step in steps:
        match step:
            case ("lease", int(place)) if alive:
                leases.append(Lease(list(alive.values())[place % len(alive)]))
            case ("release", int(place)) if leases:
                leases.pop(place % len(leases)).release()
            case list(wanted):
                reload(pool, *wanted)
                assert all(alive.get(backend.url, backend) is backend for backend in pool.backends)
                alive |= {backend.url: backend for backend in pool.backends}
        named = set(pool.addresses)
        alive = {url: one for url, one in alive.items() if one.address in named or one.leases}
        assert {one.url for one in (*pool.backends, *pool.removed)} == set(alive)
        assert all(pool.find(one.fingerprint) is one and pool.holds(one) for one in alive.values())
        assert all(one.removed == (one not in pool.backends) for one in alive.values())
