"""Which files a prompt loads, and a prompt with other names for them."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui import inputs as module
from comfyproxy.comfyui.files import FileRef
from comfyproxy.comfyui.inputs import files_loaded, may_name_file, with_names


def submission(*values: Any) -> dict[str, Any]:
    return {"prompt": {"1": {"class_type": "LoadImage", "inputs": {str(i): v for i, v in enumerate(values)}}}}


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("u.png", FileRef("input", "", "u.png")),
        ("u (1).png", FileRef("input", "", "u (1).png")),
        ("clipspace/mask-1.png [input]", FileRef("input", "clipspace", "mask-1.png")),
        ("a/b/x.png [output]", FileRef("output", "a/b", "x.png")),
        ("x [temp]", FileRef("temp", "", "x")),
        ("speech.mp3", FileRef("input", "", "speech.mp3")),
        ("walk.mp4", FileRef("input", "", "walk.mp4")),
        ("3d/thing.glb", FileRef("input", "3d", "thing.glb")),
        ("noise.latent", FileRef("input", "", "noise.latent")),
        ("ünïcode 名.webp", FileRef("input", "", "ünïcode 名.webp")),
    ],
)
def test_texts_that_may_be_files(text: str, file: FileRef) -> None:
    assert files_loaded(submission(text)) == {text: file}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ComfyUI",
        "a cat. A dog.",
        "a photo\nu.png",
        "euler_ancestral",
        "model.safetensors",
        "sd/v1-5.ckpt",
        "version 1.5",
        ".png",
        "x" * 600 + ".png",
        "etc...",
        "and so on .png",
    ],
)
def test_other_texts_are_not_asked_for(text: str) -> None:
    assert not may_name_file(text)
    assert files_loaded(submission(text)) == {}


def test_lists_and_objects_are_looked_into_and_links_are_not() -> None:
    found = files_loaded(submission(["a.png", "b.png"], {"__value__": ["c.png"]}, ["d.png", 0], None, 7))
    assert sorted(found) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    "document",
    [{}, {"prompt": 7}, {"prompt": {"1": 7}}, {"prompt": {"1": {}}}, {"prompt": {"1": {"inputs": 7}}}],
)
def test_what_is_no_prompt_loads_nothing(document: dict[str, Any]) -> None:
    assert files_loaded(document) == {}


def test_a_prompt_too_deep_to_walk_loads_nothing() -> None:
    deep: Any = "u.png"
    for _ in range(100_000):
        deep = [deep]
    assert files_loaded(submission(deep)) == {}


def test_only_so_many_files_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 3)
    assert len(files_loaded(submission(*(f"{number}.png" for number in range(9))))) == 3


def test_names_are_replaced_wherever_they_are_and_nothing_else() -> None:
    before = submission("a.png", ["a.png", "b.png"], {"__value__": ["a.png"]}, ["a.png", 0], 1.5)
    before["client_id"] = "a.png"
    before["prompt"]["2"] = {"class_type": "a.png"}
    before["prompt"]["3"] = "a.png"
    kept = copy.deepcopy(before)
    after = with_names(before, {"a.png": "z.png"})
    assert before == kept
    assert after == before | {
        "prompt": before["prompt"]
        | submission("z.png", ["z.png", "b.png"], {"__value__": ["z.png"]}, ["a.png", 0], 1.5)["prompt"]
    }


def test_without_names_it_is_the_same_object() -> None:
    before = submission("a.png")
    assert with_names(before, {}) is before


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_no_prompt_is_too_strange(value: Any) -> None:
    for document in ({"prompt": value}, submission(value)):
        names = dict.fromkeys(files_loaded(document), "x")
        with_names(document, names)
