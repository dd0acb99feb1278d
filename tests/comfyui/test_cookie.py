"""The proxy's cookie: set, read, and kept from the backends."""

from collections.abc import Callable
from http.cookies import SimpleCookie

import pytest

from comfyproxy.comfyui.cookie import BackendCookie
from comfyproxy.comfyui.router import ClientRouter
from comfyproxy.core.http1 import RequestHead
from comfyproxy.core.pool import Pool
from comfyproxy.core.routing import Default, Pin


def test_the_cookie_has_the_fingerprint_and_is_for_the_session_alone(make_pool: Callable[..., Pool]) -> None:
    one, *_ = make_pool().backends
    expected = f"Set-Cookie: comfyproxy={one.fingerprint}; Path=/; HttpOnly; SameSite=Lax"
    assert BackendCookie().line(one).decode() == expected


def test_pools_on_one_address_have_cookies_of_their_own(make_pool: Callable[..., Pool]) -> None:
    one, *_ = make_pool().backends
    line = BackendCookie("comfyproxy-video", "/video").line(one).decode()
    (morsel,) = SimpleCookie(line.removeprefix("Set-Cookie: ")).values()
    assert (morsel.key, morsel.value, morsel["path"]) == ("comfyproxy-video", one.fingerprint, "/video")


@pytest.mark.parametrize("name", ["", "two words", "a=b", "a;b", "é", "a\r\n"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a cookie's name"):
        BackendCookie(name)


@pytest.mark.parametrize("path", ["", "api", "/a;b", "/a b", "/\r\n"])
def test_a_path_that_would_break_the_field_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a cookie's path"):
        BackendCookie(path=path)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], []),
        (["Cookie: theme=dark"], []),
        (["Cookie: comfyproxy=abc"], ["abc"]),
        (["Cookie: theme=dark; comfyproxy=abc; lang=en"], ["abc"]),
        (["Cookie: theme=dark;comfyproxy=abc"], ["abc"]),
        (['Cookie: comfyproxy="abc" '], ["abc"]),
        (["Cookie: comfyproxy=abc; comfyproxy=def"], ["abc", "def"]),
        (["Cookie: theme=dark", "Cookie: comfyproxy=abc"], ["abc"]),
        (["Cookie: comfyproxy="], [""]),
        (["Cookie: comfyproxy=\xff"], ["\xff"]),
        (["Cookie: mycomfyproxy=abc; comfyproxy2=def; x=comfyproxy"], []),
    ],
)
def test_only_the_cookie_of_that_name_is_read(
    make_head: Callable[..., RequestHead], lines: list[str], found: list[str]
) -> None:
    cookies = make_head("GET", "/", *lines).notable.get(b"cookie")
    assert BackendCookie().fingerprints(cookies) == tuple(found)


def test_the_first_cookie_that_names_a_backend_of_the_pool_counts(
    make_head: Callable[..., RequestHead], make_pool: Callable[..., Pool]
) -> None:
    pool = make_pool()
    one, two, _ = pool.backends
    values = f"comfyproxy=unknown; comfyproxy={two.fingerprint}; comfyproxy={one.fingerprint}"
    router = ClientRouter(pool)
    assert router.route(make_head("GET", "/", f"Cookie: {values}"), None, 0) == Pin(two)
    assert router.route(make_head("GET", "/", "Cookie: comfyproxy=unknown"), None, 0) == Default()


@pytest.mark.parametrize(
    ("value", "rest"),
    [
        (b"", b""),
        (b"comfyproxy=abc", b""),
        (b" comfyproxy=abc ;", b""),
        (b"theme=dark", b"theme=dark"),
        (b"comfyproxy=abc; theme=dark", b"theme=dark"),
        (b"theme=dark; comfyproxy=abc", b"theme=dark"),
        (b"theme=dark; comfyproxy=abc; lang=en", b"theme=dark; lang=en"),
        (b"comfyproxy=abc; comfyproxy=def; lang=en", b"lang=en"),
        (b"theme=dark,comfyproxy=abc,lang=en", b"theme=dark,lang=en"),
        (b" ; mycomfyproxy=abc; comfyproxy2=def", b" ; mycomfyproxy=abc; comfyproxy2=def"),
    ],
)
def test_backends_do_not_see_the_cookie(value: bytes, rest: bytes) -> None:
    assert BackendCookie().without(value) == rest
