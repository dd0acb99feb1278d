"""What the servers say of themselves: the machines of GET /system_stats, the abilities of GET /features."""

from collections.abc import Iterable, Sequence
from typing import Any

from comfyproxy.comfyui.merging.documents import is_number, read
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Reply

_MEMORY = ("ram_total", "ram_free")


def server_name(backend: Backend) -> str:
    """What to call a server in front of clients: its name, else its place in the pool, never its address."""
    return backend.address.name or f"server {backend.index + 1}"


def merge_system_stats(replies: Sequence[Reply]) -> Document:
    """The answer to ``GET /system_stats``: the first server's system with the memory of all machines, and the
    devices of all servers, each with its server's name.

    The page tells devices apart by their index, so they are numbered anew. Servers of one host share its
    memory, which counts once.
    """
    answers = [(reply.backend, found) for reply in replies if isinstance(found := read(reply), dict)]
    systems = [
        (backend, system)
        for backend, document in answers
        if isinstance(system := document.get("system"), dict)
    ]
    devices = [
        device | {"name": f"{server_name(backend)}: {device.get('name', '')}", "index": index}
        for index, (backend, device) in enumerate(_devices(answers))
    ]
    return {"system": _system(systems), "devices": devices}


def merge_features(documents: Iterable[Document]) -> Document:
    """The abilities that all servers have: ``true`` where all say it, the least of numbers."""
    merged: Document | None = None
    for document in documents:
        merged = document if merged is None else _both(merged, document)
    return merged or {}


def _devices(answers: Iterable[tuple[Backend, Document]]) -> Iterable[tuple[Backend, Document]]:
    for backend, document in answers:
        listed = document.get("devices")
        for device in listed if isinstance(listed, list) else ():
            if isinstance(device, dict):
                yield backend, device


def _system(systems: Sequence[tuple[Backend, Document]]) -> Document:
    if not systems:
        return {}
    hosts = {backend.address.host: system for backend, system in reversed(systems)}
    total = {
        name: sum(value for system in hosts.values() if is_number(value := system.get(name)))
        for name in _MEMORY
    }
    return systems[0][1] | total


def _both(first: Document, second: Document) -> Document:
    both = {name: _common(value, second.get(name)) for name, value in first.items()}
    return {name: value for name, value in both.items() if value is not None}


def _common(one: Any, other: Any) -> Any:
    if isinstance(one, bool):
        return one and other is True
    if isinstance(one, dict):
        return _both(one, other) if isinstance(other, dict) else None
    if is_number(one) and is_number(other):
        return min(one, other)
    return one if other is not None else None
