"""The chunked coding, piece by piece; what is refused, and how early, is also in tests/vectors."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.http.chunked import LAST_CHUNK, MAX_SIZE_LINE, MAX_TRAILERS, ChunkedReader, encode_chunk
from comfyproxy.errors import ProtocolError

BODY = b"5;a=b\r\nhello\r\n00a\r\n0123456789\r\n0\r\nX-A: 1\r\nx-b:2\r\n\r\n"
PAYLOAD = b"hello0123456789"
REFRAMED = b"5\r\nhello\r\na\r\n0123456789\r\n0\r\nX-A: 1\r\nx-b:2\r\n\r\n"


def read(pieces: Iterable[bytes], framed: bool) -> tuple[bytes, ChunkedReader]:
    """What passes of a body that arrives in ``pieces``, up to its end."""
    reader = ChunkedReader(framed)
    passed = b""
    rest = list(pieces)
    while rest and not reader.complete:
        passed += reader.feed(rest.pop(0))
    reader.rest += b"".join(rest)
    return passed, reader


@pytest.mark.parametrize("behind", [b"", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"0\r\n\r\n"])
@pytest.mark.parametrize(("framed", "passes"), [(False, PAYLOAD), (True, REFRAMED)])
def test_body_passes_alike_however_it_arrives(framed: bool, passes: bytes, behind: bytes) -> None:
    raw = BODY + behind
    ways = [[raw], [raw[at : at + 1] for at in range(len(raw))]]
    ways += [[raw[:at], raw[at:]] for at in range(1, len(raw))]
    for pieces in ways:
        passed, reader = read(pieces, framed)
        assert passed == passes
        assert (reader.complete, reader.payload, reader.rest) == (True, len(PAYLOAD), behind)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=5),
    trailers=st.sampled_from([b"", b"X-A: 1\r\n"]),
    behind=st.binary(max_size=5),
    cuts=st.lists(st.integers(0, 300), max_size=6),
)
def test_any_body_survives_any_cutting(
    chunks: list[bytes], trailers: bytes, behind: bytes, cuts: list[int]
) -> None:
    body = b"".join(map(encode_chunk, chunks)) + b"0\r\n" + trailers + b"\r\n"
    raw = body + behind
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(places)]
    for framed, passes in ((False, b"".join(chunks)), (True, body)):
        passed, reader = read(pieces, framed)
        assert passed == passes
        assert (reader.complete, reader.rest) == (True, behind)
        assert reader.payload == sum(map(len, chunks))


def test_data_passes_before_its_chunk_is_complete() -> None:
    reader = ChunkedReader(framed=True)
    assert reader.feed(b"a\r\n0123") == b"a\r\n0123"
    assert reader.feed(b"45") == b"45"
    assert reader.feed(b"") == b""
    assert reader.feed(b"6789") == b"6789"
    assert reader.feed(b"\r") == b""
    assert reader.feed(b"\n1\r\nx\r\n0\r\n") == b"\r\n1\r\nx\r\n"
    assert not reader.complete
    assert reader.payload == 11
    assert reader.feed(b"\r\n") == LAST_CHUNK
    assert reader.complete


def test_last_chunk_does_not_pass_before_the_trailers_are_known_to_be_good() -> None:
    reader = ChunkedReader(framed=True)
    assert reader.feed(b"0\r\nX-A: 1\r\n") == b""
    assert not reader.complete
    with pytest.raises(ProtocolError):
        reader.feed(b"Content-Length: 5\r\n\r\n")


def test_many_small_chunks_in_one_piece_pass_in_one_piece() -> None:
    raw = b"1\r\nx\r\n" * 50_000 + LAST_CHUNK
    for framed, passes in ((False, b"x" * 50_000), (True, raw)):
        passed, reader = read([raw], framed)
        assert passed == passes
        assert reader.complete


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"x\r\n", "A chunk size is malformed."),
        (b"5\n", "A line of the chunked framing does not end with CRLF."),
        (b"5\r\nhello\n", "A chunk is longer than its size says."),
        (b"0\r\nX A\r\n\r\n", "The trailers are malformed."),
        (b"0\r\nHost: a\r\n\r\n", "The trailers have a field that may not be in trailers."),
        (b"0" * MAX_SIZE_LINE, "The chunked framing has a line or trailers that are too long."),
        (
            b"0\r\n" + b"a:\r\n" * (MAX_TRAILERS // 4),
            "The chunked framing has a line or trailers that are too long.",
        ),
    ],
)
def test_refusal_says_what_is_wrong(raw: bytes, why: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        ChunkedReader(framed=True).feed(raw)
    assert (caught.value.status, str(caught.value)) == (400, why)


@pytest.mark.parametrize(("start", "limit"), [(b"5;", MAX_SIZE_LINE), (b"0\r\nX-A: ", MAX_TRAILERS)])
def test_line_without_end_is_refused_at_its_limit(start: bytes, limit: int) -> None:
    reader = ChunkedReader(framed=False)
    taken = len(start.removeprefix(b"0\r\n"))
    for octet in (start, *[b"x"] * (limit - taken - 1)):
        reader.feed(octet)
    with pytest.raises(ProtocolError, match="too long"):
        reader.feed(b"x")


def test_bare_line_end_is_refused_before_its_line_is_over() -> None:
    for raw in (b"5\rh", b"0\r\nX-A: 1\rh", b"0\r\nX-A: 1\r\nX-B: 2\n"):
        with pytest.raises(ProtocolError, match="does not end with CRLF"):
            ChunkedReader(framed=False).feed(raw)


@pytest.mark.parametrize(
    "name",
    [b"Transfer-Encoding", b"CONTENT-LENGTH", b"x-forwarded-for", b"X_Real_IP", b"Set-Cookie", b"Keep-Alive"],
)
def test_trailers_may_not_say_what_only_a_head_may(name: bytes) -> None:
    with pytest.raises(ProtocolError):
        ChunkedReader(framed=False).feed(b"0\r\nX-A: 1\r\n" + name + b": 1\r\nX-B: 2\r\n\r\n")


def test_trailers_may_say_anything_else() -> None:
    trailers = b"Server-Timing: db;dur=53\r\nContent-Digest: sha-256=:abc=:\r\nX-Hosts: Host: a\r\n"
    assert read([b"0\r\n" + trailers + b"\r\n"], framed=True)[0] == b"0\r\n" + trailers + b"\r\n"


def test_chunk_has_its_size_in_hexadecimal() -> None:
    assert encode_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
