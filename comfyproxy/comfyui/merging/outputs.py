"""How many outputs a prompt has made and which of them stands for it (``comfy_execution/jobs.py``)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from comfyproxy.comfyui.wire import Document

_SHOWN = frozenset(("images", "video", "audio", "3d", "text"))
_MODELS = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXTS = (".txt", ".md", ".json")
_MAX_TEXT = 1024

_SAVED, _MADE, _TEXT_FILE, _TEXT = range(4)
"""What stands for a prompt rather than what: something saved to look at or hear, something that was only
shown, a text in a file, a text."""


@dataclass(frozen=True, slots=True)
class Summary:
    """``count`` files, of which the page can show ``previewable``; ``preview`` stands for all outputs."""

    count: int
    previewable: int
    preview: Document | None


def summarise(outputs: Document) -> Summary:
    """What the list of jobs says of the outputs of one prompt, which are by node."""
    count = previewable = 0
    best: tuple[int, Document] | None = None
    for node_id, media, item in _items(outputs):
        file = _file(item)
        if file is None and media != "text":
            continue
        shown = {"nodeId": node_id, "mediaType": media} | (_excerpt(item) if file is None else file)
        rank = _TEXT if file is None else _rank(media, file)
        if file is not None:
            count += 1
            previewable += rank is not None
        if rank is not None and (best is None or rank < best[0]):
            best = rank, shown | {"nodeId": node_id}
    return Summary(count, previewable, None if best is None else best[1])


def named(outputs: Document) -> Document:
    """``outputs`` with each model that is told by its bare name as a file, and without ``null`` items."""
    return {
        node_id: {media: _named(media, items) for media, items in made.items()}
        if isinstance(made, dict)
        else made
        for node_id, made in outputs.items()
    }


def _named(media: str, items: Any) -> Any:
    if media == "animated" or not isinstance(items, list):
        return items
    return [item if (file := _file(item)) is None else file for item in items if item is not None]


def _items(outputs: Document) -> Iterator[tuple[str, str, Any]]:
    """Every output: its node, its kind, itself. ``animated`` says how the others are to be shown."""
    for node_id, made in outputs.items():
        for media, items in made.items() if isinstance(made, dict) else ():
            if media != "animated" and isinstance(items, list):
                yield from ((node_id, media, item) for item in items)


def _file(item: Any) -> Document | None:
    """The file that ``item`` is, or names: nodes tell of models by their names alone."""
    if isinstance(item, dict):
        return item
    if isinstance(item, str) and item.lower().endswith(_MODELS):
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return None


def _excerpt(item: Any) -> Document:
    text = str(item)
    return {"content": text} if len(text) <= _MAX_TEXT else {"content": text[:_MAX_TEXT], "truncated": True}


def _rank(media: str, file: Document) -> int | None:
    """How well ``file`` stands for its prompt; ``None`` if the page cannot show it."""
    name, form = (
        value.lower() if isinstance(value := file.get(key), str) else "" for key in ("filename", "format")
    )
    is_text = media == "text" or name.endswith(_TEXTS)
    if not (is_text or media in _SHOWN or form.startswith(("video/", "audio/")) or name.endswith(_MODELS)):
        return None
    if is_text:
        return _TEXT_FILE
    return _SAVED if file.get("type") == "output" else _MADE
