"""resolv.conf(5) and hosts(5) as values, and the names and addresses that follow from them."""

import pytest

from comfyproxy.core.names import (
    NameServers,
    candidates,
    interleave,
    is_usable,
    parse_hosts,
    parse_resolv_conf,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", NameServers()),
        ("nameserver 10.0.0.53\n", NameServers((("10.0.0.53", 53),))),
        ("nameserver ::1 # here\nnameserver\t1.1.1.1 ; there", NameServers((("::1", 53), ("1.1.1.1", 53)))),
        ("nameserver fe80::1%eth0\nnameserver ns1\nnameserver\n", NameServers()),
        (
            "\n".join(f"nameserver 10.0.0.{n}" for n in range(9)),
            NameServers(tuple((f"10.0.0.{n}", 53) for n in range(3))),
        ),
        ("domain example.com", NameServers(search=("example.com",))),
        ("domain a\nsearch ns.svc.cluster.local. svc .", NameServers(search=("ns.svc.cluster.local", "svc"))),
        ("options ndots:5 timeout:1 attempts:3 rotate", NameServers(ndots=5, timeout=1, attempts=3)),
        ("options ndots:99 timeout:0 attempts:0", NameServers(ndots=15, timeout=1, attempts=1)),
        ("options ndots:x timeout: attempts:99\noptions timeout:99", NameServers(timeout=30, attempts=5)),
        ("; a comment\n# another\nsortlist 10.0.0.0\n", NameServers()),
    ],
)
def test_resolv_conf_says_whom_to_ask(text: str, expected: NameServers) -> None:
    assert parse_resolv_conf(text) == expected


def test_hosts_say_which_names_have_which_addresses() -> None:
    text = """
    127.0.0.1 localhost
    ::1       localhost ip6-localhost # loopback
    10.0.0.1\tGPU1 gpu1.example.com gpu1
    #10.0.0.2 gpu2
    nonsense  gpu3
    """
    assert parse_hosts(text) == {
        "localhost": ("127.0.0.1", "::1"),
        "ip6-localhost": ("::1",),
        "gpu1": ("10.0.0.1",),
        "gpu1.example.com": ("10.0.0.1",),
    }


@pytest.mark.parametrize(
    ("name", "search", "ndots", "expected"),
    [
        ("gpu1", (), 1, ("gpu1",)),
        ("gpu1", ("a.example", "b.example"), 1, ("gpu1.a.example", "gpu1.b.example", "gpu1")),
        ("gpu1.lan", ("a.example",), 1, ("gpu1.lan", "gpu1.lan.a.example")),
        ("gpu1.lan", ("a.example",), 5, ("gpu1.lan.a.example", "gpu1.lan")),
        ("gpu1.lan.", ("a.example",), 5, ("gpu1.lan",)),
    ],
)
def test_a_name_may_mean_one_below_the_search_domains(
    name: str, search: tuple[str, ...], ndots: int, expected: tuple[str, ...]
) -> None:
    assert candidates(name, search, ndots) == expected


def test_families_take_turns() -> None:
    assert interleave(("::1", "::2", "::3"), ("1.1.1.1",)) == ("::1", "1.1.1.1", "::2", "::3")
    assert interleave((), ("1.1.1.1", "1.1.1.2")) == ("1.1.1.1", "1.1.1.2")


@pytest.mark.parametrize(
    ("address", "usable"),
    [
        ("10.0.0.1", True),
        ("127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.1", False),
        ("ff02::1", False),
    ],
)
def test_a_server_is_at_one_address(address: str, usable: bool) -> None:
    assert is_usable(address) == usable
