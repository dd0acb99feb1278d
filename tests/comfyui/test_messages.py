"""Which WebSocket messages replace an older one that still waits for a slow client."""

import json
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.messages import message_key
from comfyproxy.comfyui.router import ClientRouter, RequestRouter


def text(kind: str, **data: Any) -> bytes:
    """A message as ComfyUI's aiohttp writes it."""
    return json.dumps({"type": kind, "data": data}).encode()


def preview(image: bytes, **metadata: str) -> bytes:
    """A preview, of type 4 if it has metadata, else of type 1."""
    if not metadata:
        return pack(">II", 1, 1) + image
    said = json.dumps(metadata).encode()
    return pack(">II", 4, len(said)) + said + image


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (
            text("progress_state", prompt_id="a", nodes={}),
            text("progress_state", prompt_id="a", nodes={"1": {}}),
        ),
        (
            text("progress", value=1, max=9, prompt_id="a", node="3"),
            text("progress", value=2, max=9, prompt_id="a", node="3"),
        ),
        (preview(b"one"), preview(b"two")),
        (preview(b"one", prompt_id="a", node_id="3"), preview(b"two", prompt_id="a", node_id="3")),
    ],
)
def test_progress_and_previews_replace_older_ones_of_their_kind(older: bytes, newer: bytes) -> None:
    is_binary = older[:1] == b"\0"
    assert message_key(older, is_binary) is not None
    assert message_key(older, is_binary) == message_key(newer, is_binary)


def test_those_of_other_prompts_nodes_and_kinds_are_kept_apart() -> None:
    keys = [
        message_key(text("progress_state", prompt_id="a", nodes={}), False),
        message_key(text("progress_state", prompt_id="b", nodes={}), False),
        message_key(text("progress", prompt_id="a", node="3", value=1, max=9), False),
        message_key(text("progress", prompt_id="a", node="4", value=1, max=9), False),
        message_key(text("progress", prompt_id="b", node="3", value=1, max=9), False),
        message_key(preview(b"one"), True),
        message_key(preview(b"one", prompt_id="a", node_id="3"), True),
        message_key(preview(b"one", prompt_id="a", node_id="4"), True),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("payload", "is_binary"),
    [
        (text("status", status={"exec_info": {"queue_remaining": 1}}), False),
        (text("executing", node=None, prompt_id="a"), False),
        (text("executed", node="3", prompt_id="a", output={}), False),
        (text("execution_success", prompt_id="a"), False),
        (text("progress", value=1, max=9), False),
        (text("progress_state", prompt_id=["a"]), False),
        (text("progress_of_a_custom_node", prompt_id="a", node="3"), False),
        (b'{"type": "progress", "data": null}', False),
        (b'{"type": "progress"', False),
        (b'["progress"]', False),
        (b'{"progress": {}}', False),
        (b"", False),
        (b"", True),
        (pack(">II", 2, 1) + b"image", True),
        (pack(">II", 3, 1) + b"3text", True),
        (text("progress_state", prompt_id="a", nodes={}), True),
        (preview(b"one"), False),
    ],
)
def test_every_other_message_is_delivered(payload: bytes, is_binary: bool) -> None:
    assert message_key(payload, is_binary) is None


@given(
    st.binary(max_size=40) | st.builds(b'{"type": "progress%b'.__mod__, st.binary(max_size=40)), st.booleans()
)
def test_no_message_is_too_strange(payload: bytes, is_binary: bool) -> None:
    hash(message_key(payload, is_binary))


def test_the_routers_go_by_it() -> None:
    assert ClientRouter.message_key is RequestRouter.message_key is message_key
