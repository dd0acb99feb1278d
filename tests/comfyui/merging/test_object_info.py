"""What a pool can run."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.merging.object_info import ObjectInfo, read_classes, write_classes
from tests.comfyui.merging.servers import vector

REAL = vector("object_info.json")


def merged(*documents: Any) -> Any:
    info = ObjectInfo()
    classes = info.merge([info.read(json.dumps(document).encode()) for document in documents])
    return json.loads(write_classes(classes))


def loader(*files: str, **more: Any) -> Any:
    return {
        "input": {"required": {"ckpt_name": [list(files), {"tooltip": "x"}]}},
        "output": ["MODEL"],
        **more,
    }


def combo(*options: Any) -> Any:
    return {"input": {"optional": {"dim": ["COMBO", {"options": list(options), "default": "x"}, 1]}}}


def choices(info: Any) -> Any:
    return info["Loader"]["input"]["required"]["ckpt_name"][0]


def test_what_one_server_can_run_is_told_with_its_own_words() -> None:
    body = json.dumps(REAL).encode()
    info = ObjectInfo()
    assert write_classes(info.merge([info.read(body)])) == body


def test_classes_of_all_servers_are_listed_those_of_the_first_first() -> None:
    assert list(merged({"B": {}, "A": {}}, {"C": {}, "A": {}, "0": {}})) == ["B", "A", "C", "0"]


def test_choices_of_all_servers_are_joined() -> None:
    found = merged({"Loader": loader("b", "a")}, {"Loader": loader("c", "a")}, {"Loader": loader("d")})
    assert choices(found) == ["b", "a", "c", "d"]
    assert found["Loader"]["input"]["required"]["ckpt_name"][1] == {"tooltip": "x"}


def test_choices_of_the_newer_form_are_joined() -> None:
    found = merged({"X": combo("x", "y")}, {"X": combo("z", "x")})
    assert found["X"]["input"]["optional"]["dim"] == [
        "COMBO",
        {"options": ["x", "y", "z"], "default": "x"},
        1,
    ]


def test_choices_of_both_forms_are_joined_in_that_of_the_first() -> None:
    old, new = (
        {"X": {"input": {"required": {"a": [["x"]]}}}},
        {"X": {"input": {"required": {"a": combo("y")}}}},
    )
    new["X"]["input"]["required"]["a"] = ["COMBO", {"options": ["y", "x"]}]
    assert merged(old, new)["X"]["input"]["required"]["a"] == [["x", "y"]]
    assert merged(new, old)["X"]["input"]["required"]["a"] == ["COMBO", {"options": ["y", "x"]}]


def test_choices_with_inputs_of_their_own_are_joined_by_their_keys() -> None:
    one, other = {"key": "a", "inputs": {"required": {}}}, {"key": "b", "inputs": {}}
    again = {"key": "a", "inputs": {"required": {"n": ["INT", {}]}}}
    found = merged({"X": combo(one)}, {"X": combo(again, other)})
    assert found["X"]["input"]["optional"]["dim"][1]["options"] == [one, other]


def test_an_output_that_is_a_choice_is_joined_like_the_input_that_it_fits() -> None:
    one, other = loader("a", output=[["a"], "X"]), loader("b", output=[["b"], ["X"], "Y"])
    found = merged({"Loader": one}, {"Loader": other})
    assert found["Loader"]["output"] == [["a", "b"], "X"]


def test_where_servers_disagree_otherwise_the_first_is_right() -> None:
    one = {"input": {"required": {"n": ["INT", {"max": 1}], "c": [["a"]]}, "hidden": 3}, "output": "X"}
    other = {
        "input": {"required": {"n": ["INT", {"max": 2}], "c": ["STRING", {}], "m": ["INT", {}]}},
        "output": [],
    }
    assert merged({"X": one}, {"X": other}) == {"X": one}


@pytest.mark.parametrize(
    "strange", [{}, {"input": None}, {"input": {"required": []}}, {"input": {"required": {"a": 3}}}]
)
def test_strange_descriptions_are_joined_with_nothing(strange: Any) -> None:
    usual = {"input": {"required": {"a": [["x"]]}}}
    assert merged({"X": strange}, {"X": usual})["X"].get("input") == strange.get("input")
    assert merged({"X": usual}, {"X": strange})["X"]["input"] == usual["input"]


def test_the_same_text_is_kept_once() -> None:
    info = ObjectInfo()
    one = info.read(json.dumps({"A": REAL["SaveImage"], "B": {}}).encode())
    other = info.read(json.dumps({"A": REAL["SaveImage"]}).encode())
    assert one["A"] is other["A"]
    assert info.read(json.dumps({"A": REAL["SaveImage"]}).encode()) is other


def test_what_was_joined_before_is_joined_again_without_reading() -> None:
    info = ObjectInfo()
    servers = [info.read(json.dumps({"Loader": loader(name)}).encode()) for name in "ab"]
    first = info.merge(servers)
    assert info.merge(servers)["Loader"] is first["Loader"]
    third = info.read(json.dumps({"Loader": loader("c")}).encode())
    assert choices(json.loads(write_classes(info.merge([*servers, third])))) == ["a", "b", "c"]


def test_numbers_that_json_has_not_are_left_out() -> None:
    info = ObjectInfo()
    classes = info.read(b'{"A": {"max": Infinity, "min": NaN}, "B": {"max": 1}}')
    assert json.loads(write_classes(classes), parse_constant=pytest.fail) == {
        "A": {"max": None, "min": None},
        "B": {"max": 1},
    }


def test_classes_that_make_outputs_are_known() -> None:
    info = ObjectInfo()
    info.read(json.dumps(REAL).encode())
    assert info.is_output("SaveImage")
    assert not info.is_output("LoadImage")
    assert not info.is_output("Unknown")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"3",
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a": {}',
        b'{"a": {},',
        b'{"a": {},}',
        b"{3: {}}",
        b"{a: {}}",
        b"\xff{}",
        b"{} x",
        b'{"a": {} "b": {}}',
        b'{"a": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_classes(body, {}, set())


def test_what_describes_no_class_is_left_out() -> None:
    assert read_classes(b' { "a" : 3 , "b": [{}], "c": null, "d" : { } } ', {}, set()) == {"d": b"{ }"}


def test_an_empty_object_has_no_classes() -> None:
    assert read_classes(b"{ }", {}, set()) == {}


NAMES = st.sampled_from("abcd")
SERVERS = st.lists(st.dictionaries(NAMES, st.lists(NAMES, unique=True)), min_size=1, max_size=4)


@given(SERVERS)
def test_the_pool_can_run_what_any_server_can_and_no_more(pool: list[dict[str, list[str]]]) -> None:
    found = merged(*({name: loader(*files) for name, files in one.items()} for one in pool))
    assert list(found) == list(dict.fromkeys(name for one in pool for name in one))
    for name, info in found.items():
        files = [file for one in pool for file in one.get(name, [])]
        assert info["input"]["required"]["ckpt_name"][0] == list(dict.fromkeys(files))
