"""Whatever the core accepts, h11 and llhttp (through httptools) accept, with the same framing.

`conformance.oracles` compares the readings. The inputs here are the corpus, messages made by the grammar
(which must be accepted), and both of them with edits; `conformance.fuzzing` searches for more.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyproxy.core.http.http1 import UNTIL_CLOSE
from conformance.oracles import check_request, check_response
from conformance.reading import request_outcome, response_outcome

VECTORS = Path(__file__).parents[2] / "vectors"
REQUESTS = [path.read_bytes() for path in sorted((VECTORS / "requests").glob("*/*.http"))]
RESPONSES = [path.read_bytes() for path in sorted((VECTORS / "responses").glob("*/*.http"))]

EXAMPLES = settings(max_examples=max(200, settings.default.max_examples))

# Seconds, for the thousands of examples of the profile "deep"; without it these tests take one each.
pytestmark = pytest.mark.timeout(600)

PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"=", b'"', b"\\", b"/", b"#", b"@", b"0", b"f"),
    *(b"\0", b"\x0b", b"\x7f", b"\x80", b"\xff", b"chunked", b"identity", b"HTTP/1.0", b"GET", b"http://b"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Host: b\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"0\r\n\r\n",
        b"5;a=b\r\nhello\r\n",
    ),
    *(b"HTTP/1.1 204 ", b"HTTP/1.1 304 ", b"HTTP/1.1 100 ", b"HTTP/1.1 101 ", b"HTTP/1.1 205 "),
]

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=12).map(str.encode)
texts = st.lists(st.sampled_from([9, *range(32, 127), *range(128, 256)]), max_size=20).map(bytes)
blanks = st.sampled_from([b"", b" ", b"\t", b" \t "])
READ_BY_US = frozenset(
    b"host content-length transfer-encoding connection upgrade proxy-connection keep-alive".split()
)


@st.composite
def lines(draw: st.DrawFn, max_size: int = 4) -> list[bytes]:
    """Field lines that mean nothing to framing."""
    names = draw(st.lists(tokens.filter(lambda name: name.lower() not in READ_BY_US), max_size=max_size))
    return [name + b":" + draw(blanks) + draw(texts) + draw(blanks) for name in names]


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
    extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b; \\" \xff";c'])
    spell = st.sampled_from([b"%x", b"%X", b"%04x"])
    body = b"".join(
        draw(spell) % len(chunk) + draw(extensions) + b"\r\n" + chunk + b"\r\n" for chunk in chunks
    )
    trailers = b"".join(line + b"\r\n" for line in draw(lines(max_size=2)) if line[:7].lower() != b"trailer")
    return body + b"0" + draw(extensions) + b"\r\n" + trailers + b"\r\n"


@st.composite
def framed(draw: st.DrawFn, line: bytes, fields: list[bytes], kinds: list[str]) -> bytes:
    """A message with that first line: ``fields`` and others in any order, a body framed by one of them."""
    kind = draw(st.sampled_from(kinds))
    body = b""
    if kind == "length":
        body = draw(st.binary(max_size=40))
        fields = [*fields, b"Content-Length:" + draw(blanks) + b"%d" % len(body) + draw(blanks)]
    elif kind == "chunked":
        body = draw(chunked_bodies())
        coding = draw(st.sampled_from([b"chunked", b"Chunked", b"CHUNKED"]))
        fields = [*fields, b"transfer-encoding:" + draw(blanks) + coding + draw(blanks)]
    connections = st.sampled_from(
        [b"Connection: close", b"Connection:keep-alive , x", b"connection: x,Close"]
    )
    fields = draw(st.permutations([*fields, *draw(st.lists(connections, max_size=2)), *draw(lines())]))
    return line + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def kinds(minor: int) -> list[str]:
    """Framings that this minor version of HTTP/1 has."""
    return ["none", "length", "chunked"] if minor else ["none", "length"]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(
        st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"M-SEARCH"]) | tokens
    )
    marks = st.sampled_from([octet for octet in range(0x21, 0x7F) if octet != 0x23])
    path = b"/" + bytes(draw(st.lists(marks, max_size=20)))
    target = path if method == b"CONNECT" else draw(st.sampled_from([path, b"http://b.example:81" + path]))
    minor = draw(st.sampled_from([1, 1, 1, 0, 7]))
    host = [
        b"Host:" + draw(blanks) + draw(st.sampled_from([b"a.example", b"127.0.0.1:8188", b"[::1]:80", b""]))
    ]
    line = b"%b %b HTTP/1.%d" % (method, target, minor)
    return draw(framed(line, host, kinds(minor))) + draw(st.binary(max_size=8))


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    status = draw(st.integers(100, 999).filter(lambda status: status != 205))
    minor = draw(st.sampled_from([1, 1, 1, 0, 7]))
    line = b"HTTP/1.%d %d" % (minor, status) + draw(st.sampled_from([b"", b" "]) | texts.map(b" ".__add__))
    return draw(framed(line, [], kinds(minor) if status >= 200 else ["none"])) + draw(st.binary(max_size=8))


@st.composite
def edited(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A message in which up to four places were overwritten, cut out or filled in."""
    raw = draw(messages)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = min(start + draw(st.sampled_from([0, 0, 1, 2, 8])), len(raw))
        raw = raw[:start] + draw(st.sampled_from(PIECES) | st.binary(max_size=2)) + raw[end:]
    return raw


def small(corpus: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.sampled_from([raw for raw in corpus if len(raw) < 1000])


methods = st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"])


@pytest.mark.parametrize("path", sorted((VECTORS / "requests").glob("*/*.http")), ids=lambda path: path.stem)
def test_oracles_agree_about_the_corpus_of_requests(path: Path) -> None:
    assert check_request(path.read_bytes()) == (path.parent.name == "valid")


@pytest.mark.parametrize("path", sorted((VECTORS / "responses").glob("*/*.http")), ids=lambda path: path.stem)
def test_oracles_agree_about_the_corpus_of_responses(path: Path) -> None:
    for method in (b"GET", b"HEAD"):
        accepted = check_response(path.read_bytes(), method)
        assert accepted or path.parent.name == "invalid"


@EXAMPLES
@given(raw=requests())
def test_oracles_agree_about_requests_made_by_the_grammar(raw: bytes) -> None:
    assert check_request(raw) or raw.startswith(b"CONNECT ")


@EXAMPLES
@given(raw=responses(), method=methods)
def test_oracles_agree_about_responses_made_by_the_grammar(raw: bytes, method: bytes) -> None:
    assert check_response(raw, method)


@EXAMPLES
@given(raw=edited(small(REQUESTS) | requests()))
def test_oracles_agree_about_edited_requests(raw: bytes) -> None:
    check_request(raw)


@EXAMPLES
@given(raw=edited(small(RESPONSES) | responses()), method=methods)
def test_oracles_agree_about_edited_responses(raw: bytes, method: bytes) -> None:
    check_response(raw, method)


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    return [raw[start:end] for start, end in pairwise(places)]


cuttings = st.lists(st.integers(0, 400), max_size=4)


@EXAMPLES
@given(raw=edited(small(REQUESTS) | requests()), cuts=cuttings)
def test_how_a_request_is_cut_into_pieces_does_not_matter(raw: bytes, cuts: list[int]) -> None:
    assert request_outcome([raw]) == request_outcome(pieces(raw, cuts))


@EXAMPLES
@given(raw=edited(small(RESPONSES) | responses()), method=methods, cuts=cuttings)
def test_how_an_answer_is_cut_into_pieces_does_not_matter(raw: bytes, method: bytes, cuts: list[int]) -> None:
    assert response_outcome([raw], method) == response_outcome(pieces(raw, cuts), method)


@EXAMPLES
@given(
    raw=edited(small(REQUESTS) | requests()),
    behind=st.sampled_from([b"\0", b"\r\n", b"0\r\n\r\n", *REQUESTS[:40]]),
)
def test_what_stands_behind_a_complete_request_does_not_change_it(raw: bytes, behind: bytes) -> None:
    alone = request_outcome([raw])
    if alone.complete:
        assert request_outcome([raw + behind]) == replace(alone, rest=alone.rest + behind)


@EXAMPLES
@given(raw=edited(small(RESPONSES) | responses()), method=methods, behind=small(RESPONSES))
def test_what_stands_behind_a_complete_answer_does_not_change_it(
    raw: bytes, method: bytes, behind: bytes
) -> None:
    alone = response_outcome([raw], method)
    if alone.complete and (not alone.start or UNTIL_CLOSE not in alone.start):
        assert response_outcome([raw + behind], method) == replace(alone, rest=alone.rest + behind)
