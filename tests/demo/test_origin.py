"""ComfyUI's check of Origin and Host."""

import pytest

from comfyproxy.demo.origin import is_forbidden


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:18188", "http://example.com"),
        ("127.0.0.1:18188", "http://127.0.0.1:9999"),
        ("127.0.0.1:18188", "http://localhost:18188"),
        ("localhost:8188", "http://127.0.0.1:8188"),
        ("[::1]:8188", "http://[::1]:9"),
        ("127.0.0.1", "http://example.com"),
    ],
)
def test_a_loopback_host_takes_no_other_origin(host: str, origin: str) -> None:
    assert is_forbidden({"host": host, "origin": origin})


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:18188", "http://127.0.0.1:18188"),
        ("LOCALHOST:8188", "http://localhost:8188"),
        ("localhost:8188", "http://localhost"),
        ("localhost", "http://localhost:3000"),
        ("lb.example.com", "https://lb.example.com"),
        ("10.0.0.5:8188", "http://evil.example"),
        ("127.0.0.1:8188", "null"),
        ("127.0.0.1:x", "http://example.com"),
    ],
)
def test_other_hosts_and_the_page_itself_are_let_through(host: str, origin: str) -> None:
    assert not is_forbidden({"host": host, "origin": origin})


def test_without_an_origin_nothing_is_compared() -> None:
    assert not is_forbidden({"host": "127.0.0.1:8188"})
    assert not is_forbidden({"origin": "http://example.com"})


def test_a_browser_that_comes_from_another_site_says_so_itself() -> None:
    assert is_forbidden({"host": "lb.example.com", "sec-fetch-site": "cross-site"})
    assert not is_forbidden({"host": "lb.example.com", "sec-fetch-site": "same-site"})
