"""Workflows that need no model, in the format of ComfyUI's API: {node id: {class_type, inputs}}."""

import uuid
from typing import Any

Workflow = dict[str, dict[str, Any]]


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


def many_large_pictures(*, prefix: str, count: int = 12, size: int = 1536) -> Workflow:
    """Several seconds of work in short steps, so that it can be interrupted between two."""
    workflow: Workflow = {}
    for number in range(count):
        colour = 0x010101 * number
        for step, node in picture(colour, prefix=f"{prefix}_{number}", size=size).items():
            inputs = {
                name: [f"make{number}", 0] if name == "images" else value
                for name, value in node["inputs"].items()
            }
            workflow[f"{step}{number}"] = {**node, "inputs": inputs}
    return workflow
