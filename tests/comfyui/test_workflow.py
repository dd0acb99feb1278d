from typing import Any

import pytest

from comfyproxy.comfyui.wire import read_object
from comfyproxy.comfyui.workflow import Workflow, is_model, nodes_of, read_workflow


def graph(seed: int = 1, text: str = "a cat, sitting", steps: int = 20, **members: Any) -> dict[str, Any]:
    """A submission with a loader, a text, a sampler and an output."""
    sampler = {"seed": seed, "steps": steps, "sampler_name": "euler", "model": ["4", 0], "positive": ["6", 0]}
    return {
        "prompt": {
            "3": {"class_type": "KSampler", "inputs": sampler},
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": text}},
        },
        **members,
    }


def read(submission: dict[str, Any]) -> Workflow:
    found = read_workflow(submission)
    assert found is not None
    return found


def test_the_classes_and_the_models_of_a_graph_are_found() -> None:
    found = read(graph())
    assert found.classes == {"KSampler", "CheckpointLoaderSimple", "CLIPTextEncode", "SaveImage"}
    assert found.models == {"sdxl.safetensors"}


@pytest.mark.parametrize("other", [graph(seed=2), graph(text="A dog, running!"), graph(client_id="another")])
def test_another_seed_text_or_client_is_the_same_work(other: dict[str, Any]) -> None:
    assert read(other).kind == read(graph()).kind


def other_model() -> dict[str, Any]:
    submission = graph()
    submission["prompt"]["4"]["inputs"]["ckpt_name"] = "flux.safetensors"
    return submission


def other_choice() -> dict[str, Any]:
    submission = graph()
    submission["prompt"]["3"]["inputs"]["sampler_name"] = "ddim"
    return submission


@pytest.mark.parametrize(
    "other",
    [
        graph(steps=21),
        other_model(),
        other_choice(),
        graph(partial_execution_targets=["9"]),
        graph(partial_execution_targets=[]),
    ],
)
def test_other_numbers_models_choices_and_parts_are_other_work(other: dict[str, Any]) -> None:
    assert read(other).kind != read(graph()).kind


def test_the_ids_of_nodes_and_their_order_do_not_matter() -> None:
    nodes = graph()["prompt"]
    turned = {f"x{name}": nodes[name] for name in reversed(nodes)}
    assert read({"prompt": turned}).kind == read(graph()).kind


def test_models_in_the_rows_of_a_loader_are_found() -> None:
    rows = {
        "lora_1": {"on": True, "lora": "style/ink.safetensors", "strength": 1.0},
        "lora_2": {"lora": "None"},
    }
    found = read({"prompt": {"1": {"class_type": "Power Lora Loader", "inputs": rows}}})
    assert found.models == {"style/ink.safetensors"}


@pytest.mark.parametrize(
    "submission", [{}, {"prompt": []}, {"prompt": {}}, {"prompt": {"1": {"inputs": {}}}}]
)
def test_what_has_no_graph_is_no_workflow(submission: dict[str, Any]) -> None:
    assert read_workflow(submission) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": {"1": {"class_type": "A", "inputs": {"x": NaN, "y": 1e999, "z": -Infinity}}}}',
        b'{"prompt": {"1": {"class_type": "A", "inputs": {"x": ' + b"9" * 4300 + b"}}}}",
        b'{"prompt": {"1": {"class_type": "\\ud800", "inputs": {"\\ud800": "\\ud800.pt"}}}}',
        b'{"prompt": {"1": {"class_type": "A", "inputs": ' + b"[" * 500 + b"]" * 500 + b"}}}",
        b'{"prompt": {"1": {"class_type": "A"}, "2": {"class_type": 7}, "3": null, "4": "A"}}',
        b'{"prompt": {"1": {"class_type": "A"}}, "partial_execution_targets": [1, null, "1"]}',
        b'{"prompt": {"1": {"class_type": "A"}}, "partial_execution_targets": {"a": 1}}',
    ],
)
def test_hostile_graphs_are_read(body: bytes) -> None:
    document = read_object(body)
    assert document is not None
    assert len(read(document).classes) == 1


@pytest.mark.parametrize("name", ["a.safetensors", "sub/dir/B.CKPT", "x y.gguf", "sub\\a.pth", "sam.pt"])
def test_names_with_a_models_ending_are_models(name: str) -> None:
    assert is_model(name)


@pytest.mark.parametrize(
    "name", ["", "a.png", ".pt", "euler", "safetensors", "a.safetensors\n", "a" * 600 + ".pt"]
)
def test_other_texts_are_not(name: str) -> None:
    assert not is_model(name)


def test_nodes_are_those_with_a_class() -> None:
    found = list(nodes_of({"1": {"class_type": "A", "inputs": {"x": 1}}, "2": {"class_type": "B"}, "3": []}))
    assert found == [("1", "A", {"x": 1}), ("2", "B", {})]
