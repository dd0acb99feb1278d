"""What single messages are about."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.fanin.frames import Frame, Preview, ProgressText, event, read_binary, status
from tests.comfyui.fanin.page import Recording
from tests.comfyui.fanin.rig import picture, preview, text

PROMPT = "11111111-1111-4111-8111-111111111111"


def test_a_status_is_spelt_as_comfyui_spells_it() -> None:
    (greeting, *_), _ = Recording("script").greeting(), None
    sid = json.loads(greeting[0])["data"]["sid"]
    assert status(0, sid) == greeting[0]
    assert status(3) == b'{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 3}}}}'


def test_an_end_is_spelt_as_comfyui_spells_it() -> None:
    last = Recording("page").prompt("steps", PROMPT)[-1]
    assert event("executing", {"node": None, "prompt_id": PROMPT}) == last[0]


def test_a_jpeg_without_metadata_gives_way_to_the_next_one() -> None:
    payload = picture(1, 1)
    assert read_binary(payload, (), False) == Preview(None, Frame(payload, True, "preview"), False)


def test_a_png_may_be_what_a_node_gives() -> None:
    read = read_binary(picture(1, 2), (), False)
    assert isinstance(read, Preview)
    assert read.is_result


@pytest.mark.parametrize(("image_type", "is_result"), [("image/jpeg", False), ("image/png", True)])
def test_a_preview_with_metadata_says_its_prompt(image_type: str, is_result: bool) -> None:
    payload = preview(PROMPT, image_type)
    read = read_binary(payload, (), False)
    assert isinstance(read, Preview)
    assert (read.prompt_id, read.is_result, read.frame.payload) == (PROMPT, is_result, payload)


def test_previews_of_one_node_give_way_to_each_other_and_to_no_others() -> None:
    def key(payload: bytes) -> object:
        read = read_binary(payload, (), False)
        assert isinstance(read, Preview)
        return read.frame.key

    assert key(preview(PROMPT, mark=b"1")) == key(preview(PROMPT, mark=b"2"))
    assert key(preview(PROMPT)) != key(preview("another"))
    assert key(preview(PROMPT)) != key(picture(1, 1))


@pytest.mark.parametrize("about", [b"{}", b'{"prompt_id": 7}'])
def test_a_preview_that_names_no_prompt_is_nobodys(about: bytes) -> None:
    read = read_binary(b"\0\0\0\4" + len(about).to_bytes(4, "big") + about + b"image", (), False)
    assert isinstance(read, Preview)
    assert read.prompt_id == ""


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("wanted", [None, PROMPT])
def test_a_text_is_put_into_the_form_that_the_client_expects(named: bool, wanted: str | None) -> None:
    read = read_binary(text("4", "höher", PROMPT if named else None), {PROMPT}, False)
    assert read == ProgressText(PROMPT if named else None, b"4", "höher".encode())
    assert read.frame(wanted).payload == text("4", "höher", wanted)


def test_a_text_of_a_strangers_prompt_is_seen_as_such_where_its_server_names_them() -> None:
    read = read_binary(text("4", "step 1", PROMPT), (), True)
    assert isinstance(read, ProgressText)
    assert read.prompt_id == PROMPT


def test_a_text_without_a_prompt_is_read_where_its_server_could_name_it() -> None:
    assert read_binary(text("4", "step"), (), True) == ProgressText(None, b"4", b"step")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0",
        b"\0\0\0\2rest",
        b"\0\0\0\3",
        b"\0\0\0\3\0\0\0\5four",
        b"\0\0\0\3\xff\xff\xff\xff",
        b"\0\0\0\4",
        b"\0\0\0\4\0\0\0\2[]image",
        b"\0\0\0\4\0\0\0\2{image",
        b"\0\0\0\4\0\1\0\0{}",
    ],
)
def test_what_is_ill_formed_or_of_another_kind_is_nothing(payload: bytes) -> None:
    assert read_binary(payload, (), True) is None


@given(st.binary(), st.booleans())
def test_whatever_comes_is_read_without_an_error(rest: bytes, names_prompts: bool) -> None:
    for kind in range(6):
        read = read_binary(kind.to_bytes(4, "big") + rest, {"a"}, names_prompts)
        if isinstance(read, ProgressText):
            read.frame("a")
