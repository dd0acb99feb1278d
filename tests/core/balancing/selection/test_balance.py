"""Policies by name."""

import pytest

from comfyproxy.core.balancing.selection import make_policy
from comfyproxy.core.balancing.selection.balance import PLAIN_POLICIES, Balance, parse_balance
from comfyproxy.core.balancing.selection.first import First
from comfyproxy.core.balancing.selection.least_conn import LeastConn
from comfyproxy.core.balancing.selection.policy import Selection
from comfyproxy.core.balancing.selection.random_two import PeakEwma, RandomTwo
from comfyproxy.core.balancing.selection.rendezvous import Rendezvous
from comfyproxy.core.balancing.selection.round_robin import RoundRobin
from comfyproxy.core.http.http1 import parse_request_head
from tests.core.balancing.selection.servers import servers

NAMED = ["hash:uri", "hash:header=X-User", "hash:cookie=user.id"]
HEAD = parse_request_head(b"GET /x?user=q HTTP/1.1\r\nHost: here\r\nX-User: h\r\nCookie: user=c\r\n\r\n")


@pytest.mark.parametrize("text", [*PLAIN_POLICIES, "hash:uri", "hash:header=X-User", "hash:query=a.b"])
def test_policy_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_balance(text)) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("leastconn", "'leastconn' is not a policy; there are round-robin, least-conn"),
        ("hash", "hash:header=NAME"),
        ("hash:ip", "is not a policy"),
        ("hash:header=", "needs the name of a header field"),
        ("hash:header=a b", "needs the name of a header field"),
        ("hash:cookie=a;b", "needs the name of a cookie"),
        ("hash:query=a=b", "needs the name of a parameter, as it stands in a URL"),
        ("hash:query=a&b", "needs the name of a parameter"),
        ("", "is not a policy"),
    ],
)
def test_what_is_no_policy_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"policy|name") as caught:
        parse_balance(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("round-robin", RoundRobin),
        ("least-conn", LeastConn),
        ("random-two", RandomTwo),
        ("ewma", PeakEwma),
        ("first", First),
        ("ip-hash", Rendezvous),
        ("hash:cookie=user", Rendezvous),
    ],
)
def test_policy_is_made_by_its_name(text: str, kind: type[Selection]) -> None:
    policy = make_policy(parse_balance(text))
    assert type(policy) is kind
    policy.use(servers((1, 1)))
    assert policy.pick() is not None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ip-hash", b"\xc0\x00\x02\x01"),
        ("hash:header=x-user", b"h"),
        ("hash:cookie=user", b"c"),
        ("hash:query=user", b"q"),
        ("hash:uri", b"/x?user=q"),
    ],
)
def test_policy_that_hashes_finds_its_key(text: str, key: bytes) -> None:
    key_of = parse_balance(text).key_of
    assert key_of is not None
    assert key_of(HEAD, b"192.0.2.1") == key


def test_other_policies_go_by_no_key() -> None:
    assert [parse_balance(text).key_of for text in PLAIN_POLICIES if text != "ip-hash"] == [None] * 5


def test_policies_that_look_at_requests_need_http() -> None:
    assert [str(one) for one in map(parse_balance, ["ip-hash", "ewma", *NAMED]) if one.needs_http] == NAMED
    assert not Balance().needs_http
