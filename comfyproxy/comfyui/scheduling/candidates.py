"""Which servers can run a prompt: node classes and model files, from the servers' ``/object_info``.

A server answers 400 to a prompt with a node class that it does not have, and to one whose input, a choice
of a list, names a file that its list has not (``validate_prompt`` and ``validate_inputs`` in
``execution.py``). Another server may have both. Only choices that look like models count: pictures are
uploads, which are brought to where they are needed, and other choices are the same everywhere or a mistake,
of which a server's own answer says more.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from sys import intern
from typing import Any
from weakref import WeakValueDictionary

from comfyproxy.comfyui.wire import Document, read_object
from comfyproxy.comfyui.workflow import is_model, nodes_of

MAX_NAMED = 100
"""Nodes of which a refusal says what is wrong with them."""

MAX_FOLLOWED = 10_000
"""Nodes that are looked at to find the outputs that depend on one."""

_UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload", "animated_image_upload")
"""Options of an input by which the page offers to upload a file; its list is of the server's input files."""

Models = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Lack:
    """What a server has not: the class of a node, or the file that ``input_name`` of the node names.

    ``input_name`` and ``value`` are empty where it is the class.
    """

    node_id: str
    class_type: str
    input_name: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Catalog:
    """What one server can run. Servers that can run the same have one and the same catalog.

    ``classes`` has, for each node class, the models that its inputs may name; inputs that are no choices of
    a list are not in it. ``outputs`` are the classes for whose sake a prompt is run.
    """

    classes: Mapping[str, Models] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()

    @classmethod
    def read(cls, object_info: bytes) -> "Catalog":
        """The catalog in an answer to ``GET /object_info``; ValueError if it is none."""
        document = read_object(object_info)
        if document is None:
            raise ValueError("no object of node classes")
        # Loaders of one kind have the same long list, and most classes none.
        lists: dict[frozenset[str], frozenset[str]] = {}
        classes = {intern(name): dict(_choices(info, lists)) or _NOTHING for name, info in document.items()}
        outputs = (
            name for name, info in document.items() if isinstance(info, dict) and info.get("output_node")
        )
        return _shared(cls(classes, frozenset(intern(name) for name in outputs)))


def lacking(graph: Document, catalog: Catalog) -> tuple[Lack, ...]:
    """What the server of ``catalog`` has not of what ``graph``, nodes by their ids, needs.

    Each class must be there, a model only if an output depends on it, as ComfyUI has it.
    """
    nodes = {node_id: (name, inputs) for node_id, name, inputs in nodes_of(graph)}
    lacks = [Lack(one, name) for one, (name, _) in nodes.items() if name not in catalog.classes]
    for node_id in _needed(nodes, catalog):
        name, inputs = nodes[node_id]
        for key, known in catalog.classes.get(name, _NOTHING).items():
            value = inputs.get(key)
            if isinstance(value, str) and value not in known and is_model(value):
                lacks.append(Lack(node_id, name, key, value))
    return tuple(lacks)


def refusal(lacks: Mapping[str, Sequence[Lack]], graph: Document) -> bytes:
    """What ComfyUI answers with status 400, for a prompt that no server can run.

    ``lacks`` are by the servers' names. The error is of the server that lacks the least, its details say what
    each of them lacks.
    """
    where = "\n".join(f"{server} lacks {_listed(missing)}" for server, missing in lacks.items() if missing)
    least = min((missing for missing in lacks.values() if missing), key=_badness, default=())
    unknown = next((lack for lack in least if not lack.input_name), None)
    if unknown is not None:
        title = _title(graph, unknown)
        about = {"node_id": unknown.node_id, "class_type": unknown.class_type, "node_title": title}
        return _answer(
            "missing_node_type",
            f"Node '{title}' not found. The custom node may not be installed.",
            f"Node ID '#{unknown.node_id}'\n{where}",
            about,
            {},
        )
    return _answer(
        "prompt_outputs_failed_validation",
        "Prompt outputs failed validation",
        where,
        {},
        _node_errors(least, lacks, graph),
    )


def _node_errors(least: Sequence[Lack], lacks: Mapping[str, Sequence[Lack]], graph: Document) -> Document:
    users: dict[str, list[str]] = {}
    for node_id, _, inputs in nodes_of(graph):
        for source in _sources(inputs):
            users.setdefault(source, []).append(node_id)
    errors: Document = {}
    for lack in least[:MAX_NAMED]:
        where = ", ".join(server for server, missing in lacks.items() if lack in missing)
        entry = errors.setdefault(
            lack.node_id,
            {"errors": [], "dependent_outputs": _ends(lack.node_id, users), "class_type": lack.class_type},
        )
        entry["errors"].append(
            {
                "type": "value_not_in_list",
                "message": "Value not in list",
                "details": f"{lack.input_name}: '{lack.value}' not on {where}",
                "extra_info": {
                    "input_name": lack.input_name,
                    "input_config": None,
                    "received_value": lack.value,
                },
            }
        )
    return errors


def _needed(nodes: Mapping[str, tuple[str, Document]], catalog: Catalog) -> dict[str, None]:
    """The nodes that an output depends on, in the order of the graph from each output on."""
    found: dict[str, None] = {}
    waiting = [node_id for node_id, (name, _) in nodes.items() if name in catalog.outputs]
    while waiting:
        node_id = waiting.pop()
        if node_id in nodes and node_id not in found:
            found[node_id] = None
            waiting.extend(_sources(nodes[node_id][1]))
    return found


def _ends(node_id: str, users: Mapping[str, list[str]]) -> list[str]:
    """The nodes at which what ``node_id`` makes ends, which are the outputs."""
    seen, waiting, ends = {node_id}, [node_id], []
    while waiting and len(seen) < MAX_FOLLOWED:
        one = waiting.pop()
        following = users.get(one, ())
        if not following:
            ends.append(one)
        fresh = [user for user in following if user not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    return ends


def _sources(inputs: Document) -> Iterator[str]:
    """The ids of the nodes that ``inputs`` are linked to: links are written ``["4", 0]``."""
    for value in inputs.values():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
            yield str(value[0])


def _choices(info: Any, lists: dict[frozenset[str], frozenset[str]]) -> Iterator[tuple[str, frozenset[str]]]:
    """The inputs of one class that are choices of a list, each with the models in the list."""
    given = info.get("input") if isinstance(info, dict) else None
    for group in ("required", "optional"):
        inputs = given.get(group) if isinstance(given, dict) else None
        for name, spec in inputs.items() if isinstance(inputs, dict) else ():
            options = _options(spec)
            if options is not None:
                models = frozenset(intern(one) for one in options if isinstance(one, str) and is_model(one))
                yield intern(name), lists.setdefault(models, models)


def _options(spec: Any) -> list[Any] | None:
    """The options of an input, written ``[["a", "b"], {}]`` or ``["COMBO", {"options": ["a", "b"]}]``."""
    if not isinstance(spec, list) or not spec:
        return None
    settings = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    if any(settings.get(upload) for upload in _UPLOADS):
        return None
    options = settings.get("options") if spec[0] == "COMBO" else spec[0]
    return options if isinstance(options, list) else None


def _answer(kind: str, message: str, details: str, about: Document, node_errors: Document) -> bytes:
    error = {"type": kind, "message": message, "details": details, "extra_info": about}
    return json.dumps({"error": error, "node_errors": node_errors}).encode()


def _badness(missing: Sequence[Lack]) -> tuple[int, int]:
    return sum(not lack.input_name for lack in missing), len(missing)


def _listed(missing: Sequence[Lack]) -> str:
    names = dict.fromkeys(lack.value or f"the node {lack.class_type}" for lack in missing)
    shown = list(names)[:MAX_NAMED]
    return ", ".join(shown) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def _title(graph: Document, lack: Lack) -> str:
    """What the page calls the node."""
    meta = graph[lack.node_id].get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return title if isinstance(title, str) else lack.class_type


def _shared(catalog: Catalog) -> Catalog:
    """A catalog that says the same and is in use already, or else this one."""
    digest = blake2b(digest_size=16)
    for name in sorted(catalog.classes):
        models = sorted((key, sorted(known)) for key, known in catalog.classes[name].items())
        digest.update(repr((name, name in catalog.outputs, models)).encode(errors="replace"))
    return _in_use.setdefault(digest.digest(), catalog)


_NOTHING: Models = {}
_in_use: WeakValueDictionary[bytes, Catalog] = WeakValueDictionary()
