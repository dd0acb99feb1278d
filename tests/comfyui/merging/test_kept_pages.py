"""What servers said of their jobs and queues, until something changes there."""

from comfyproxy.comfyui.merging.jobs import JobsPage
from comfyproxy.comfyui.merging.kept_pages import LIFETIME, WATCHED_LIFETIME, KeptPages
from tests.comfyui.merging.servers import A, B, job

PAGE_A, PAGE_B = JobsPage(A, [job("a")], 1), JobsPage(B, [job("b")], 1)


def kept(*pages: JobsPage) -> KeptPages[JobsPage]:
    """A pool of which only the first server's events are heard."""
    found = KeptPages[JobsPage](lambda backend: backend is A, 1000)
    for page in pages:
        found.put(page, b"/x", found.version(page.backend), 10.0)
    return found


def test_a_page_counts_longer_where_events_are_heard() -> None:
    pages = kept(PAGE_A, PAGE_B)
    assert pages.get(A, b"/x", 10.0 + WATCHED_LIFETIME - 0.1) is PAGE_A
    assert pages.get(A, b"/x", 10.0 + WATCHED_LIFETIME) is None
    assert pages.get(B, b"/x", 10.0 + LIFETIME - 0.1) is PAGE_B
    assert pages.get(B, b"/x", 10.0 + LIFETIME) is None
    assert pages.get(A, b"/y", 10.0) is None


def test_what_does_not_count_any_more_is_still_the_former_page() -> None:
    pages = kept(PAGE_A)
    pages.changed(A)
    assert pages.former(A, b"/x") is PAGE_A
    assert pages.former(B, b"/x") is None


def test_after_a_change_only_that_server_is_asked() -> None:
    pages = kept(PAGE_A, PAGE_B)
    pages.changed(A)
    assert pages.get(A, b"/x", 10.0) is None
    assert pages.get(B, b"/x", 10.0) is PAGE_B
    pages.changed()
    assert pages.get(B, b"/x", 10.0) is None


def test_what_was_asked_before_a_change_is_not_kept() -> None:
    pages = kept()
    for change in (lambda: pages.changed(A), pages.changed):
        version = pages.version(A)
        change()
        pages.put(PAGE_A, b"/x", version, 10.0)
        assert pages.get(A, b"/x", 10.0) is None


def test_half_a_page_is_not_kept() -> None:
    pages = kept(PAGE_A)
    pages.put(JobsPage(A, [], 0, is_whole=False), b"/x", pages.version(A), 10.0)
    assert pages.get(A, b"/x", 10.0) is None


def test_of_many_pages_the_latest_are_kept() -> None:
    pages = KeptPages[JobsPage](lambda _backend: True, max_size=6)
    for place in range(4):
        pages.put(PAGE_A, b"/%d" % place, pages.version(A), 10.0)
    assert [place for place in range(4) if pages.get(A, b"/%d" % place, 10.0)] == [1, 2, 3]
    pages.put(PAGE_A, b"/1", pages.version(A), 10.0)
    pages.put(PAGE_A, b"/4", pages.version(A), 10.0)
    assert [place for place in range(5) if pages.get(A, b"/%d" % place, 10.0)] == [1, 3, 4]


def test_a_page_that_is_too_large_is_not_kept() -> None:
    pages = KeptPages[JobsPage](lambda _backend: True, max_size=2)
    pages.put(PAGE_A, b"/x", pages.version(A), 10.0)
    pages.put(JobsPage(B, [job("b")] * 3, 3), b"/x", pages.version(B), 10.0)
    assert pages.get(A, b"/x", 10.0) is pages.get(B, b"/x", 10.0) is None


def test_servers_that_left_are_forgotten() -> None:
    pages = kept(PAGE_A, PAGE_B)
    version = pages.version(A)
    pages.keep_only(frozenset((B,)))
    assert pages.get(A, b"/x", 10.0) is None
    assert pages.get(B, b"/x", 10.0) is PAGE_B
    assert pages.version(A) == version
    pages.changed(A)
    version = pages.version(A)
    pages.keep_only(frozenset((B,)))
    assert pages.version(A) != version
