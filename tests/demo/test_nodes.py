"""What /object_info says of the node classes."""

from comfyproxy.demo.files import Files
from comfyproxy.demo.nodes import NODES, describe


def test_a_class_is_described_with_its_inputs_in_order() -> None:
    info = describe("DemoSampler", NODES["DemoSampler"], Files())
    assert info["input_order"] == {
        "required": ["seed", "steps", "seconds"],
        "optional": ["width", "height", "image"],
    }
    assert info["input"]["required"]["steps"] == ["INT", {"default": 20, "min": 1, "max": 10_000}]
    assert info["input"]["optional"]["image"] == ["IMAGE"]
    assert (info["output"], info["output_node"], info["display_name"]) == (["IMAGE"], False, "Demo Sampler")


def test_the_images_that_can_be_loaded_are_those_of_the_input_folder() -> None:
    files = Files()
    for name in ("b.png", "a.png"):
        files.save("input", "", name, b"", 0.0)
    files.save("output", "", "c.png", b"", 0.0)
    info = describe("LoadImage", NODES["LoadImage"], files)
    assert info["input"]["required"]["image"] == [["a.png", "b.png"], {"image_upload": True}]


def test_every_class_has_all_that_the_page_reads() -> None:
    assert set(describe("SaveImage", NODES["SaveImage"], Files())["input"]) == {"required", "hidden"}
    for name, node in NODES.items():
        info = describe(name, node, Files())
        assert len(info["output"]) == len(info["output_name"]) == len(info["output_is_list"])
        assert info["display_name"]
        assert info["description"]
