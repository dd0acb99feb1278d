"""What a prompt needs and how much work it is, read from its graph.

A graph in the API's form maps the id of each node to its ``class_type`` and its ``inputs``; an input is a
literal, or a link written as a list of a node's id and the number of its output.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from comfyproxy.comfyui.wire import Document

_MODEL = re.compile(r"(?i)[^\r\n]{1,500}\.(?:safetensors|sft|ckpt|pt|pt2|pth|bin|gguf|onnx|pkl)")
"""The endings that ``folder_paths.py`` takes for models, and those of common node packs."""

_CHOICE = re.compile(r"[0-9a-z_+-]{1,32}")
"""A text that is one of a list, such as the name of a sampler; what people write has other letters too."""

_WITHOUT_EFFECT = frozenset(("seed", "noise_seed", "filename_prefix"))
"""Inputs that are another with every run of the same work."""


@dataclass(frozen=True, slots=True)
class Workflow:
    """``classes`` are the node classes that a server must have, ``models`` the files that its loaders name.

    ``kind`` is the same for prompts that are the same work: the same nodes with the same sizes, numbers of
    steps, models and choices, whatever their seeds and texts.
    """

    classes: frozenset[str]
    models: frozenset[str]
    kind: str


def read_workflow(submission: Document) -> Workflow | None:
    """What the body of a ``POST /prompt`` asks for; ``None`` if there is no graph in it."""
    graph = submission.get("prompt")
    if not isinstance(graph, dict):
        return None
    classes, models, traits = set(), set(), []
    for _, name, inputs in nodes_of(graph):
        classes.add(name)
        found = {value for value in _values(inputs) if isinstance(value, str) and is_model(value)}
        models |= found
        traits.append((name, sorted(_traits(inputs)), sorted(found)))
    if not classes:
        return None
    targets = submission.get("partial_execution_targets")
    parts = sorted(one for one in targets if isinstance(one, str)) if isinstance(targets, list) else None
    text = repr((sorted(traits), parts))
    kind = blake2b(text.encode(errors="replace"), digest_size=12).hexdigest()
    return Workflow(frozenset(classes), frozenset(models), kind)


def nodes_of(graph: Document) -> Iterator[tuple[str, str, Document]]:
    """The id, the class and the inputs of each node of ``graph``; what is no node is left out."""
    for node_id, node in graph.items():
        if isinstance(node, dict) and isinstance(node.get("class_type"), str):
            inputs = node.get("inputs")
            yield node_id, node["class_type"], inputs if isinstance(inputs, dict) else {}


def is_model(value: str) -> bool:
    """Whether ``value`` looks like the name of a model's file."""
    return _MODEL.fullmatch(value) is not None


def _values(inputs: Document) -> Iterator[Any]:
    """What ``inputs`` say, and what those say that are objects: some loaders have a row for each file."""
    for value in inputs.values():
        if isinstance(value, dict):
            yield from value.values()
        else:
            yield value


def _traits(inputs: Document) -> Iterator[tuple[str, str]]:
    for name, value in inputs.items():
        if name not in _WITHOUT_EFFECT and _has_effect(value):
            yield name, repr(value)


def _has_effect(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and _CHOICE.fullmatch(value) is not None)
