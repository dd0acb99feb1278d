"""How many outputs a prompt has, and which stands for it."""

from typing import Any

import pytest

from comfyproxy.comfyui.merging.outputs import Summary, named, summarise

SAVED = {"filename": "a.png", "subfolder": "", "type": "output"}
SHOWN = {"filename": "b.png", "subfolder": "", "type": "temp"}
TEXT_FILE = {"filename": "c.TXT", "subfolder": "", "type": "output"}


def preview(outputs: Any) -> Any:
    return summarise(outputs).preview


def test_nothing_was_made() -> None:
    assert summarise({}) == Summary(0, 0, None)


def test_a_saved_picture_stands_for_what_came_before_it() -> None:
    outputs = {
        "1": {"text": ["words"]},
        "2": {"images": [SHOWN]},
        "3": {"files": [TEXT_FILE]},
        "4": {"images": [SAVED]},
    }
    assert summarise(outputs) == Summary(3, 3, {**SAVED, "nodeId": "4", "mediaType": "images"})


@pytest.mark.parametrize(
    ("outputs", "node"),
    [
        ({"1": {"text": ["words"]}, "2": {"files": [TEXT_FILE]}, "3": {"images": [SHOWN]}}, "3"),
        ({"1": {"text": ["words"]}, "2": {"files": [TEXT_FILE]}}, "2"),
        ({"1": {"text": ["words"]}, "2": {"text": ["more"]}}, "1"),
        ({"1": {"images": [SAVED]}, "2": {"images": [SAVED]}}, "1"),
        ({"1": {"images": [SHOWN]}, "2": {"video": [{**SHOWN, "type": "output"}]}}, "2"),
        ({"1": {"latents": [{"filename": "x.latent", "type": "output"}]}, "2": {"images": [SHOWN]}}, "2"),
    ],
)
def test_what_stands_for_a_prompt(outputs: Any, node: str) -> None:
    assert preview(outputs)["nodeId"] == node


@pytest.mark.parametrize(
    ("media", "item", "is_previewable"),
    [
        ("images", {}, True),
        ("audio", SAVED, True),
        ("3d", {"filename": "x"}, True),
        ("gifs", {"filename": "x.bin", "format": "video/h264-mp4"}, True),
        ("sounds", {"format": "audio/flac"}, True),
        ("result", {"filename": "Model.GLB"}, True),
        ("result", {"filename": "notes.md"}, True),
        ("result", {"filename": "x.latent"}, False),
        ("result", {"filename": 3, "format": ["video/"]}, False),
        ("result", {}, False),
    ],
)
def test_every_file_counts_and_those_that_can_be_shown(media: str, item: Any, is_previewable: bool) -> None:
    found = summarise({"1": {media: [item]}})
    assert (found.count, found.previewable) == (1, int(is_previewable))
    assert (found.preview is not None) == is_previewable


def test_a_model_told_by_its_name_is_a_file() -> None:
    file = {"filename": "a.obj", "type": "output", "subfolder": "", "mediaType": "3d"}
    assert summarise({"1": {"result": ["a.obj", "note", None]}}) == Summary(1, 1, {**file, "nodeId": "1"})


def test_a_text_is_no_file_and_is_cut() -> None:
    found = summarise({"1": {"text": ["x" * 1025, "y"]}})
    assert found == Summary(
        0, 0, {"content": "x" * 1024, "truncated": True, "nodeId": "1", "mediaType": "text"}
    )
    assert preview({"1": {"text": ["x" * 1024]}}) == {
        "content": "x" * 1024,
        "nodeId": "1",
        "mediaType": "text",
    }


def test_its_own_kind_stays_with_a_file() -> None:
    assert preview({"1": {"images": [{**SAVED, "mediaType": "special"}]}})["mediaType"] == "special"


@pytest.mark.parametrize(
    "outputs",
    [{"1": None}, {"1": []}, {"1": {"images": 3}}, {"1": {"animated": [True]}}, {"1": {"images": [3, None]}}],
)
def test_what_is_no_output_does_not_count(outputs: Any) -> None:
    assert summarise(outputs) == Summary(0, 0, None)


def test_names_become_files_and_nothing_goes() -> None:
    file = {"filename": "a.obj", "type": "output", "subfolder": "", "mediaType": "3d"}
    outputs = {
        "1": {"result": ["a.obj", None, "note", 3, SAVED], "animated": [None], "flag": True},
        "2": None,
    }
    expected = {"1": {"result": [file, "note", 3, SAVED], "animated": [None], "flag": True}, "2": None}
    assert named(outputs) == expected
