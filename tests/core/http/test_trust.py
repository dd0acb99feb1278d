"""Who is believed, and whom a chain of proxies comes from."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.http.trust import (
    KEPT_ANSWERS,
    MAX_PARTS,
    Trust,
    plain_address,
    read_node,
    told_by_forwarded,
    told_by_list,
)

PROXIES = Trust(["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("networks", "host", "trusted"),
    [
        ([], b"192.0.2.1", False),
        (["192.0.2.1"], b"192.0.2.1", True),
        (["192.0.2.9/24"], b"192.0.2.1", True),
        (["192.0.2.0/24"], b"192.0.3.1", False),
        (["192.0.2.0/24"], b"::ffff:192.0.2.1", True),
        (["2001:db8::/32"], b"2001:DB8::7", True),
        (["::/0"], b"192.0.2.1", False),
        (["0.0.0.0/0"], b"unknown", False),
        (["0.0.0.0/0"], b"\xff", False),
    ],
)
def test_an_address_is_trusted_by_the_networks_it_is_in(
    networks: list[str], host: bytes, trusted: bool
) -> None:
    trust = Trust(networks)
    assert trust.trusts(host) == trusted
    assert trust.trusts(host) == trusted


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        Trust(["the office"])


def test_not_more_answers_are_kept_than_so_many() -> None:
    trust = Trust(["10.0.0.0/8"])
    for number in range(KEPT_ANSWERS + 10):
        assert trust.trusts(b"10.1.%d.%d" % divmod(number, 256))
    assert len(trust._known) <= KEPT_ANSWERS


@pytest.mark.parametrize(
    ("told", "client"),
    [
        ([], b"10.0.0.1"),
        ([b"203.0.113.5"], b"203.0.113.5"),
        ([b"203.0.113.5", b"198.51.100.1"], b"203.0.113.5"),
        ([b"10.0.0.2", b"203.0.113.5", b"10.0.0.3"], b"203.0.113.5"),
        ([b" 2001:DB8:0::1 ", b"203.0.113.5:4711"], b"203.0.113.5"),
        ([b"10.0.0.2", b"10.0.0.3"], b"10.0.0.3"),
        ([b"unknown", b"203.0.113.5"], b"10.0.0.1"),
        ([b"10.0.0.2", b"", b"203.0.113.5"], b"10.0.0.2"),
        ([b"::ffff:10.0.0.2", b"203.0.113.5"], b"203.0.113.5"),
        ([b'fe80::1%a "b";c'], b"fe80::1"),
    ],
)
def test_the_client_is_the_first_that_is_not_trusted(told: list[bytes], client: bytes) -> None:
    assert PROXIES.client(b"10.0.0.1", told) == client


def test_who_is_not_trusted_is_the_client_whatever_it_tells() -> None:
    assert PROXIES.client(b"192.0.2.1", [b"203.0.113.5"]) == b"192.0.2.1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"192.0.2.1", b"192.0.2.1"),
        (b"\t192.0.2.1 ", b"192.0.2.1"),
        (b"192.0.2.1:80", b"192.0.2.1"),
        (b"2001:DB8::0:1", b"2001:db8::1"),
        (b"[2001:db8::1]", b"2001:db8::1"),
        (b"[2001:db8::1]:80", b"2001:db8::1"),
        (b"::ffff:192.0.2.1", b"192.0.2.1"),
        (b"192.0.2", None),
        (b"192.0.2.1:", None),
        (b"[192.0.2.1", None),
        (b"unknown", None),
        (b"_hidden", None),
        (b"", None),
        (b"\xe9", None),
    ],
)
def test_a_node_is_an_address_with_or_without_a_port(text: bytes, address: bytes | None) -> None:
    assert read_node(text) == address


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:0:1", "::ffff:0:1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("unknown", "unknown"),
    ],
)
def test_a_client_of_ipv4_is_shown_as_one(host: str, plain: str) -> None:
    assert plain_address(host) == plain


def test_a_list_is_read_from_its_end_over_all_of_its_lines() -> None:
    assert list(told_by_list([b"a, b", b"c"])) == [b"c", b" b", b"a"]


@pytest.mark.parametrize(
    ("lines", "nodes"),
    [
        ([b"for=192.0.2.1"], [b"192.0.2.1"]),
        ([b"For=192.0.2.1;proto=https"], [b"192.0.2.1"]),
        ([b'proto=http; by=10.0.0.1 ;for="[2001:db8::1]:80"'], [b"[2001:db8::1]:80"]),
        ([b"for=a, for=b", b"for=c"], [b"c", b"b", b"a"]),
        ([b"proto=http"], [b""]),
        ([b""], [b""]),
        ([b'for="a,b";x="\\,", for=c'], [b"c", b"a,b"]),
        ([b'x=";for=evil";for=a'], [b"a"]),
        ([b"for=evil garbage"], [b""]),
        ([b"for=a;;"], [b""]),
    ],
)
def test_forwarded_is_read_from_its_end(lines: list[bytes], nodes: list[bytes]) -> None:
    assert list(told_by_forwarded(lines)) == nodes


@pytest.mark.parametrize("begun", [b'for="', b'for=evil;x="', b'for=evil;x="\\', b'"', b",,,", b"for=;"])
@pytest.mark.parametrize("added", [b"for=192.0.2.1", b'for="[2001:db8::1]";by="[2001:db8::2]"'])
def test_a_client_cannot_change_how_that_is_read_which_a_proxy_added(begun: bytes, added: bytes) -> None:
    (expected,) = told_by_forwarded([added])
    for lines in ([begun, added], [begun + b", " + added]):
        assert next(iter(told_by_forwarded(lines))) == expected


@given(st.binary(max_size=40))
def test_any_octets_are_read_to_their_end(octets: bytes) -> None:
    nodes = list(told_by_forwarded([octets]))
    assert 1 <= len(nodes) <= octets.count(b",") + 1


def test_an_open_quote_before_many_commas_costs_no_more_than_so_many_parts() -> None:
    began = time.process_time()
    nodes = list(told_by_forwarded([b'"' + b"," * 60_000 + b'x="']))
    assert set(nodes) == {b""}
    assert len(nodes) >= 60_000 / (MAX_PARTS + 1)
    assert time.process_time() - began < 2
