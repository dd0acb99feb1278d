"""One URL: what it stands for, and the character at which a wrong one is wrong."""

import pytest

from comfyproxy.core.configuration.diagnostics import Place
from comfyproxy.core.configuration.urls import parse_url, read_plain_url
from comfyproxy.errors import ConfigError


def expanded(text: str) -> list[str]:
    return [f"{scheme} {host} {port}" for scheme, host, port in parse_url(text, Place("x", 1, 1)).expand()]


def failure(text: str) -> tuple[int | None, str]:
    with pytest.raises(ConfigError) as caught:
        list(parse_url(text, Place("x", 1, 1)).expand())
    return caught.value.column, caught.value.message


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("http://server1:8188", ["http server1 8188"]),
        ("http://server1", ["http server1 80"]),
        ("https://server1", ["https server1 443"]),
        ("https://Server1.Example.COM:8443/", ["https server1.example.com 8443"]),
        ("HTTP://server1", ["http server1 80"]),
        ("tcp://db1:5432", ["tcp db1 5432"]),
        ("server1:8188", ["http server1 8188"]),
        ("server1", ["http server1 80"]),
        ("localhost:8188", ["http localhost 8188"]),
        ("http:8080", ["http http 8080"]),
        ("http://under_score-1.a:1", ["http under_score-1.a 1"]),
        ("http://fully.qualified.:80", ["http fully.qualified. 80"]),
        ("http://10.0.0.255:65535", ["http 10.0.0.255 65535"]),
        ("http://0x7:1", ["http 0x7 1"]),
        ("http://[::1]:8188", ["http ::1 8188"]),
        ("http://[::1]", ["http ::1 80"]),
        ("http://[FD00:0:0::1]/", ["http fd00::1 80"]),
        ("[::1]:8188", ["http ::1 8188"]),
        ("http://[::1]:[1-2]", ["http ::1 1", "http ::1 2"]),
        ("http://a[1-3]:80", ["http a1 80", "http a2 80", "http a3 80"]),
        ("http://a[3-3]:80", ["http a3 80"]),
        ("http://a[08-10]:80", ["http a08 80", "http a09 80", "http a10 80"]),
        ("http://a[098-101]", ["http a098 80", "http a099 80", "http a100 80", "http a101 80"]),
        ("http://a[00-01]", ["http a00 80", "http a01 80"]),
        ("http://a[0-1]", ["http a0 80", "http a1 80"]),
        ("http://[1-2]a:80", ["http 1a 80", "http 2a 80"]),
        ("http://r[1-2]n[1-2]:80", ["http r1n1 80", "http r1n2 80", "http r2n1 80", "http r2n2 80"]),
        ("http://a[1-2]:[1-2]", ["http a1 1", "http a1 2", "http a2 1", "http a2 2"]),
        ("http://a:818[8-9]", ["http a 8188", "http a 8189"]),
        ("http://a:[08-09]", ["http a 8", "http a 9"]),
        ("http://localhost:[8188-8189]", ["http localhost 8188", "http localhost 8189"]),
        ("http://10.0.[0-1].[1-2]", [f"http 10.0.{end} 80" for end in ("0.1", "0.2", "1.1", "1.2")]),
        ("http://10.0.0.1[1-5]:8188", [f"http 10.0.0.1{last} 8188" for last in range(1, 6)]),
        ("http://10.0.0.1[1-2]", ["http 10.0.0.11 80", "http 10.0.0.12 80"]),
        ("http://gpu[1-2]", ["http gpu1 80", "http gpu2 80"]),
        ("http://localhost[1-2]:80", ["http localhost1 80", "http localhost2 80"]),
        ("http://[10-11].0.0.1", ["http 10.0.0.1 80", "http 11.0.0.1 80"]),
        (f"http://{'a' * 63}:80", [f"http {'a' * 63} 80"]),
    ],
)  # fmt: skip
def test_a_url_stands_for_these_servers(text: str, servers: list[str]) -> None:
    assert expanded(text) == servers
    assert parse_url(text, Place("x")).size == len(servers)
    assert parse_url(text, Place("x")).plain == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("http://localhost[8188-8190]", "http://localhost:[8188-8190]"),
        ("http://LOCALHOST[8188-8190]/", "http://LOCALHOST:[8188-8190]/"),
        ("localhost[1-2]", "localhost:[1-2]"),
        ("http://192.168.1[1-50]:8188", "http://192.168.1.[1-50]:8188"),
        ("192.168.1[1-50]", "192.168.1.[1-50]"),
        ("https://10.20.30[1-2]/", "https://10.20.30.[1-2]/"),
    ],
)
def test_a_forgotten_mark_is_put_in(text: str, plain: str) -> None:
    assert parse_url(text, Place("x")).plain == plain
    assert expanded(text) == expanded(plain)


BRACKETS = "is not a range; write [start-end], for example [1-100]"
NOT_IPV4 = "is not an IPv4 address: that is four numbers from 0 to 255 without leading zeros (a range of ports stands after a colon)"  # noqa: E501
NOT_A_NAME = "is not a host name: that is letters, digits and hyphens, with dots between"
NO_HOST = "the host is missing; write for example http://server1:8188"


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("http://localhost:818[8-0]", 21, "the range [8-0] runs backwards; put the smaller number first"),
        ("http://a[9-1]:80", 9, "the range [9-1] runs backwards; put the smaller number first"),
        ("http://localhost[9-1]", 17, "the range [9-1] runs backwards; put the smaller number first"),
        ("http://10.0.0[9-1]:80", 14, "the range [9-1] runs backwards; put the smaller number first"),
        ("http://a[1-9999999999999999999]", 9, "the numbers of a range have at most 18 digits"),
        ("http://a[1-b]:80", 9, f"[1-b] {BRACKETS}"),
        ("http://a[12]:80", 9, f"[12] {BRACKETS}"),
        ("http://a[]:80", 9, f"[] {BRACKETS}"),
        ("http://a[1", 9, f"[1 {BRACKETS}"),
        ("http://a[1-2]b]:80", 15, f"] {BRACKETS}"),
        ("http://a:80[1", 12, f"[1 {BRACKETS}"),
        ("3]:8188", 2, f"] {BRACKETS}"),
        ("ftp://a", 1, "the scheme ftp:// is not known; write http://, https:// or tcp://"),
        ("ws://a", 1, "write http:// for ws://; WebSockets go over the same URL"),
        ("WSS://a", 1, "write https:// for wss://; WebSockets go over the same URL"),
        ("file:///etc/servers", 1, "this is a file, not a server; name it with --file"),
        ("http:/server1", 1, "http: lacks its two slashes; write http://"),
        ("https:server1", 1, "https: lacks its two slashes; write https://"),
        ("http://", 8, NO_HOST),
        ("http:///", 8, NO_HOST),
        ("http://:8188", 8, NO_HOST),
        ("http://a:80/api", 12, "a server URL ends after the port; remove /api"),
        ("http://a//", 9, "a server URL ends after the port; remove /"),
        ("http://a?b=c@d", 9, "a server URL ends after the port; remove ?b=c@d"),
        ("http://a#b", 9, "a server URL ends after the port; remove #b"),
        ("http://me:secret@a", 8, "a server URL has no user and password; remove all up to the @"),
        ("http://a:", 9, "the port is missing after the colon"),
        ("http://a:0", 10, "the port 0 is not a number from 1 to 65535"),
        ("http://a:65536", 10, "the port 65536 is not a number from 1 to 65535"),
        ("http://a:http", 10, "the port http is not a number from 1 to 65535"),
        ("http://a:٣", 10, "the port ٣ is not a number from 1 to 65535"),
        ("http://a:[65535-65536]", 10, "the port 65536 is not a number from 1 to 65535"),
        (f"http://a:{'9' * 5000}", 10, f"the port {'9' * 5000} is not a number from 1 to 65535"),
        ("http://localhost[0-3]", 17, "the port 0 is not a number from 1 to 65535"),
        ("tcp://db1", 10, "tcp:// has no default port; write for example tcp://db1:5432"),
        ("http://::1:8188", 8, "::1:8188 has several colons; an IPv6 address stands in brackets: [::1]:8188"),
        ("http://fd00::1", 8, "fd00::1 has several colons; an IPv6 address stands in brackets: [::1]:8188"),
        ("http://[::1", 8, "the bracket of [::1 is not closed"),
        ("http://[::g]:80", 8, "::g is not an IPv6 address (no range can stand in one)"),
        ("http://[fd00::[1-5]]:80", 8, "fd00::[1-5 is not an IPv6 address (no range can stand in one)"),
        ("http://[fe80::1%eth0]:80", 8, "a server URL has no IPv6 zone; remove %eth0"),
        ("http://[::1]8188", 13, "a port stands after a colon; write :8188"),
        ("http://[::1][8188-8190]", 13, "a port stands after a colon; write :[8188-8190]"),
        ("http://192.168.1:80", 8, f"192.168.1 {NOT_IPV4}"),
        ("http://256.0.0.1", 8, f"256.0.0.1 {NOT_IPV4}"),
        ("http://10.0.0.01", 8, f"10.0.0.01 {NOT_IPV4}"),
        ("http://server.1", 8, f"server.1 {NOT_IPV4}"),
        ("http://1", 8, f"1 {NOT_IPV4}"),
        ("http://127.0.0.1[8188-8190]", 8, f"127.0.0.18188 {NOT_IPV4}"),
        ("http://192.168.1[01-50]", 8, f"192.168.1.01 {NOT_IPV4}"),
        ("http://192.168.1[250-300]", 8, f"192.168.1.256 {NOT_IPV4}"),
        ("http://-a", 8, f"-a {NOT_A_NAME}"),
        ("http://a-.b", 8, f"a-.b {NOT_A_NAME}"),
        ("http://a..b", 8, f"a..b {NOT_A_NAME}"),
        ("http://sérver", 8, f"sérver {NOT_A_NAME}"),
        ("http://a$b", 8, f"a$b {NOT_A_NAME}"),
        (r"http://a\b", 8, rf"a\b {NOT_A_NAME}"),
        (f"http://{'a' * 64}", 8, f"{'a' * 64} {NOT_A_NAME}"),
        (f"http://{'a.' * 127}", 8, f"{'a.' * 127} {NOT_A_NAME}"),
    ],
)
def test_a_wrong_url_is_told_at_its_wrong_character(text: str, column: int, message: str) -> None:
    assert failure(text) == (column, message)


def test_a_range_of_any_size_is_measured_without_being_expanded() -> None:
    assert parse_url("http://a[1-99999999999]:[1-1000]", Place("x")).size == 99_999_999_999_000


@pytest.mark.parametrize(
    "text",
    [
        "http://server1:8188",
        "http://server1",
        "https://a.b-c.d_e",
        "http://10.0.0.1:80",
        "http://a:65535",
        f"https://{'a.' * 126}a",
    ],
)
def test_the_short_way_agrees_with_the_long_one(text: str) -> None:
    assert [read_plain_url(text)] == list(parse_url(text, Place("x")).expand())


@pytest.mark.parametrize(
    "text",
    [
        "tcp://db1:5432",
        "server1",
        "http://a[1-2]",
        "http://a:0",
        "http://a:65536",
        "http://a/",
        "http://A",
        "http://1.2.3",
        f"http://{'a.' * 127}",
    ],
)
def test_the_short_way_leaves_the_rest_to_the_long_one(text: str) -> None:
    assert read_plain_url(text) is None
