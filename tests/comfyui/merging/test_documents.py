"""Reading whatever servers send, and writing only what every client can read."""

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.merging.documents import (
    BadQuery,
    integer,
    is_number,
    read,
    read_body,
    read_query,
    write,
    write_list,
    write_object,
)
from comfyproxy.core.balancing.operations import MAX_REPLY
from tests.comfyui.merging.servers import A, reply, silence


def deep(levels: int, end: Any = 0) -> Any:
    for _ in range(levels):
        end = [end]
    return end


def test_the_json_of_an_answer_is_read() -> None:
    assert read(reply(A, {"a": [1, "é"]})) == {"a": [1, "é"]}


@pytest.mark.parametrize("status", [204, 404, 500, 503])
def test_other_answers_say_nothing(status: int) -> None:
    assert read(reply(A, {"a": 1}, status=status)) is None


def test_no_answer_says_nothing() -> None:
    assert read(silence(A)) is None
    assert read_body(silence(A)) == b""


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"<html>", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_says_nothing(body: bytes) -> None:
    assert read(reply(A, body=body)) is None


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not_are_nothing(name: str) -> None:
    assert read(reply(A, body=b'{"a": %b}' % name.encode())) == {"a": None}


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_answers_are_read(coding: str) -> None:
    body = gzip.compress(b"[1]") if coding == "gzip" else zlib.compress(b"[1]")
    assert read(reply(A, body=body, fields=f"Content-Encoding: {coding}\r\n")) == [1]


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"[1]")[:-9]])
def test_broken_compression_says_nothing(body: bytes) -> None:
    assert read(reply(A, body=body, fields="Content-Encoding: gzip\r\n")) is None


def test_an_unknown_coding_says_nothing() -> None:
    assert read(reply(A, body=b"[1]", fields="Content-Encoding: br\r\n")) is None


def test_a_small_answer_that_would_fill_the_memory_says_nothing() -> None:
    packer = zlib.compressobj(9, wbits=31)
    block = b" " * (1024 * 1024)
    body = b"".join(packer.compress(block) for _ in range(MAX_REPLY // len(block) + 1)) + packer.flush()
    with pytest.raises(ValueError, match="too long"):
        read_body(reply(A, body=body, fields="Content-Encoding: gzip\r\n"))


def test_what_is_written_has_no_numbers_that_browsers_refuse() -> None:
    value = {"a": [1e999, -1e999, float("nan"), 1.5], "b": {"c": float("inf")}, "d": "Infinity"}
    assert write(value) == b'{"a":[null,null,null,1.5],"b":{"c":null},"d":"Infinity"}'


def test_what_is_too_deep_is_not_written() -> None:
    assert write(deep(100_000)) is None
    assert write(deep(100_000, float("nan"))) is None


def test_one_value_that_cannot_be_written_does_not_cost_the_others() -> None:
    assert write_list([1, deep(100_000), "b"]) == b'[1,"b"]'
    assert write_object([("a", 1), ("b", deep(100_000)), ("c\n", 2)]) == b'{"a":1,"c\\n":2}'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_whatever_was_read_can_be_written_and_read_strictly(value: Any) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = write(value)
    assert text is not None
    json.loads(text, parse_constant=refuse)


def test_the_first_of_several_parameters_counts() -> None:
    assert read_query(b"a=1&b=&a=2&c=%20d") == {"a": "1", "b": "", "c": " d"}


def test_integers_are_read_as_python_reads_them() -> None:
    parameters = {"a": " 12 ", "b": "-3", "c": "x", "d": "9" * 5000}
    assert integer(parameters, "a") == 12
    assert integer(parameters, "b") == -3
    assert integer(parameters, "e") is None
    for name in "cd":
        with pytest.raises(BadQuery, match=f"^{name} must be an integer$"):
            integer(parameters, name)


@pytest.mark.parametrize("value", [0, -1, 1.5, 2**62, 1e18])
def test_numbers_to_reckon_with(value: float) -> None:
    assert is_number(value)


@pytest.mark.parametrize(
    "value", [True, None, "1", float("nan"), float("inf"), -float("inf"), 10**400, 1e300]
)
def test_no_numbers_to_reckon_with(value: object) -> None:
    assert not is_number(value)
