"""ComfyUI's check on pages of other sites, each case with the outcome that ComfyUI itself gives it."""

from collections.abc import Callable

import pytest

from comfyproxy.comfyui.origin import ORIGIN_FIELDS, check_origin
from comfyproxy.core.http.http1 import RequestHead

LOCAL = "127.0.0.1:18188"
NAVIGATION = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")


@pytest.mark.parametrize(
    ("host", "origin", "passes"),
    [
        (LOCAL, "http://127.0.0.1:18188", True),
        (LOCAL, "http://example.com", False),
        (LOCAL, "http://127.0.0.1:9999", False),
        (LOCAL, "http://localhost:18188", False),
        (LOCAL, "null", True),
        (LOCAL, None, True),
        ("lb.example.com", "https://lb.example.com", True),
        ("lb.example.com", "https://evil.example", True),
        ("10.0.0.5:8188", "http://evil", True),
        # A port that is left out agrees with any.
        ("localhost", "http://localhost:9000", True),
        ("localhost:8080", "http://localhost", True),
        ("localhost:443", "https://localhost", True),
        ("localhost", "http://localhost:80", True),
        ("localhost:", "http://localhost:80", True),
        ("localhost:8080", "http://localhost:8080/", True),
        ("LOCALHOST:8080", "http://Localhost:8080", True),
        # What else is the machine itself.
        ("localhost", "http://example.com", False),
        ("localhost.:8080", "http://example.com", False),
        ("comfy.localhost:8080", "http://example.com", False),
        ("127.8.9.10", "http://example.com", False),
        ("0.0.0.0:8080", "http://example.com", False),
        ("[::1]:8080", "http://example.com", False),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("[::]:8080", "http://example.com", False),
        ("[::ffff:127.0.0.1]:8080", "http://example.com", False),
        ("[2001:db8::1]:8080", "http://example.com", True),
        ("notlocalhost:8080", "http://example.com", True),
        ("localhost.example.com", "http://example.com", True),
        # Origins that no browser sends.
        (LOCAL, "file://", True),
        (LOCAL, "127.0.0.1:9999", True),
        (LOCAL, "", True),
        (LOCAL, "chrome-extension://abcdefgh", False),
        (LOCAL, "http://user@127.0.0.1:18188", False),
        (LOCAL, "http://127.0.0.1:18188:18188", False),
        (LOCAL, "http://[", False),
        (LOCAL, "http://127.0.0.1:port", False),
    ],
)
@pytest.mark.parametrize("request_line", [("POST", "/prompt"), ("GET", "/ws"), ("GET", "/")])
def test_origin_and_host_have_to_agree_on_loopback(
    make_head: Callable[..., RequestHead],
    request_line: tuple[str, str],
    host: str,
    origin: str | None,
    passes: bool,
) -> None:
    lines = [] if origin is None else [f"Origin: {origin}"]
    refusal = check_origin(make_head(*request_line, *lines, host=host))
    assert (refusal is None) is passes
    assert refusal is None or refusal.status == 403


def test_a_request_without_a_host_has_none_to_disagree_with(make_head: Callable[..., RequestHead]) -> None:
    assert check_origin(make_head("POST", "/prompt", "Origin: http://example.com", host="")) is None


@pytest.mark.parametrize(
    ("site", "passes"), [("cross-site", False), ("same-site", True), ("same-origin", True), ("none", True)]
)
def test_what_the_browser_marks_as_cross_site_is_refused(
    make_head: Callable[..., RequestHead], site: str, passes: bool
) -> None:
    head = make_head("POST", "/prompt", f"Sec-Fetch-Site: {site}", host="10.0.0.5:8188")
    assert (check_origin(head) is None) is passes


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_link_from_another_site_opens_the_page(make_head: Callable[..., RequestHead], method: str) -> None:
    assert check_origin(make_head(method, "/", *NAVIGATION)) is None


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        ("POST", NAVIGATION),
        ("GET", NAVIGATION[:1]),
        ("GET", NAVIGATION[:2]),
        ("GET", [*NAVIGATION[:2], "Sec-Fetch-Dest: iframe"]),
        ("GET", [NAVIGATION[0], "Sec-Fetch-Mode: no-cors", NAVIGATION[2]]),
        ("GET", [NAVIGATION[0], "Sec-Fetch-Mode: websocket", "Sec-Fetch-Dest: websocket"]),
    ],
)
def test_nothing_else_of_another_site_passes_for_a_link(
    make_head: Callable[..., RequestHead], method: str, lines: list[str]
) -> None:
    assert check_origin(make_head(method, "/", *lines)) is not None


def test_a_link_does_not_excuse_an_origin_that_disagrees(make_head: Callable[..., RequestHead]) -> None:
    head = make_head("GET", "/", *NAVIGATION, "Origin: http://example.com", host=LOCAL)
    assert check_origin(head) is not None


def test_backends_see_neither_field() -> None:
    assert sorted(ORIGIN_FIELDS) == [b"origin", b"sec-fetch-site"]
