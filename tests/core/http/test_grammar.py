"""What lines are made of."""

import re

import pytest

from comfyproxy.core.http.grammar import TEXT, TOKEN, has_bare_line_end


def test_token_takes_the_characters_of_rfc_9110_and_no_others() -> None:
    marks = b"!#$%&'*+-.^_`|~"
    tokens = {octet for octet in range(256) if re.fullmatch(TOKEN, bytes([octet]))}
    assert tokens == {octet for octet in range(128) if chr(octet).isalnum() or octet in marks}
    assert not re.fullmatch(TOKEN, b"")


def test_text_takes_no_control_character_but_tab() -> None:
    refused = {octet for octet in range(256) if not re.fullmatch(TEXT, bytes([octet]))}
    assert refused == {*range(32), 127} - {9}


@pytest.mark.parametrize("data", [b"", b"a", b"\r\n", b"a\r\nb\r\n\r\n", b"\r", b"a\r\n\r"])
def test_paired_line_ends_and_a_cr_that_waits_are_no_bare_ones(data: bytes) -> None:
    assert not has_bare_line_end(data)


@pytest.mark.parametrize(
    "data",
    [b"\n", b"a\nb", b"\n\r", b"\r\r", b"\r\r\n", b"\ra", b"\r\n\n", b"a\rb\nc", b"a\nb\rc", b"\n\r\n"],
)
def test_a_cr_or_lf_alone_is_a_bare_line_end(data: bytes) -> None:
    assert has_bare_line_end(data)
