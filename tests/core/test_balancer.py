"""Choosing a backend: who may be used, and what is said when nobody may."""

from collections.abc import Iterator, Sequence

import pytest

from comfyproxy.core.addresses import Address
from comfyproxy.core.backend import Backend, Lease
from comfyproxy.core.balancer import Balancer
from comfyproxy.core.changes import diff
from comfyproxy.core.pool import Pool
from comfyproxy.errors import NoBackendAvailable


def address(host: str, max_conns: int = 0) -> Address:
    return Address("http", host, 8188, max_conns=max_conns)


def balancer(*hosts: str, max_conns: int = 0) -> Balancer:
    return Balancer(Pool("gpus", [address(host, max_conns) for host in hosts]))


def hosts(leases: list[Lease]) -> str:
    return "".join(lease.backend.address.host for lease in leases)


class FromTheLast:
    """A policy of the test's own."""

    def use(self, backends: Sequence[Backend]) -> None:
        self.backends = backends

    def order(self) -> Iterator[Backend]:
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
