"""Workflows: what is wrong with one, in which order it runs, and what is equal."""

from typing import Any

import pytest

from comfyproxy.demo.files import Files
from comfyproxy.demo.graph import Verdict, execution_order, signatures, validate
from comfyproxy.demo.nodes import NODES


@pytest.fixture
def files() -> Files:
    files = Files()
    files.save("input", "", "here.png", b"\x89PNG", 1.0)
    return files


def check(graph: Any, files: Files, targets: list[str] | None = None) -> Verdict:
    return validate(graph, NODES, files, targets)


def reasons(verdict: Verdict, node_id: str) -> list[str]:
    return [reason["type"] for reason in verdict.node_errors[node_id]["errors"]]


def empty(**inputs: Any) -> dict[str, Any]:
    given = {"width": 8, "height": 8, "batch_size": 1, "color": 0, **inputs}
    return {"class_type": "EmptyImage", "inputs": given}


def save(source: Any, **inputs: Any) -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": source, "filename_prefix": "x", **inputs}}


def test_a_good_workflow_has_its_outputs_and_no_errors(files: Files) -> None:
    assert check({"1": empty(), "2": save(["1", 0])}, files) == Verdict(("2",))


def test_an_unknown_class_is_named_with_its_title(files: Files) -> None:
    node = {"class_type": "KSampler", "inputs": {}, "_meta": {"title": "My sampler"}}
    error = check({"7": node}, files).error
    assert error is not None
    assert (error["type"], error["details"]) == ("missing_node_type", "Node ID '#7'")
    assert error["message"] == "Node 'My sampler' not found. The custom node may not be installed."
    assert error["extra_info"] == {"node_id": "7", "class_type": "KSampler", "node_title": "My sampler"}


def test_a_node_without_a_class_is_corrupt(files: Files) -> None:
    error = check({"7": {"inputs": {}}}, files).error
    assert error is not None
    assert "has no class_type" in error["message"]


def test_a_workflow_without_outputs_makes_nothing(files: Files) -> None:
    error = check({"1": empty()}, files).error
    assert error is not None
    assert error["type"] == "prompt_no_outputs"


def test_targets_narrow_the_outputs_down(files: Files) -> None:
    graph = {"1": empty(), "2": save(["1", 0]), "3": save(["1", 0])}
    assert check(graph, files, ["3"]).outputs == ("3",)
    error = check(graph, files, ["1"]).error
    assert error is not None
    assert error["type"] == "prompt_no_outputs"


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"width": 0}, "value_smaller_than_min"),
        ({"width": 99999}, "value_bigger_than_max"),
        ({"width": "wide"}, "invalid_input_type"),
        ({"width": None}, "invalid_input_type"),
        ({"width": ["3"]}, "bad_linked_input"),
        ({"width": ["3", 0]}, "return_type_mismatch"),
    ],
)
def test_a_bad_value_is_told_at_its_node(files: Files, inputs: dict[str, Any], reason: str) -> None:
    verdict = check({"1": empty(**inputs), "2": save(["1", 0]), "3": empty()}, files)
    assert verdict.error is not None
    assert verdict.error["type"] == "prompt_outputs_failed_validation"
    assert reasons(verdict, "1") == [reason]
    told = verdict.node_errors["1"]["errors"][0]["extra_info"]
    assert told["input_config"][0] == "INT"
    assert told["input_name"] == "width"
    assert list(verdict.node_errors) == ["1"]  # what only depends on it is not blamed
    assert verdict.node_errors["1"]["dependent_outputs"] == ["2"]


def test_missing_inputs_are_all_named(files: Files) -> None:
    verdict = check({"2": {"class_type": "SaveImage", "inputs": {}}}, files)
    assert verdict.error is not None
    assert verdict.error["details"] == (
        "Required input is missing: images\nRequired input is missing: filename_prefix"
    )
    assert [reason["extra_info"]["input_name"] for reason in verdict.node_errors["2"]["errors"]] == [
        "images",
        "filename_prefix",
    ]


def test_an_optional_input_may_be_missing(files: Files) -> None:
    sampler = {"class_type": "DemoSampler", "inputs": {"seed": 1, "steps": 1, "seconds": 0}}
    assert check({"1": sampler, "2": save(["1", 0])}, files).error is None


def test_an_image_that_was_not_uploaded_here_is_refused(files: Files) -> None:
    def graph(name: str) -> dict[str, Any]:
        return {"1": {"class_type": "LoadImage", "inputs": {"image": name}}, "2": save(["1", 0])}

    assert check(graph("here.png"), files).error is None
    verdict = check(graph("u.png"), files)
    (reason,) = verdict.node_errors["1"]["errors"]
    assert (reason["type"], reason["details"]) == (
        "custom_validation_failed",
        "image - Invalid image file: u.png",
    )


def test_numbers_are_converted_in_place(files: Files) -> None:
    graph = {"1": empty(width="16", color=3.0), "2": save(["1", 0], filename_prefix=7)}
    assert check(graph, files).error is None
    assert graph["1"]["inputs"]["width"] == 16
    assert graph["2"]["inputs"]["filename_prefix"] == "7"


def test_a_bad_output_is_left_out_when_another_is_good(files: Files) -> None:
    verdict = check({"1": empty(), "2": save(["1", 0]), "3": save(["1", 1])}, files)
    assert (verdict.error, verdict.outputs) == (None, ("2",))
    assert list(verdict.node_errors) == ["3"]


@pytest.mark.parametrize("link", [["9", 0], ["1", 7], [["1"], 0], ["1", "0"]])
def test_a_link_to_nowhere_is_an_error_of_the_output(files: Files, link: list[Any]) -> None:
    assert reasons(check({"1": empty(), "2": save(link)}, files), "2") == ["exception_during_validation"]


def test_a_cycle_is_told_to_each_of_its_nodes(files: Files) -> None:
    def sampler(source: str) -> dict[str, Any]:
        inputs = {"seed": 1, "steps": 1, "seconds": 0, "image": [source, 0]}
        return {"class_type": "DemoSampler", "inputs": inputs}

    verdict = check({"1": sampler("3"), "2": save(["1", 0]), "3": sampler("1")}, files)
    assert (reasons(verdict, "1"), reasons(verdict, "3")) == (["dependency_cycle"], ["dependency_cycle"])
    assert verdict.error is not None


def test_nodes_run_after_what_they_depend_on() -> None:
    graph = {"out": save(["b", 0]), "b": empty(width=["a", 0]), "a": empty(), "unused": empty()}
    assert execution_order(graph, ["out"]) == ["a", "b", "out"]


def test_a_node_that_two_outputs_need_runs_once() -> None:
    graph = {"1": empty(), "2": save(["1", 0]), "3": save(["1", 0])}
    assert execution_order(graph, ["2", "3"]) == ["1", "2", "3"]


def test_what_is_done_is_not_run_again_but_outputs_are_visited() -> None:
    graph = {"1": empty(), "2": save(["1", 0]), "3": save(["1", 0])}
    assert execution_order(graph, ["2", "3"], done=["1", "2"]) == ["2", "3"]


def test_equal_nodes_have_equal_signatures_whatever_their_ids(files: Files) -> None:
    first = signatures({"1": empty(), "2": save(["1", 0])}, NODES, files, ["2"])
    again = signatures({"a": empty(), "b": save(["a", 0])}, NODES, files, ["b"])
    other = signatures({"1": empty(width=9), "2": save(["1", 0])}, NODES, files, ["2"])
    assert (first["1"], first["2"]) == (again["a"], again["b"])
    assert first["2"] != other["2"]


def test_a_file_that_changed_changes_the_signature(files: Files) -> None:
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "here.png"}}}
    before = signatures(graph, NODES, files, ["1"])
    files.save("input", "", "here.png", b"\x89PNG other", 2.0)
    assert signatures(graph, NODES, files, ["1"]) != before


def test_a_bad_node_names_every_output_that_needs_it(files: Files) -> None:
    verdict = check({"1": empty(width=0), "2": save(["1", 0]), "3": save(["1", 0])}, files)
    assert verdict.node_errors["1"]["dependent_outputs"] == ["2", "3"]
    assert len(verdict.node_errors["1"]["errors"]) == 1
