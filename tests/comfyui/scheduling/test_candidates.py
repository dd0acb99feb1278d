import json
from pathlib import Path
from typing import Any

import pytest

from comfyproxy.comfyui.scheduling.candidates import MAX_FOLLOWED, MAX_NAMED, Catalog, Lack, lacking, refusal

REAL = Path(__file__).resolve().parents[2] / "vectors" / "comfyui" / "object_info.json"


def info(checkpoints: list[Any], *others: str) -> dict[str, Any]:
    """What a server with these checkpoints, and these classes beside the usual ones, answers."""
    plain: dict[str, Any] = {"input": {"required": {}}, "output_node": False}
    return {
        "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [checkpoints, {"tooltip": "x"}]}}},
        "LoraLoader": {"input": {"optional": {"lora_name": ["COMBO", {"options": ["ink.safetensors"]}]}}},
        "KSampler": {"input": {"required": {"sampler_name": [["euler", "ddim"]], "steps": ["INT", {}]}}},
        "LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}},
        "SaveImage": plain | {"output_node": True},
        **dict.fromkeys(others, plain),
    }


def catalog(*checkpoints: Any, others: tuple[str, ...] = ()) -> Catalog:
    return Catalog.read(json.dumps(info(list(checkpoints), *others)).encode())


def graph(**inputs: Any) -> dict[str, Any]:
    """A graph that loads a checkpoint and saves a picture, with other inputs for some of its classes."""
    nodes: dict[str, dict[str, Any]] = {
        "CheckpointLoaderSimple": {"ckpt_name": "sdxl.safetensors"},
        "KSampler": {"model": ["1", 0], "sampler_name": "euler", "steps": 20},
        "SaveImage": {"images": ["2", 0]},
    }
    for name, given in inputs.items():
        nodes[name] = nodes.get(name, {}) | given
    return {
        str(number): {"class_type": name, "inputs": nodes[name]} for number, name in enumerate(nodes, start=1)
    }


def test_a_server_with_everything_lacks_nothing() -> None:
    assert lacking(graph(), catalog("sdxl.safetensors")) == ()


def test_a_missing_model_is_found() -> None:
    lack = Lack("1", "CheckpointLoaderSimple", "ckpt_name", "sdxl.safetensors")
    assert lacking(graph(), catalog("flux.safetensors")) == (lack,)
    assert lacking(graph(), catalog()) == (lack,)


def test_a_missing_class_is_found_though_nothing_depends_on_it() -> None:
    nodes = graph() | {"7": {"class_type": "FaceDetailer"}}
    assert lacking(nodes, catalog("sdxl.safetensors")) == (Lack("7", "FaceDetailer"),)
    assert lacking(nodes, catalog("sdxl.safetensors", others=("FaceDetailer",))) == ()


def test_lists_are_read_in_both_forms() -> None:
    nodes = graph(LoraLoader={"lora_name": "oil.safetensors"}, SaveImage={"images": ["4", 0]})
    assert lacking(nodes, catalog("sdxl.safetensors")) == (
        Lack("4", "LoraLoader", "lora_name", "oil.safetensors"),
    )
    nodes = graph(LoraLoader={"lora_name": "ink.safetensors"}, SaveImage={"images": ["4", 0]})
    assert lacking(nodes, catalog("sdxl.safetensors")) == ()


def test_a_model_that_no_output_depends_on_need_not_be_there() -> None:
    nodes = graph(LoraLoader={"lora_name": "oil.safetensors"})
    assert lacking(nodes, catalog("sdxl.safetensors")) == ()


@pytest.mark.parametrize(
    "inputs",
    [
        {"LoadImage": {"image": "other.png"}, "SaveImage": {"images": ["4", 0]}},
        {"LoadImage": {"image": "odd.pt"}, "SaveImage": {"images": ["4", 0]}},
        {"KSampler": {"sampler_name": "unknown", "steps": "x.pt"}},
        {"CheckpointLoaderSimple": {"ckpt_name": ["2", 0]}},
        {"CheckpointLoaderSimple": {"ckpt_name": {"a": "b.pt"}}},
        {"CheckpointLoaderSimple": {"ckpt_name": 7, "other": "b.pt"}},
    ],
)
def test_what_looks_like_no_model_of_a_list_does_not_count(inputs: dict[str, Any]) -> None:
    assert lacking(graph(**inputs), catalog("sdxl.safetensors")) == ()


def test_a_list_that_the_page_asks_for_elsewhere_is_not_known() -> None:
    document = info([]) | {
        "CheckpointLoaderSimple": {
            "input": {"required": {"ckpt_name": ["COMBO", {"remote": {"route": "/x"}}]}}
        }
    }
    assert lacking(graph(), Catalog.read(json.dumps(document).encode())) == ()


def test_servers_that_can_run_the_same_have_one_catalog() -> None:
    first = catalog("sdxl.safetensors", "flux.safetensors")
    pictures = info(["flux.safetensors", "sdxl.safetensors"])
    pictures["LoadImage"]["input"]["required"]["image"][0].append("another.png")
    assert Catalog.read(json.dumps(pictures).encode()) is first
    assert catalog("sdxl.safetensors") is not first


def test_the_answer_of_a_real_server_is_read() -> None:
    found = Catalog.read(REAL.read_bytes())
    assert "SaveImage" in found.outputs
    assert set(found.classes) == set(json.loads(REAL.read_bytes()))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"<html>", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_no_catalog(body: bytes) -> None:
    with pytest.raises(ValueError, match="no object"):
        Catalog.read(body)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        {"input": []},
        {"input": {"required": 7, "optional": None}},
        {"input": {"required": {"ckpt_name": None}}},
        {"input": {"required": {"ckpt_name": []}}},
        {"input": {"required": {"ckpt_name": ["COMBO"]}}},
        {"input": {"required": {"ckpt_name": ["COMBO", {"options": "x"}]}}},
        {"input": {"required": {"ckpt_name": ["STRING", {"options": ["x"]}]}}},
        {"input": {"required": {"other": [[1, None, [], "x.pt"]]}}},
    ],
)
def test_a_class_that_is_described_oddly_is_there_without_lists(entry: Any) -> None:
    document = info([]) | {"CheckpointLoaderSimple": entry}
    assert lacking(graph(), Catalog.read(json.dumps(document).encode())) == ()


@pytest.mark.parametrize(
    "nodes",
    [
        {"1": None, "2": [], "3": {"class_type": 7}, "4": {}},
        {"1": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}},
        {"1": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "x": [1, 2, 3], "y": [None, 0]}}},
        {"1": {"class_type": "SaveImage", "inputs": []}},
    ],
)
def test_hostile_graphs_lack_nothing_that_can_be_named(nodes: dict[str, Any]) -> None:
    assert lacking(nodes, catalog()) == ()


def test_a_refusal_names_a_missing_node_as_comfyui_does() -> None:
    nodes = graph() | {"7": {"class_type": "FaceDetailer", "_meta": {"title": "Faces"}}}
    answer = json.loads(refusal({"gpu1": lacking(nodes, catalog("sdxl.safetensors"))}, nodes))
    assert answer == {
        "error": {
            "type": "missing_node_type",
            "message": "Node 'Faces' not found. The custom node may not be installed.",
            "details": "Node ID '#7'\ngpu1 lacks the node FaceDetailer",
            "extra_info": {"node_id": "7", "class_type": "FaceDetailer", "node_title": "Faces"},
        },
        "node_errors": {},
    }


@pytest.mark.parametrize("meta", [{}, {"_meta": 7}, {"_meta": {"title": 7}}])
def test_a_node_without_a_title_goes_by_its_class(meta: dict[str, Any]) -> None:
    nodes = {"7": {"class_type": "FaceDetailer"} | meta}
    answer = json.loads(refusal({"gpu1": lacking(nodes, catalog())}, nodes))
    assert answer["error"]["extra_info"]["node_title"] == "FaceDetailer"


def test_a_refusal_names_missing_models_as_comfyui_does() -> None:
    nodes = graph(
        LoraLoader={"lora_name": "oil.safetensors", "model": ["1", 0]}, KSampler={"model": ["4", 0]}
    )
    lacks = {
        "gpu1": lacking(nodes, catalog("flux.safetensors")),
        "gpu2": lacking(nodes, catalog("sdxl.safetensors")),
    }
    answer = json.loads(refusal(lacks, nodes))
    assert answer["error"] == {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        "details": "gpu1 lacks oil.safetensors, sdxl.safetensors\ngpu2 lacks oil.safetensors",
        "extra_info": {},
    }
    assert answer["node_errors"] == {
        "4": {
            "errors": [
                {
                    "type": "value_not_in_list",
                    "message": "Value not in list",
                    "details": "lora_name: 'oil.safetensors' not on gpu1, gpu2",
                    "extra_info": {
                        "input_name": "lora_name",
                        "input_config": None,
                        "received_value": "oil.safetensors",
                    },
                }
            ],
            "dependent_outputs": ["3"],
            "class_type": "LoraLoader",
        }
    }


def test_the_error_is_of_the_server_that_lacks_the_least() -> None:
    nodes = graph() | {"7": {"class_type": "FaceDetailer"}}
    lacks = {
        "gpu1": lacking(nodes, catalog("sdxl.safetensors")),
        "gpu2": lacking(nodes, catalog(others=("FaceDetailer",))),
        "gpu3": (),
    }
    answer = json.loads(refusal(lacks, nodes))
    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    assert answer["error"]["details"] == "gpu1 lacks the node FaceDetailer\ngpu2 lacks sdxl.safetensors"


def test_a_refusal_without_a_reason_is_one_still() -> None:
    answer = json.loads(refusal({"gpu1": ()}, graph()))
    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    assert answer["node_errors"] == {}


def test_a_refusal_of_a_huge_prompt_is_bounded() -> None:
    many = {str(number): {"class_type": f"Unknown{number}"} for number in range(5 * MAX_NAMED)}
    assert refusal({"gpu1": lacking(many, catalog())}, many).endswith(b'"node_errors": {}}')
    assert len(refusal({"gpu1": lacking(many, catalog())}, many)) < 50 * MAX_NAMED
    lacks = [Lack("0", "A", "x", f"m{number}.pt") for number in range(5 * MAX_NAMED)]
    chain = {
        str(number): {"class_type": "A", "inputs": {"x": [str(number - 1), 0], "y": [str(number - 1), 0]}}
        for number in range(MAX_FOLLOWED + 10)
    }
    (entry,) = json.loads(refusal({"gpu1": lacks}, chain))["node_errors"].values()
    assert len(entry["errors"]) == MAX_NAMED
    assert entry["dependent_outputs"] == []
