"""Which servers can run a prompt: node classes and model files, from the servers' ``/object_info``.

A server answers 400 to a prompt with a node class that it does not have, and to one whose input, a choice of a
list, names a file that its list has not (``validate_prompt`` and ``validate_inputs`` in ``execution.py``).
Another server may have both. Only choices that look like models count: pictures are uploads, which are brought
to where they are needed, and other choices are the same everywhere or a mistake, which a server says best.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfyproxy.comfyui.wire import Document, read_object
from comfyproxy.comfyui.workflow import is_model

_NO_MODELS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lack:
    """What a server has not: the class of a node, or the file that ``input_name`` of the node names.

    ``input_name`` and ``value`` are empty where it is the class.
    """

    node_id: str
    class_type: str
    input_name: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What one server can run: of each node class the model files that its inputs may name."""

    classes: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, object_info: bytes) -> "Catalog":
        """The catalog in an answer to ``GET /object_info``; ValueError if there is none."""
        document = read_object(object_info)
        if document is None:
            raise ValueError("no object of node classes")
        shared: dict[frozenset[str], frozenset[str]] = {}
        return cls({name: dict(_choices(info, shared)) for name, info in document.items()})


def lacking(graph: Document, catalog: Catalog) -> tuple[Lack, ...]:
    """What the server of ``catalog`` has not of what ``graph`` (node ids to nodes) needs."""
    lacks = []
    for node_id, node in graph.items():
        if not isinstance(node, dict) or not isinstance(name := node.get("class_type"), str):
            continue
        choices = catalog.classes.get(name)
        if choices is None:
            lacks.append(Lack(node_id, name))
            continue
        inputs = node.get("inputs")
        for key, value in inputs.items() if isinstance(inputs, dict) else ():
            known = choices.get(key)
            if known is not None and isinstance(value, str) and is_model(value) and value not in known:
                lacks.append(Lack(node_id, name, key, value))
    return tuple(lacks)


def refusal(lacks: Mapping[str, Sequence[Lack]], graph: Document) -> bytes:
    """ComfyUI's answer of status 400 to a prompt that no server can run; ``lacks`` are by the server's name."""
    details = "; ".join(
        f"{server}: {', '.join(lack.value or lack.class_type for lack in missing)}"
        for server, missing in lacks.items()
    )
    error = {"type": "invalid_prompt", "message": "No server can run this prompt.", "details": details}
    return json.dumps({"error": error | {"extra_info": {}}, "node_errors": {}}).encode()


def _choices(info: Any, shared: dict[frozenset[str], frozenset[str]]) -> Iterator[tuple[str, frozenset[str]]]:
    """The inputs of one class that are choices of a list, each with the models in the list."""
    given = info.get("input") if isinstance(info, dict) else None
    for group in ("required", "optional"):
        inputs = given.get(group) if isinstance(given, dict) else None
        for name, spec in inputs.items() if isinstance(inputs, dict) else ():
            options = _options(spec)
            if options is not None:
                models = frozenset(one for one in options if isinstance(one, str) and is_model(one))
                yield name, shared.setdefault(models, models)


def _options(spec: Any) -> list[Any] | None:
    """The options of an input, written ``[["a", "b"], {}]`` or ``["COMBO", {"options": ["a", "b"]}]``."""
    if not isinstance(spec, list) or not spec:
        return None
    if isinstance(spec[0], list):
        return spec[0]
    if spec[0] == "COMBO" and len(spec) > 1 and isinstance(spec[1], dict):
        options = spec[1].get("options")
        return options if isinstance(options, list) else None
    return None
