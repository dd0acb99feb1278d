"""Where the key of a request is found."""

import pytest

from comfyproxy.core.balancing.selection.keys import (
    KeyOf,
    address_key,
    cookie_key,
    header_key,
    query_key,
    uri_key,
)
from comfyproxy.core.http.http1 import RequestHead, parse_request_head


def head(target: str = "/", *lines: str) -> RequestHead:
    text = "\r\n".join((f"GET {target} HTTP/1.1", "Host: here", *lines, "", ""))
    return parse_request_head(text.encode())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("unix", "unix", True),
        ("unix", "other", False),
    ],
)
def test_client_is_its_ipv4_address_or_its_ipv6_network(one: str, other: str, same: bool) -> None:
    assert (address_key(None, one.encode()) == address_key(head(), other.encode())) is same


def test_client_whose_address_is_not_known_has_no_key() -> None:
    assert address_key(None, b"") is None


@pytest.mark.parametrize(
    ("find", "request_head", "key"),
    [
        (header_key("X-User"), head("/", "x-user:  alice "), b"alice"),
        (header_key("X-User"), head("/", "X-User: a", "X-User: b"), b"a"),
        (header_key("X-User"), head("/", "X-User:"), None),
        (header_key("X-User"), head(), None),
        (cookie_key("user"), head("/", "Cookie: a=1; user=alice; b=2"), b"alice"),
        (cookie_key("user"), head("/", "Cookie: user=alice", "Cookie: user=bob"), b"alice"),
        (cookie_key("user"), head("/", "Cookie: superuser=alice"), None),
        (cookie_key("user"), head("/", "Cookie: user="), None),
        (cookie_key("user"), head(), None),
        (query_key("user"), head("/x?a=1&user=al%20ice&b=2"), b"al%20ice"),
        (query_key("user"), head("/x?user=1&user=2"), b"1"),
        (query_key("user"), head("/?user=/user?user=2"), b"/user?user=2"),
        (query_key("user"), head("/x?superuser=1"), None),
        (query_key("user"), head("/user=1"), None),
        (query_key("a.b"), head("/?axb=1"), None),
        (uri_key, head("/a/b?c=d"), b"/a/b?c=d"),
    ],
)
def test_key_is_what_the_request_says(find: KeyOf, request_head: RequestHead, key: bytes | None) -> None:
    assert find(request_head, b"192.0.2.1") == key


@pytest.mark.parametrize("find", [header_key("a"), cookie_key("a"), query_key("a"), uri_key])
def test_connection_without_requests_has_no_key(find: KeyOf) -> None:
    assert find(None, b"192.0.2.1") is None
