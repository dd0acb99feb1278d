"""Workflows that need no model, in the format of ComfyUI's API: {node id: {class_type, inputs}}."""

import uuid
from collections.abc import Sequence
from typing import Any

Workflow = dict[str, dict[str, Any]]

ENDLESS = 50.0
"""Seconds: as good as for ever, so that what a test does meanwhile may take its time."""


def unique(prefix: str) -> str:
    """A file name prefix that no other test and no earlier run of this one has used."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def picture(colour: int, *, prefix: str, size: int = 64) -> Workflow:
    """One plain picture of a colour (0xRRGGBB), saved as `<prefix>_00001_.png`: ten milliseconds of work."""
    return {
        "make": {
            "class_type": "EmptyImage",
            "inputs": {"width": size, "height": size, "batch_size": 1, "color": colour},
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["make", 0], "filename_prefix": prefix}},
    }


def preview_of_upload(name: str) -> Workflow:
    """Loads an uploaded picture and shows it as a preview (a file of type `temp`)."""
    return {
        "load": {"class_type": "LoadImage", "inputs": {"image": name}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["load", 0]}},
    }


def sampled_picture(*, prefix: str, seconds: float, steps: int = 8) -> Workflow:
    """A picture of the simulated servers, which they take this long for, with a preview for each step."""
    inputs = {"seed": uuid.uuid4().int % 2**48, "steps": steps, "seconds": seconds}
    return {
        "make": {"class_type": "DemoSampler", "inputs": {**inputs, "width": 64, "height": 64}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["make", 0], "filename_prefix": prefix}},
    }


def waiting_picture(colour: int, *, prefix: str, seconds: float, previews: bool = False) -> Workflow:
    """A plain picture that a real server takes this long for (waiting_node.py)."""
    return {
        "make": {
            "class_type": "WaitAndDraw",
            "inputs": {"seconds": seconds, "color": colour, "previews": previews},
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["make", 0], "filename_prefix": prefix}},
    }


WIDGETS: dict[str, Sequence[str]] = {
    "WaitAndDraw": ("seconds", "color", "previews"),
    "EmptyImage": ("width", "height", "batch_size", "color"),
    "SaveImage": ("filename_prefix",),
    "LoadImage": ("image",),
    "PreviewImage": (),
}
"""The widgets of the classes that the real workflows here use, in the order of the page's."""

_SHAPE = {"size": [280, 130], "flags": {}, "properties": {}}


def drawn(workflow: Workflow) -> dict[str, Any]:
    """The same as the page saves it: nodes with places and links."""
    numbers = {name: number for number, name in enumerate(workflow, 1)}
    nodes: list[dict[str, Any]] = []
    links: list[list[Any]] = []
    for name, node in workflow.items():
        inputs = node["inputs"]
        values = [inputs[key] for key in WIDGETS[node["class_type"]]]
        here = {"id": numbers[name], "type": node["class_type"], "order": len(nodes), "mode": 0}
        nodes.append({**here, **_SHAPE, "pos": [60, 160 * len(nodes)], "widgets_values": values})
        for key, value in inputs.items():
            if isinstance(value, list):
                links.append([len(links) + 1, numbers[value[0]], value[1], numbers[name], 0, "IMAGE"])
                nodes[-1]["inputs"] = [{"name": key, "type": "IMAGE", "link": len(links)}]
    for node in nodes:
        if out := [link[0] for link in links if link[1] == node["id"]]:
            node["outputs"] = [{"name": "IMAGE", "type": "IMAGE", "links": out}]
    last = {"last_node_id": len(nodes), "last_link_id": len(links)}
    return {**last, "nodes": nodes, "links": links, "groups": [], "config": {}, "extra": {}, "version": 0.4}
