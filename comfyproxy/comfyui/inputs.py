"""The files that a prompt loads, where its graph names them, and the graph with other names.

A node's input that names a file is a plain text (``server.py``, ``folder_paths.py``): ``u.png``,
``clipspace/u.png [input]``, ``ComfyUI_00001_.png [output]``. Which texts are names the graph does not say:
those with an annotation are, and those that end as names of files do. Names of models are left out: models
are not brought to servers, and who has which of them is known otherwise (`comfyproxy.comfyui.scheduling`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from comfyproxy.comfyui.files import MAX_NAME, FileRef, file_in_text
from comfyproxy.comfyui.wire import Document
from comfyproxy.comfyui.workflow import is_model

MAX_FILES = 128
"""Files of one prompt that are looked at."""

_ANNOTATED = re.compile(r".* \[(?:input|output|temp)\]")
_NAMED = re.compile(r".*[^\s.]\.[A-Za-z][A-Za-z0-9]{0,7}")


def files_loaded(submission: Document) -> dict[str, FileRef]:
    """The texts in the prompt of ``submission`` that may name files which it loads, and what they name."""
    found: dict[str, FileRef] = {}
    graph = submission.get("prompt")
    try:
        for node in graph.values() if isinstance(graph, dict) else ():
            for text in _texts(node.get("inputs") if isinstance(node, dict) else None):
                if text not in found and may_name_file(text) and len(found) < MAX_FILES:
                    found[text] = file_in_text(text)
    except RecursionError:
        return {}
    return found


def may_name_file(text: str) -> bool:
    """Whether ``text`` can be the name of a file that is no model."""
    if not 0 < len(text) <= MAX_NAME or not text.isprintable():
        return False
    return _ANNOTATED.fullmatch(text) is not None or (
        _NAMED.fullmatch(text) is not None and not is_model(text)
    )


def with_names(submission: Document, names: Mapping[str, str]) -> Document:
    """``submission`` with the texts in ``names`` for those inputs of nodes that they are to replace.

    What was given stays as it is; where there is nothing to replace it is returned itself.
    """
    if not names:
        return submission
    graph = {
        key: node | {"inputs": _renamed(node["inputs"], names)}
        if isinstance(node, dict) and "inputs" in node
        else node
        for key, node in submission["prompt"].items()
    }
    return submission | {"prompt": graph}


def _texts(value: Any) -> Iterator[str]:
    """Every text in ``value``, in lists and objects too; a link to another node has none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, list) and not _is_link(value):
        for item in value:
            yield from _texts(item)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: _renamed(member, names) for key, member in value.items()}
    if isinstance(value, list) and not _is_link(value):
        return [_renamed(item, names) for item in value]
    return value


def _is_link(value: list[Any]) -> bool:
    return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
