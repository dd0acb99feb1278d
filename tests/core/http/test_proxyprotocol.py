"""Headers of the PROXY protocol, against the corpus in tests/vectors and by rules that it cannot show."""

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.http.proxyprotocol import (
    MAX_HEADER,
    SIGNATURE,
    V1,
    V2,
    End,
    ProxyHeader,
    ProxyHeaderReader,
    crc32c,
    make_header,
    own_header,
)
from comfyproxy.errors import ProtocolError

VECTORS = Path(__file__).parents[2] / "vectors" / "proxy-protocol"
MORE = [b"", b"G", b"\r\n\r\n\0\r\nQUIT\n", b"PROXY UNKNOWN\r\n", b"\x16\x03\x01" * 50]

Expected = dict[str, Any]


def corpus(folder: str) -> list[Any]:
    """The cases of one folder as parameters: the octets and what is expected of them."""
    tables = tomllib.loads((VECTORS / folder / "expected.toml").read_text())
    return [
        pytest.param((VECTORS / folder / f"{name}.bin").read_bytes(), expected, id=name)
        for name, expected in tables.items()
    ]


def ways_to_arrive(raw: bytes) -> Iterator[list[bytes]]:
    """``raw`` whole, byte by byte, and in two pieces."""
    yield [raw]
    if len(raw) < 1000:
        yield [raw[at : at + 1] for at in range(len(raw))]
    # Behind the first 300 octets no file has anything but padding, and its end.
    for at in (*range(1, min(len(raw), 300)), *range(max(300, len(raw) - 20), len(raw))):
        yield [raw[:at], raw[at:]]


def read(pieces: Iterable[bytes]) -> tuple[ProxyHeader | None, bytes]:
    """The header, and what came behind it."""
    reader = ProxyHeaderReader()
    header = None
    rest = b""
    for piece in pieces:
        if header is None:
            header = reader.feed(piece)
            rest = reader.rest
        else:
            rest += piece
    return header, rest


@pytest.mark.parametrize("folder", ["valid", "invalid"])
def test_every_file_of_the_corpus_has_its_expectation(folder: str) -> None:
    files = {path.stem for path in (VECTORS / folder).glob("*.bin")}
    assert files == set(tomllib.loads((VECTORS / folder / "expected.toml").read_text()))


@pytest.mark.parametrize(("raw", "expected"), corpus("valid"))
def test_a_valid_header_is_read_alike_however_it_arrives(raw: bytes, expected: Expected) -> None:
    source, destination = (
        End(*expected[end]) if end in expected else None for end in ("source", "destination")
    )
    header = ProxyHeader(source, destination, expected.get("secure", False))
    for more in MORE:
        for pieces in ways_to_arrive(raw + more):
            assert read(pieces) == (header, more)


@pytest.mark.parametrize(("raw", "expected"), corpus("valid"))
def test_a_header_that_is_not_all_there_is_waited_for(raw: bytes, expected: Expected) -> None:
    for end in (*range(min(len(raw), 300)), len(raw) - 1):
        assert read([raw[:end]]) == (None, b"")


@pytest.mark.parametrize(("raw", "expected"), corpus("invalid"))
def test_an_invalid_header_is_refused_however_it_arrives(raw: bytes, expected: Expected) -> None:
    for more in MORE:
        for pieces in ways_to_arrive(raw + more):
            with pytest.raises(ProtocolError, match=expected["why"]) as caught:
                read(pieces)
            assert caught.value.status == 400


@given(st.binary(max_size=120), st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x20"]))
def test_any_octets_are_a_header_or_refused_or_waited_for_within_bounds(octets: bytes, begun: bytes) -> None:
    raw = begun + octets
    try:
        header, rest = read([raw])
    except ProtocolError:
        with pytest.raises(ProtocolError):
            read(raw[at : at + 1] for at in range(len(raw)))
        return
    assert read(raw[at : at + 1] for at in range(len(raw))) == (header, rest)
    if header is None:
        with pytest.raises(ProtocolError):
            read([raw, b"x" * MAX_HEADER + b"\r\n"])


HOSTS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda one: not one.ipv4_mapped))
ENDS = st.builds(End, HOSTS.map(str), st.integers(0, 65_535))


@given(st.sampled_from([V1, V2]), ENDS, ENDS)
def test_what_is_written_is_read(version: int, source: End, destination: End) -> None:
    raw = make_header(version, source, destination)
    assert raw.startswith(b"PROXY " if version == V1 else SIGNATURE)
    assert read([raw]) == (ProxyHeader(source, destination), b"")


@pytest.mark.parametrize(
    ("version", "source", "destination", "header"),
    [
        (V1, "192.0.2.1", "198.51.100.7", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n"),
        (V1, "2001:db8::1", "2001:db8::7", b"PROXY TCP6 2001:db8::1 2001:db8::7 1 2\r\n"),
        (V1, "192.0.2.1", "2001:db8::7", b"PROXY TCP6 ::ffff:c000:201 2001:db8::7 1 2\r\n"),
        (V1, "fe80::1%eth0", "fe80::7", b"PROXY TCP6 fe80::1 fe80::7 1 2\r\n"),
        (V1, "unknown", "192.0.2.1", b"PROXY UNKNOWN\r\n"),
        (V2, "192.0.2.1", "unknown", SIGNATURE + b"\x21\x00\x00\x00"),
        (
            V2,
            "192.0.2.1",
            "198.51.100.7",
            SIGNATURE + b"\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\x00\x01\x00\x02",
        ),
    ],
)
def test_headers_are_written_to_the_letter(
    version: int, source: str, destination: str, header: bytes
) -> None:
    assert make_header(version, End(source, 1), End(destination, 2)) == header


def test_who_has_no_address_is_not_known() -> None:
    assert make_header(V1, None, End("192.0.2.1", 1)) == b"PROXY UNKNOWN\r\n"
    assert make_header(V2, End("192.0.2.1", 1), None) == SIGNATURE + b"\x21\x00\x00\x00"


def test_a_connection_of_our_own_says_so() -> None:
    assert own_header(V1) == b"PROXY UNKNOWN\r\n"
    assert own_header(V2) == SIGNATURE + b"\x20\x00\x00\x00"
    assert read([own_header(V2)]) == (ProxyHeader(), b"")


def test_the_checksum_is_that_of_rfc_3720() -> None:
    # Appendix B.4 of RFC 3720 has the sums of 32 octets: zeroes, ones, and 0 to 31.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
