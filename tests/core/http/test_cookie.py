"""The proxy's cookie: set, read, and kept from the backends."""

import hashlib
import hmac
from http.cookies import SimpleCookie

import pytest

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.http1 import parse_request_head

ONE = Backend(Address("http", "gpu1", 8188))
SECRET = "not to be told"


def test_the_cookie_has_the_fingerprint_and_is_for_the_session_alone() -> None:
    expected = f"Set-Cookie: comfyproxy={ONE.fingerprint}; Path=/; HttpOnly; SameSite=Lax"
    assert BackendCookie().line(ONE).decode() == expected
    assert BackendCookie().line(ONE, secure=True).decode() == f"{expected}; Secure"


def test_a_signed_cookie_is_read_where_the_secret_is_known() -> None:
    cookie = BackendCookie(secret=SECRET)
    (morsel,) = SimpleCookie(cookie.line(ONE).decode().removeprefix("Set-Cookie: ")).values()
    assert morsel.value.startswith(f"{ONE.fingerprint}.")
    assert len(morsel.value) == 12 + 1 + 32
    assert cookie.fingerprints(f"a=b; comfyproxy={morsel.value}".encode()) == (ONE.fingerprint,)
    same = f"comfyproxy={morsel.value}; other={morsel.value}".encode()
    assert BackendCookie(secret="another").fingerprints(same) == ()
    assert BackendCookie("other", secret=SECRET).fingerprints(same) == ()


@pytest.mark.parametrize(
    "value",
    ["", ".", ONE.fingerprint, f"{ONE.fingerprint}.", f"{ONE.fingerprint}.{'0' * 32}", "\xff.\xff", "a.b.c"],
)
def test_a_value_without_its_signature_counts_for_nothing(value: str) -> None:
    signed = BackendCookie(secret=SECRET).line(ONE).split(b"=", 1)[1].split(b";")[0].decode()
    cookies = f"comfyproxy={value}; comfyproxy={signed}; comfyproxy={signed}0".encode("latin-1")
    assert BackendCookie(secret=SECRET).fingerprints(cookies) == (ONE.fingerprint,)


def test_signatures_are_the_same_everywhere() -> None:
    """Workers, other proxies and the next release go on reading what was given out."""
    line = BackendCookie(secret=SECRET).line(ONE)
    message = b"comfyproxy=" + ONE.fingerprint.encode()
    expected = hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()[:32]
    assert line.startswith(b"Set-Cookie: %b.%b;" % (message, expected.encode()))


def test_pools_on_one_address_have_cookies_of_their_own() -> None:
    line = BackendCookie("comfyproxy-video", "/video").line(ONE).decode()
    (morsel,) = SimpleCookie(line.removeprefix("Set-Cookie: ")).values()
    assert (morsel.key, morsel.value, morsel["path"]) == ("comfyproxy-video", ONE.fingerprint, "/video")


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
def test_only_the_cookie_of_that_name_is_read(lines: list[str], found: list[str]) -> None:
    text = "\r\n".join(("GET / HTTP/1.1", "Host: here", *lines, "", ""))
    cookies = parse_request_head(text.encode("latin-1")).notable.get(b"cookie")
    assert BackendCookie().fingerprints(cookies) == tuple(found)


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


def test_it_may_say_another_word_than_a_backends_name() -> None:
    cookie = BackendCookie("c", "/x", "secret")
    line = cookie.line_saying("word")
    assert line.startswith(b"Set-Cookie: c=word.")
    value = line.removeprefix(b"Set-Cookie: ").partition(b";")[0]
    assert cookie.fingerprints(value) == ("word",)
    assert cookie.line_saying("word", secure=True) == line + b"; Secure"
