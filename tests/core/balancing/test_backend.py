"""A backend and the leases on it."""

import pytest

from comfyproxy.core.balancing.backend import AdminState, Backend, Lease, Outcome, fingerprint
from comfyproxy.core.configuration.addresses import Address


def backend(max_conns: int = 0) -> Backend:
    return Backend(Address("http", "gpu1", 8188, max_conns=max_conns), index=3)


def test_backend_is_what_its_address_says() -> None:
    one = Backend(Address("https", "2001:db8::1", 443), verify=False)
    assert one.url == "https://[2001:db8::1]:443"
    assert one.authority == b"[2001:db8::1]"
    assert (one.index, one.leases, one.removed, one.verify) == (0, 0, False, False)


def test_lease_counts_until_it_is_released_and_only_once() -> None:
    one = backend()
    first, second = Lease(one), Lease(one)
    assert one.leases == 2
    first.release()
    first.release()
    assert one.leases == 1
    second.release()
    assert one.leases == 0


def test_backend_without_a_limit_is_never_full() -> None:
    one = backend()
    leases = [Lease(one) for _ in range(1000)]
    assert not one.is_full
    assert one.is_available
    assert len(leases) == one.leases


def test_backend_is_full_at_its_limit_and_free_again_below() -> None:
    one = backend(max_conns=2)
    lease = Lease(one)
    assert not one.is_full
    Lease(one)
    assert one.is_full
    assert not one.is_available
    lease.release()
    assert one.is_available


def test_backend_begins_ready_and_usable_with_its_own_weight() -> None:
    one = Backend(Address("http", "gpu1", 8188, weight=3))
    assert (one.admin, one.usable, one.takes_pins, one.weight) == (AdminState.READY, True, True, 3.0)
    assert not one.health.is_down


def test_backend_that_is_not_usable_is_not_available_and_not_full() -> None:
    one = backend()
    one.usable = False
    assert not one.is_available
    assert not one.is_full


class Heard:
    def __init__(self, is_curious: bool = True) -> None:
        self.is_curious = is_curious
        self.ends: list[tuple[Lease, Outcome, float, int]] = []

    def released(self, lease: Lease, outcome: Outcome, seconds: float) -> None:
        self.ends.append((lease, outcome, seconds, lease.backend.leases))


def test_watcher_hears_once_how_the_work_ended_and_the_count_is_down_by_then() -> None:
    one, heard = backend(), Heard()
    lease = Lease(one, heard)
    lease.release(Outcome.ANSWERED, 0.25)
    lease.release(Outcome.LOST)
    assert heard.ends == [(lease, Outcome.ANSWERED, 0.25, 0)]


def test_watcher_that_is_not_curious_hears_of_failures_and_of_what_ends_them() -> None:
    one, heard = backend(), Heard(is_curious=False)
    Lease(one, heard).release(Outcome.ANSWERED)
    assert heard.ends == []
    Lease(one, heard).release(Outcome.REFUSED)
    one.failures = 1
    Lease(one, heard).release(Outcome.ANSWERED)
    assert [outcome for _, outcome, _, _ in heard.ends] == [Outcome.REFUSED, Outcome.ANSWERED]


def test_release_without_an_outcome_says_nothing_of_the_server() -> None:
    one, heard = backend(), Heard()
    lease = Lease(one, heard)
    lease.release()
    assert heard.ends == [(lease, Outcome.ABANDONED, 0.0, 0)]


@pytest.mark.parametrize(
    ("removed", "text"),
    [(False, "<Backend http://gpu1:8188 leases=1>"), (True, "<Backend http://gpu1:8188 leases=1 removed>")],
)
def test_backend_shows_its_state(removed: bool, text: str) -> None:
    one = backend()
    Lease(one)
    one.removed = removed
    assert repr(one) == text


def test_fingerprint_depends_on_the_url_alone() -> None:
    plain = fingerprint(Address("http", "gpu1", 8188))
    assert plain == fingerprint(Address("http", "gpu1", 8188, weight=5, name="x", origin="--url"))
    assert plain != fingerprint(Address("https", "gpu1", 8188))
    assert plain == "3786d252ee8a", "cookies and prompt ids in the wild have it"


def test_exempt_work_counts_as_in_flight_but_takes_no_room() -> None:
    backend = Backend(Address("http", "a", 8188, max_conns=1))
    lease = Lease(backend)
    assert backend.is_full
    lease.exempt()
    lease.exempt()
    assert (backend.leases, backend.is_full, backend.is_available) == (1, False, True)
    other = Lease(backend)
    assert backend.is_full
    lease.release()
    assert (backend.leases, backend.is_full) == (1, True)
    other.release()
    assert (backend.leases, backend.exempt) == (0, 0)


def test_released_work_cannot_be_exempt() -> None:
    backend = Backend(Address("http", "a", 8188))
    lease = Lease(backend)
    lease.release()
    lease.exempt()
    assert backend.exempt == 0
