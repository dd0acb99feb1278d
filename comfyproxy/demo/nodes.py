"""The node classes that a simulated server can run.

Four are ComfyUI's own (EmptyImage, LoadImage, SaveImage, PreviewImage); DemoSampler stands for whatever is
slow. A node's `run` is a generator: it yields a `Step` for each pause it takes and returns what it made.
"""

import json
import random
import string
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from comfyproxy.demo.files import Files, OutsideFolder, StoredFile
from comfyproxy.demo.picture import SIGNATURE, Image, card, preview, size_of
from comfyproxy.demo.queue import QueuedPrompt

# What a node is given without a link: here what the saving nodes write into their files.
_PROMPT: Mapping[str, str] = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}

_IMAGE_SIGNATURES = (SIGNATURE, b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a node class; ``options`` as in /object_info (default, min, max ...)."""

    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    required: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """A node is ``value`` of ``maximum`` steps along, ``seconds`` (at normal speed) after the step before."""

    seconds: float
    value: int
    maximum: int
    image: bytes


@dataclass(frozen=True, slots=True)
class Made:
    """What a node made: the values of its outputs, and what the page shows of it (empty: nothing)."""

    outputs: Sequence[Any] = ()
    shown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a node may use: its server's name, colour, files and dice, its prompt, and the time."""

    server: str
    hue: float
    files: Files
    dice: random.Random
    prompt: QueuedPrompt
    now: float


class NodeFailed(Exception):
    """A node cannot do its work; ``exception_type`` is what ComfyUI's own node would have raised."""

    def __init__(self, exception_type: str, message: str) -> None:
        super().__init__(message)
        self.exception_type = exception_type


Work = Generator[Step, None, Made]


class Node:
    """Base of the node classes: what /object_info says of one (its docstring too), and how it runs."""

    display_name: ClassVar[str]
    category: ClassVar[str] = "image"
    inputs: ClassVar[Mapping[str, Input]]
    hidden: ClassVar[Mapping[str, str]] = {}
    outputs: ClassVar[tuple[str, ...]] = ()
    is_output: ClassVar[bool] = False
    module: ClassVar[str] = "nodes"

    @classmethod
    def choices(cls, name: str, files: Files) -> list[str]:
        """What a COMBO input offers on this server now."""
        return []

    @classmethod
    def objection(cls, inputs: Mapping[str, Any], files: Files) -> tuple[str, str] | None:
        """(input, reason) when ComfyUI's own VALIDATE_INPUTS would refuse these values."""
        return None

    @classmethod
    def fingerprint(cls, inputs: Mapping[str, Any], files: Files) -> str:
        """What else than its inputs the result depends on (IS_CHANGED)."""
        return ""

    @classmethod
    def run(cls, inputs: Mapping[str, Any], workshop: Workshop) -> Work:
        """Do the work, with a `Step` for each pause in it.

        Raises NodeFailed.
        """
        raise NotImplementedError


class EmptyImage(Node):
    """One flat colour."""

    display_name = "EmptyImage"
    inputs: ClassVar = {
        "width": Input("INT", {"default": 512, "min": 1, "max": 16384, "step": 1}),
        "height": Input("INT", {"default": 512, "min": 1, "max": 16384, "step": 1}),
        "batch_size": Input("INT", {"default": 1, "min": 1, "max": 4096}),
        "color": Input("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
    }
    outputs = ("IMAGE",)

    @classmethod
    def run(cls, inputs: Mapping[str, Any], workshop: Workshop) -> Work:
        yield from ()
        return Made([Image(inputs["width"], inputs["height"], inputs["color"], batch=inputs["batch_size"])])


class LoadImage(Node):
    """An image that was uploaded."""

    display_name = "Load Image"
    inputs: ClassVar = {"image": Input("COMBO", {"image_upload": True})}
    outputs = ("IMAGE", "MASK")

    @classmethod
    def choices(cls, name: str, files: Files) -> list[str]:
        return sorted(stored.name for stored in files.listing("input"))

    @classmethod
    def objection(cls, inputs: Mapping[str, Any], files: Files) -> tuple[str, str] | None:
        if files.annotated(str(inputs["image"])) is None:
            return "image", f"image - Invalid image file: {inputs['image']}"
        return None

    @classmethod
    def fingerprint(cls, inputs: Mapping[str, Any], files: Files) -> str:
        stored = files.annotated(str(inputs["image"]))
        return stored.etag if stored else ""

    @classmethod
    def run(cls, inputs: Mapping[str, Any], workshop: Workshop) -> Work:
        yield from ()
        name = str(inputs["image"])
        stored = workshop.files.annotated(name)
        if stored is None:
            raise NodeFailed("FileNotFoundError", f"[Errno 2] No such file or directory: '{name}'")
        if not stored.data.startswith(_IMAGE_SIGNATURES):
            raise NodeFailed("PIL.UnidentifiedImageError", f"cannot identify image file '{name}'")
        width, height = size_of(stored.data) if stored.data.startswith(SIGNATURE) else (512, 512)
        return Made([Image(width, height, source=stored.data), None])


class DemoSampler(Node):
    """Takes its time, shows previews, and makes a picture out of a seed."""

    display_name = "Demo Sampler"
    category = "demo"
    module = "comfyproxy.demo.nodes"
    inputs: ClassVar = {
        "seed": Input("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
        "steps": Input("INT", {"default": 20, "min": 1, "max": 10_000}),
        "seconds": Input("FLOAT", {"default": 4.0, "min": 0.0, "max": 86_400.0, "step": 0.1}),
        "width": Input("INT", {"default": 512, "min": 16, "max": 4096}, required=False),
        "height": Input("INT", {"default": 512, "min": 16, "max": 4096}, required=False),
        "image": Input("IMAGE", required=False),
    }
    outputs = ("IMAGE",)

    @classmethod
    def run(cls, inputs: Mapping[str, Any], workshop: Workshop) -> Work:
        seed, steps = inputs["seed"], inputs["steps"]
        for step in range(1, steps + 1):
            image = preview(seed, workshop.hue, step / steps)
            yield Step(inputs["seconds"] / steps, step, steps, image)
        given = inputs.get("image")
        width = given.width if given else inputs.get("width", 512)
        height = given.height if given else inputs.get("height", 512)
        return Made([Image(width, height, seed=seed)])


class SaveImage(Node):
    """Writes each image of the batch to the output folder."""

    display_name = "Save Image"
    inputs: ClassVar = {
        "images": Input("IMAGE"),
        "filename_prefix": Input("STRING", {"default": "ComfyUI"}),
    }
    hidden = _PROMPT
    is_output = True

    @classmethod
    def run(cls, inputs: Mapping[str, Any], workshop: Workshop) -> Work:
        yield from ()
        return _save(inputs["images"], "output", inputs["filename_prefix"], workshop)


class PreviewImage(Node):
    """Writes each image of the batch to the temp folder."""

    display_name = "Preview Image"
    inputs: ClassVar = {"images": Input("IMAGE")}
    hidden = _PROMPT
    is_output = True

    @classmethod
    def run(cls, inputs: Mapping[str, Any], workshop: Workshop) -> Work:
        yield from ()
        random_part = "".join(workshop.dice.choices(string.ascii_lowercase, k=5))
        return _save(inputs["images"], "temp", f"ComfyUI_temp_{random_part}", workshop)


NODES: Mapping[str, type[Node]] = {
    node.__name__: node for node in (EmptyImage, LoadImage, SaveImage, PreviewImage, DemoSampler)
}


def describe(name: str, node: type[Node], files: Files) -> dict[str, Any]:
    """The entry of one class in GET /object_info."""
    required = {key: _input_row(node, key, files) for key, given in node.inputs.items() if given.required}
    optional = {key: _input_row(node, key, files) for key, given in node.inputs.items() if not given.required}
    groups: dict[str, dict[str, Any]] = {
        "required": required,
        "optional": optional,
        "hidden": dict(node.hidden),
    }
    inputs = {group: rows for group, rows in groups.items() if rows}
    return {
        "input": inputs,
        "input_order": {group: list(rows) for group, rows in inputs.items()},
        "is_input_list": False,
        "output": list(node.outputs),
        "output_is_list": [False] * len(node.outputs),
        "output_name": list(node.outputs),
        "name": name,
        "display_name": node.display_name,
        "description": node.__doc__ or "",
        "python_module": node.module,
        "category": node.category,
        "output_node": node.is_output,
        "has_intermediate_output": False,
        "search_aliases": [],
    }


def _input_row(node: type[Node], name: str, files: Files) -> list[Any]:
    given = node.inputs[name]
    kind: Any = node.choices(name, files) if given.type == "COMBO" else given.type
    return [kind, dict(given.options)] if given.options else [kind]


def _save(image: Image, folder: str, prefix: str, workshop: Workshop) -> Made:
    prefix = prefix.replace("%width%", str(image.width)).replace("%height%", str(image.height))
    try:
        subfolder, name, counter = workshop.files.next_output(folder, prefix)
    except OutsideFolder:
        raise NodeFailed(
            "Exception", "**** ERROR: Saving image outside the output folder is not allowed."
        ) from None
    prompt = workshop.prompt
    text = {"prompt": json.dumps(prompt.graph), "server": workshop.server, "prompt_id": prompt.prompt_id}
    saved: list[StoredFile] = []
    for number in range(image.batch):
        data = card(image, workshop.server, workshop.hue, prompt.prompt_id, text)
        file_name = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
        saved.append(workshop.files.save(folder, subfolder, file_name, data, workshop.now))
    shown = [{"filename": stored.name, "subfolder": stored.subfolder, "type": folder} for stored in saved]
    return Made(shown={"images": shown})
