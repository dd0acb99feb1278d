"""Choosing a backend: who may be used, and what is said when nobody may."""

from collections.abc import Iterator, Sequence

import pytest

from comfyproxy.core.balancing.backend import AdminState, Backend, Lease, Outcome
from comfyproxy.core.balancing.balancer import FAILED_SECONDS, Balancer
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.outliers import EjectionRules
from comfyproxy.core.balancing.pool import HealthRules, Pool
from comfyproxy.core.balancing.selection.balance import Balance, parse_balance
from comfyproxy.core.balancing.selection.keys import address_key
from comfyproxy.core.balancing.selection.policy import Selection
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.errors import NoBackendAvailable


def address(host: str, max_conns: int = 0, weight: int = 1, backup: bool = False) -> Address:
    return Address("http", host, 8188, max_conns=max_conns, weight=weight, backup=backup)


def with_backups(primaries: str, backups: str, max_conns: int = 0) -> Balancer:
    """A balancer whose pool has its backups in the middle: their place says nothing."""
    half = len(primaries) // 2
    addresses = [address(host, max_conns) for host in primaries[:half]]
    addresses += [address(host, max_conns, backup=True) for host in backups]
    return Balancer(Pool("gpus", [*addresses, *(address(host, max_conns) for host in primaries[half:])]))


def set_usable(balance: Balancer, hosts: str, state: AdminState = AdminState.MAINT) -> None:
    for backend in balance.pool.backends:
        if backend.address.host in hosts:
            balance.pool.set_admin(backend, state, 0.0)


def balancer(*hosts: str, max_conns: int = 0) -> Balancer:
    return Balancer(Pool("gpus", [address(host, max_conns) for host in hosts]))


def hosts(leases: list[Lease]) -> str:
    return "".join(lease.backend.address.host for lease in leases)


class FromTheLast:
    """A policy of the test's own."""

    def use(self, backends: Sequence[Backend]) -> None:
        self.backends = backends

    def order(self, key: bytes | None = None) -> Iterator[Backend]:
        return reversed(self.backends)


def test_requests_go_round() -> None:
    balance = balancer("a", "b", "c")
    leases = [balance.choose() for _ in range(7)]
    assert hosts(leases) == "abcabca"
    assert [backend.leases for backend in balance.pool.backends] == [3, 2, 2]


def test_policy_says_who_comes_first() -> None:
    balance = Balancer(Pool("gpus", [address("a"), address("b")]), FromTheLast())
    assert hosts([balance.choose(), balance.choose()]) == "bb"


def test_full_backend_is_passed_over_until_it_has_room() -> None:
    balance = balancer("a", "b", max_conns=1)
    first, second = balance.choose(), balance.choose()
    assert hosts([first, second]) == "ab"
    second.release()
    assert hosts([balance.choose()]) == "b"
    with pytest.raises(NoBackendAvailable):
        balance.choose()
    first.release()
    assert hosts([balance.choose()]) == "a"


def test_tried_backend_is_not_chosen_again() -> None:
    balance = balancer("a", "b", "c")
    a, b, _ = balance.pool.backends
    assert hosts([balance.choose([a]), balance.choose((a, b)), balance.choose({b})]) == "bca"


def test_refused_choice_takes_no_lease() -> None:
    balance = balancer("a")
    with pytest.raises(NoBackendAvailable):
        balance.choose(balance.pool.backends)
    assert balance.pool.backends[0].leases == 0


def test_there_is_more_while_one_can_be_used_that_was_not_tried() -> None:
    balance = balancer("a", "b", max_conns=1)
    a, b = balance.pool.backends
    assert balance.has_more([])
    assert balance.has_more([a])
    assert not balance.has_more([a, b])
    Lease(b)
    assert not balance.has_more([a])
    assert balance.has_more([])


def test_asking_whether_there_is_more_moves_nobodys_turn() -> None:
    balance = balancer("a", "b")
    balance.has_more([])
    assert hosts([balance.choose()]) == "a"


def test_reload_reaches_pool_and_policy() -> None:
    balance = balancer("a", "b", "c")
    balance.choose()
    changes = diff(balance.pool.addresses, [address("c"), address("d")])
    balance.apply(changes)
    assert balance.pool.addresses == changes.wanted
    assert hosts([balance.choose() for _ in range(3)]) == "cdc"


def test_backend_removed_from_the_pool_is_not_chosen_before_the_policy_knows() -> None:
    balance = balancer("a", "b")
    balance.pool.apply(diff(balance.pool.addresses, [address("b")]))
    assert hosts([balance.choose(), balance.choose()]) == "bb"


@pytest.mark.parametrize(
    ("servers", "full", "tried", "why"),
    [
        ("", "", "", "The pool 'gpus' has no servers."),
        ("ab", "ab", "", "The pool 'gpus' is full: every server has as much in flight as it may."),
        ("a", "", "a", "The pool 'gpus' has no server that can be reached: its only one was tried."),
        ("abc", "", "abc", "The pool 'gpus' has no server that can be reached: all 3 were tried."),
        (
            "abc",
            "bc",
            "a",
            "The pool 'gpus' has no server left: 1 of its 3 cannot be reached, and the others have as much "
            "in flight as they may.",
        ),
    ],
)
def test_refusal_says_why_nobody_may_be_used(servers: str, full: str, tried: str, why: str) -> None:
    balance = balancer(*servers, max_conns=1)
    backends = {backend.address.host: backend for backend in balance.pool.backends}
    for host in full:
        Lease(backends[host])
    with pytest.raises(NoBackendAvailable) as caught:
        balance.choose([backends[host] for host in tried])
    assert str(caught.value) == why
    assert (caught.value.pool, caught.value.status) == ("gpus", 503)


def test_backends_tried_and_removed_since_are_not_counted() -> None:
    balance = balancer("a", "b", max_conns=1)
    a, b = balance.pool.backends
    balance.apply(diff(balance.pool.addresses, [address("b", max_conns=1)]))
    Lease(b)
    with pytest.raises(NoBackendAvailable, match="is full"):
        balance.choose([a])


def test_host_is_kept_unless_backends_want_their_own() -> None:
    assert balancer("a").keep_host
    assert balancer("a").router is None
    assert not Balancer(Pool("gpus"), keep_host=False).keep_host


def test_refusal_says_that_servers_are_out_of_use() -> None:
    balance = balancer("a", "b", "c")
    set_usable(balance, "abc")
    with pytest.raises(
        NoBackendAvailable, match="no server that works: all 3 are down or out of use"
    ) as caught:
        balance.choose()
    assert not caught.value.is_full
    set_usable(balance, "a", AdminState.READY)
    with pytest.raises(
        NoBackendAvailable, match="1 of its 3 cannot be reached, and the others are down or out"
    ):
        balance.choose(balance.pool.backends[:1])
    alone = balancer("a")
    set_usable(alone, "a", AdminState.DRAIN)
    with pytest.raises(NoBackendAvailable, match="no server that works: its only one is down or out of use"):
        alone.choose()


@pytest.mark.parametrize(("full", "tried", "down", "is_full"), [("a", "", "b", True), ("a", "a", "b", False)])
def test_refusal_tells_whether_waiting_helps(full: str, tried: str, down: str, is_full: bool) -> None:
    balance = balancer("a", "b", max_conns=1)
    a, _ = balance.pool.backends
    Lease(a)
    set_usable(balance, down)
    with pytest.raises(NoBackendAvailable) as caught:
        balance.choose([a] if tried else [])
    assert caught.value.is_full is is_full


def test_backup_gets_work_only_when_no_other_server_can() -> None:
    balance = with_backups("ab", "xy")
    assert hosts([balance.choose() for _ in range(4)]) == "abab"
    set_usable(balance, "a")
    assert hosts([balance.choose() for _ in range(3)]) == "bbb"
    set_usable(balance, "b")
    assert hosts([balance.choose() for _ in range(4)]) == "xyxy"
    set_usable(balance, "a", AdminState.READY)
    assert hosts([balance.choose() for _ in range(2)]) == "aa"


def test_backup_is_the_next_when_all_others_were_tried_or_are_full() -> None:
    balance = with_backups("ab", "x", max_conns=1)
    others = [backend for backend in balance.pool.backends if not backend.address.backup]
    assert hosts([balance.choose(others)]) == "x"
    balance = with_backups("ab", "x", max_conns=1)
    assert hosts([balance.choose() for _ in range(3)]) == "abx"
    with pytest.raises(NoBackendAvailable) as caught:
        balance.choose()
    assert caught.value.is_full


def test_server_becomes_a_backup_and_a_primary_by_reload() -> None:
    balance = balancer("a", "b", "c")
    kept = balance.pool.backends
    balance.apply(diff(balance.pool.addresses, [address("a"), address("b", backup=True), address("c")]))
    assert hosts([balance.choose() for _ in range(4)]) == "acac"
    balance.apply(diff(balance.pool.addresses, [address("a"), address("b"), address("c", backup=True)]))
    assert hosts([balance.choose() for _ in range(4)]) in ("abab", "baba")
    assert balance.pool.backends == kept


def test_pool_of_backups_alone_is_a_pool() -> None:
    balance = with_backups("", "xy")
    assert hosts([balance.choose() for _ in range(3)]) == "xyx"


class Listening(Selection):
    """Takes down what it is told."""

    def __init__(self, watches: bool = True) -> None:
        self.watches = watches
        self.told: list[object] = []

    def use(self, backends: Sequence[Backend]) -> None:
        self.backends = backends

    def pick(self, key: bytes | None = None, tried: object = ()) -> Backend | None:
        self.told.append(("key", key))
        return next((one for one in self.backends if one.is_available), None)

    def taken(self, backend: Backend) -> None:
        self.told.append(("taken", backend.address.host))

    def given_back(self, backend: Backend, seconds: float, now: float) -> None:
        self.told.append(("given back", backend.address.host, seconds, now))

    def update(self, backend: Backend) -> None:
        self.told.append(("update", backend.address.host))


def test_policy_that_watches_is_told_of_all_work() -> None:
    policy, spare = Listening(), Listening(watches=False)
    pool = Pool("gpus", [address("a"), address("x", backup=True)])
    balance = Balancer(pool, policy, spare_policy=spare, clock=lambda: 7.0)
    balance.choose(key=b"k").release(Outcome.ANSWERED, 0.5)
    balance.lease(pool.backends[1]).release()
    set_usable(balance, "x")
    assert policy.told == [("key", b"k"), ("taken", "a"), ("given back", "a", 0.5, 7.0)]
    assert spare.told == [("taken", "x"), ("given back", "x", 0.0, 7.0), ("update", "x")]


@pytest.mark.parametrize(
    ("outcome", "seconds", "counted"),
    [
        (Outcome.ANSWERED, 0.1, 0.1),
        (Outcome.ABANDONED, 0.1, 0.1),
        (Outcome.REFUSED, 0.1, FAILED_SECONDS),
        (Outcome.ERRED, 0.1, FAILED_SECONDS),
        (Outcome.TIMED_OUT, 60.0, 60.0),
    ],
)
def test_failure_counts_as_slow(outcome: Outcome, seconds: float, counted: float) -> None:
    policy = Listening()
    balance = Balancer(Pool("gpus", [address("a")]), policy, clock=lambda: 7.0)
    balance.choose().release(outcome, seconds)
    assert policy.told[-1] == ("given back", "a", counted, 7.0)


def test_policy_is_told_only_of_failures_when_it_does_not_care() -> None:
    policy = Listening(watches=False)
    balance = Balancer(Pool("gpus", [address("a")]), policy)
    balance.choose().release(Outcome.ANSWERED)
    balance.lease(balance.pool.backends[0]).release()
    assert policy.told == [("key", None)]


def test_work_from_before_a_limit_makes_room_for_work_after_it() -> None:
    balance = balancer("a", "b")
    before = [balance.choose() for _ in range(4)]
    balance.apply(diff(balance.pool.addresses, [address("a", max_conns=1), address("b", max_conns=1)]))
    with pytest.raises(NoBackendAvailable):
        balance.choose()
    for lease in before:
        lease.release(Outcome.ANSWERED)
    assert sorted(hosts([balance.choose(), balance.choose()])) == ["a", "b"]


def test_pool_that_ejects_is_told_of_failures_and_the_policy_of_nothing() -> None:
    policy = Listening(watches=False)
    balance = Balancer(Pool("gpus", [address("a"), address("b")]), policy)
    balance.follow(HealthRules(ejection=EjectionRules(failures=2)))
    for _ in range(2):
        balance.choose().release(Outcome.REFUSED)
    a, b = balance.pool.backends
    assert (a.ejected, b.usable) == (True, True)
    assert [told for told in policy.told if told != ("key", None)] == [("update", "a")]
    b.failures = 1
    balance.choose().release(Outcome.ANSWERED)
    assert b.failures == 0


def test_policy_of_a_name_can_be_replaced_and_goes_on_if_it_is_the_same() -> None:
    balance = balancer("a", "b", "c")
    balance.choose()
    balance.balance_by(Balance())
    assert hosts([balance.choose()]) == "b"
    balance.balance_by(Balance("first"))
    assert hosts([balance.choose(), balance.choose()]) == "aa"
    assert balance.key_of is None
    balance.balance_by(Balance("ip-hash"))
    assert balance.key_of is address_key
    assert len(set(hosts([balance.choose(key=b"client") for _ in range(5)]))) == 1


def test_policy_of_a_name_serves_backups_too() -> None:
    addresses = [address("a"), *(address(host, max_conns=1, backup=True) for host in "xy")]
    balance = Balancer(Pool("gpus", addresses), parse_balance("first"))
    set_usable(balance, "a")
    assert hosts([balance.choose(), balance.choose()]) == "xy"


def test_policy_of_ones_own_may_go_by_keys() -> None:
    balance = Balancer(Pool("gpus", [address("a")]), FromTheLast(), key_of=lambda head, peer: peer)
    assert balance.key_of is not None
    assert balance.key_of(None, b"peer") == b"peer"
    balance.balance_by(Balance())
    assert balance.key_of is None


class Waits:
    """Wants a lease."""

    def __init__(self, balance: Balancer) -> None:
        self.balance = balance
        self.lease: Lease | None = None
        assert balance.waiting.join(self)

    def room(self) -> None:
        try:
            self.lease = self.balance.choose()
        except NoBackendAvailable:
            return
        self.balance.waiting.leave(self)


def full_and_awaited() -> tuple[Balancer, Lease, Waits]:
    balance = balancer("a", max_conns=1)
    lease = balance.choose()
    return balance, lease, Waits(balance)


def test_who_waits_gets_what_is_released() -> None:
    _, lease, waits = full_and_awaited()
    lease.release()
    assert waits.lease is not None


def test_who_waits_gets_what_is_exempt_from_the_limit() -> None:
    balance, lease, waits = full_and_awaited()
    balance.exempt(lease)
    assert waits.lease is not None


def test_who_waits_gets_a_server_that_a_reload_adds() -> None:
    balance, _, waits = full_and_awaited()
    balance.apply(diff(balance.pool.addresses, [address("a", max_conns=1), address("b")]))
    assert waits.lease is not None
    assert waits.lease.backend.address.host == "b"


def test_who_waits_gets_a_server_that_comes_into_use() -> None:
    balance = balancer("a", "b", max_conns=1)
    set_usable(balance, "b")
    balance.choose()
    waits = Waits(balance)
    set_usable(balance, "b", AdminState.READY)
    assert waits.lease is not None


def test_lease_is_exempt_though_nobody_counts() -> None:
    balance = balancer("a")
    lease = balance.choose()
    balance.exempt(lease)
    assert lease.backend.exempt == 1
    lease.release()
    assert (lease.backend.leases, lease.backend.exempt) == (0, 0)


def test_exempt_lease_lets_the_next_one_in() -> None:
    balance = balancer("a", max_conns=1)
    balance.exempt(balance.choose())
    assert hosts([balance.choose()]) == "a"
