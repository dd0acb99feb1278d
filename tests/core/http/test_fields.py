"""The lines of a head, read once and shared by all heads that have them."""

import pytest

from comfyproxy.core.http.fields import KEPT_BLOCKS, KEPT_FORMS, KEPT_SIZE, FieldBlock, read_fields
from comfyproxy.core.http.http1 import parse_request_head, parse_response_head
from comfyproxy.errors import ProtocolError


def block(*lines: bytes) -> FieldBlock:
    found = read_fields(b"".join(line + b"\r\n" for line in lines))
    assert found is not None
    return found


def test_lines_are_kept_as_they_came_under_their_lower_case_names() -> None:
    assert block(b"X-B: 1", b"x-a:2 ", b"X-b:").fields == [
        (b"x-b", b"X-B: 1"),
        (b"x-a", b"x-a:2 "),
        (b"x-b", b"X-b:"),
    ]


def test_no_lines_are_a_block_too() -> None:
    empty = block()
    assert (empty.fields, empty.notable, empty.options, empty.is_ordinary) == ([], {}, frozenset(), True)


@pytest.mark.parametrize(
    "raw",
    [b"A: 1", b"A: 1\n", b"\r\n", b" A: 1\r\n", b"A : 1\r\n", b": 1\r\n", b"A: 1\r\n b\r\n", b"A: \x00\r\n"],
)
def test_malformed_lines_are_no_block(raw: bytes) -> None:
    assert read_fields(raw) is None
    assert read_fields(raw) is None


def test_same_lines_are_read_once() -> None:
    assert block(b"Host: a", b"X-Once: 1") is block(b"Host: a", b"X-Once: 1")
    assert block(b"Host: a", b"X-Once: 1") is not block(b"Host: a", b"X-Once: 2")


def test_large_blocks_are_not_kept() -> None:
    line = b"X-Large: " + b"x" * (KEPT_SIZE - 11)
    assert block(line) is block(line)
    assert block(line + b"x") is not block(line + b"x")


def test_only_so_many_blocks_are_kept() -> None:
    first = block(b"X-Number: first")
    for number in range(KEPT_BLOCKS):
        block(b"X-Number: %d" % number)
    assert block(b"X-Number: first") is not first


def test_lines_that_are_refused_are_refused_again() -> None:
    for _ in range(2):
        with pytest.raises(ProtocolError, match="Host is there more than once"):
            block(b"Host: a", b"X-A: 1", b"host: a")


def test_heads_that_share_their_lines_differ_in_all_else() -> None:
    rest = b" HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: keep-alive, upgrade\r\n\r\n"
    first, second = parse_request_head(b"GET /a" + rest), parse_request_head(b"PUT /b" + rest)
    older = parse_request_head(b"GET /a" + rest.replace(b"1.1", b"1.0"))
    answer = parse_response_head(b"HTTP/1.1 200" + rest[9:], b"HEAD")
    assert first.block is second.block is older.block is answer.block
    assert (first.method, second.method, first.target, second.target) == (b"GET", b"PUT", b"/a", b"/b")
    assert (second.minor, second.upgrade, older.minor, older.upgrade) == (1, True, 0, False)
    assert (second.body, answer.body) == (5, 0)


@pytest.mark.parametrize(
    ("connection", "close", "keep_alive", "upgrade", "options"),
    [
        (b"close", True, False, False, set()),
        (b"Keep-Alive", False, True, False, set()),
        (b"keep-alive,close", True, True, False, set()),
        (b"Upgrade, X-A", False, False, True, {b"x-a"}),
        (b" ,\tX-A , x-a,TE", False, False, False, {b"x-a"}),
        (b"Host, Content-Length, x-b", False, False, False, {b"x-b"}),
        (b"", False, False, False, set()),
    ],
)
def test_connection_is_read(
    connection: bytes, close: bool, keep_alive: bool, upgrade: bool, options: set[bytes]
) -> None:
    found = block(b"Connection: " + connection)
    assert (found.close, found.keep_alive, found.upgrade, found.options) == (
        close,
        keep_alive,
        upgrade,
        options,
    )


def test_the_first_field_of_a_name_has_its_value() -> None:
    found = block(b"X-A: 1 ", b"x-a: 2", b"X-B:")
    assert (found.value(b"x-a"), found.value(b"x-b"), found.value(b"x-c")) == (b"1", b"", None)


def test_what_passes_of_cookies_can_be_told() -> None:
    found = block(b"cookie: a=1; ours=2", b"X-A: ours=1", b"Cookie:\tours=3", b"COOKIE:b=4 ")
    assert found.passing(frozenset(), _without_ours) == b"cookie: a=1\r\nX-A: ours=1\r\nCOOKIE:b=4 \r\n"
    assert found.passing(frozenset((b"cookie",)), _without_ours) == b"X-A: ours=1\r\n"
    assert found.passing(frozenset()).count(b"ours") == 3


def test_only_so_many_forms_are_kept() -> None:
    found = block(b"X-A: 1", b"X-Forms: many")
    first = found.passing(frozenset())
    for number in range(KEPT_FORMS):
        assert found.passing(frozenset((b"x-a", b"x-%d" % number))) == b"X-Forms: many\r\n"
    assert found.passing(frozenset()) == first
    assert found.passing(frozenset()) is not first


def _without_ours(value: bytes) -> bytes:
    return b"; ".join(part for part in value.split(b"; ") if not part.startswith(b"ours"))


def test_passing_leaves_out_what_is_dropped_or_named_by_connection() -> None:
    found = block(b"X-A: 1", b"Connection: X-Hop", b"x-hop: 2", b"X-B: 3", b"x-a: 4")
    without = frozenset((b"connection", b"x-b"))
    for _ in range(2):
        assert found.passing(without) == b"X-A: 1\r\nx-a: 4\r\n"
        assert found.passing(frozenset((b"connection",))) == b"X-A: 1\r\nX-B: 3\r\nx-a: 4\r\n"


@pytest.mark.parametrize("name", [b"Upgrade", b"Expect", b"TE", b"Max-Forwards", b"Via", b"Cookie"])
def test_fields_that_ask_for_care_are_not_ordinary(name: bytes) -> None:
    assert not block(b"Host: a", name + b": 1").is_ordinary


def test_other_fields_are_ordinary() -> None:
    lines = (b"Host: a", b"Content-Length: 0", b"Connection: close", b"Date: x", b"Accept: */*", b"X-A: 1")
    assert block(*lines).is_ordinary


@pytest.mark.parametrize(("name", "odd"), [(b"X-A9", False), (b"X_A", True), (b"X.A", True), (b"!", True)])
def test_names_that_cgi_confuses_are_marked(name: bytes, odd: bool) -> None:
    assert block(b"Host: a_b", name + b": 1").has_odd_names == odd
