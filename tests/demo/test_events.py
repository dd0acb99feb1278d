"""The wire format of the messages."""

import json
import struct

from comfyproxy.demo.events import (
    Event,
    NodeProgress,
    Preview,
    executing,
    executing_resumed,
    progress_state,
    status,
)


def test_an_event_is_json_with_type_and_data() -> None:
    assert Event("x", {"a": [1, None]}).encode() == '{"type": "x", "data": {"a": [1, null]}}'


def test_only_the_first_status_of_a_connection_carries_the_sid() -> None:
    assert status(2).data == {"status": {"exec_info": {"queue_remaining": 2}}}
    assert status(2, "me").data == {"status": {"exec_info": {"queue_remaining": 2}}, "sid": "me"}


def test_the_end_of_a_prompt_names_no_node_and_a_resume_names_no_prompt() -> None:
    assert executing(None, "p").data == {"node": None, "prompt_id": "p"}
    assert executing("3", "p").data == {"node": "3", "display_node": "3", "prompt_id": "p"}
    assert executing_resumed("3").data == {"node": "3"}


def test_progress_state_tells_every_node_each_time() -> None:
    nodes = {"1": NodeProgress(2, 2, "finished"), "2": NodeProgress(0.0, 1.0, "running")}
    told = progress_state("p", nodes).data
    assert told["prompt_id"] == "p"
    assert {node: (row["value"], row["max"], row["state"]) for node, row in told["nodes"].items()} == {
        "1": (2, 2, "finished"),
        "2": (0.0, 1.0, "running"),
    }


def test_the_older_preview_is_a_kind_a_format_and_the_image() -> None:
    assert Preview(b"PNG", "p", "3").encode() == b"\0\0\0\1\0\0\0\2PNG"


def test_the_newer_preview_names_its_node_and_prompt() -> None:
    frame = Preview(b"PNG", "p", "3").encode_with_metadata()
    kind, length = struct.unpack_from(">II", frame)
    about = json.loads(frame[8 : 8 + length])
    assert (kind, frame[8 + length :]) == (4, b"PNG")
    assert (about["prompt_id"], about["node_id"], about["image_type"]) == ("p", "3", "image/png")
