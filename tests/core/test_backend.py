"""A backend and the leases on it."""

import pytest

from comfyproxy.core.addresses import Address
from comfyproxy.core.backend import Backend, Lease, fingerprint


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


def test_removed_backend_is_not_available() -> None:
    one = backend()
    one.removed = True
    assert not one.is_available
    assert not one.is_full


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
