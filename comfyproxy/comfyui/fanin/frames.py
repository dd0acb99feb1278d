"""Single messages of ComfyUI's WebSocket: what they are about, and how the proxy writes its own.

Binary ones begin with a big-endian u32 that says their kind (``BinaryEventTypes`` in ``server.py``).
"""

import json
import re
from collections.abc import Container, Hashable
from dataclasses import dataclass

from comfyproxy.comfyui.wire import MAX_ID, Document, read_object

_STATE = re.compile(rb'\{"type": "progress_state", "data": \{"prompt_id": "([0-9A-Za-z-]+)", "nodes": \{')
_TEXT = 3
_PNG = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One message for the client; under its ``key`` a newer one replaces it while both wait."""

    payload: bytes
    is_binary: bool = False
    key: Hashable | None = None


@dataclass(frozen=True, slots=True)
class ProgressText:
    """A text at a node (binary kind 3). Newer servers say whose prompt it is about."""

    prompt_id: str | None
    node: bytes
    text: bytes

    def frame(self, with_prompt: str | None) -> Frame:
        """For a client that is to be told the prompt, or (``None``) expects the form without."""
        octets = _TEXT.to_bytes(4, "big")
        if with_prompt is not None:
            octets += _sized(with_prompt.encode(errors="replace"))
        return Frame(octets + _sized(self.node) + self.text, True, ("text", self.node))


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of a node at work (binary kinds 1 and 4); ``prompt_id`` is ``None`` where it does not say.

    ``is_result`` says that it may be what the node gives (``SaveImageWebsocket``): those pictures are PNG,
    while samplers show JPEG (``latent_preview.py``).
    """

    prompt_id: str | None
    frame: Frame
    is_result: bool


def read_binary(payload: bytes, ours: Container[str], names_prompts: bool) -> ProgressText | Preview | None:
    """What a binary message is; ``None`` for kinds that are not ComfyUI's own, and for ill-formed ones.

    Nothing in a text tells whether it says its prompt. It does if that is one of ``ours``, or may if its
    server ``names_prompts``.
    """
    match int.from_bytes(payload[:4], "big"):
        case 1:
            is_result = int.from_bytes(payload[4:8], "big") == _PNG
            return Preview(None, Frame(payload, True, "preview"), is_result)
        case 3:
            return _read_text(payload, ours, names_prompts)
        case 4:
            return _read_preview(payload)
    return None


def status(remaining: int, sid: str | None = None) -> bytes:
    """``status``; with ``sid`` it is the first one of a connection."""
    data: Document = {"status": {"exec_info": {"queue_remaining": remaining}}}
    return event("status", data if sid is None else data | {"sid": sid})


def event(kind: str, data: Document) -> bytes:
    """A JSON message, spaced as ComfyUI's; raises `RecursionError` where ``data`` is too deep to be one."""
    return json.dumps({"type": kind, "data": data}).encode()


def event_of_prompt(kind: str, data: Document, prompt_id: str) -> bytes:
    """The same about a prompt; of ``data`` that is too deep to be written only that is said."""
    try:
        return event(kind, data)
    except RecursionError:
        return event(kind, {"prompt_id": prompt_id})


def prompt_of_state(payload: bytes) -> str | None:
    """The prompt of a ``progress_state`` that is written as ComfyUI does it.

    It tells of every node how far it is, again with every step, and can be large: it is not read whole.
    """
    match = _STATE.match(payload)
    return match[1].decode() if match and payload.endswith(b"}}}") else None


def progress_key(kind: str, prompt_id: str, data: Document) -> tuple[str, ...]:
    """Under which key a newer ``progress`` or ``progress_state`` says all that an older one did."""
    node = node_id(data.get("node")) if kind == "progress" else None
    return (kind, prompt_id) if node is None else (kind, prompt_id, node)


def node_id(value: object) -> str | None:
    """The id of a node, if ``value`` can be one."""
    return str(value)[:MAX_ID] if isinstance(value, str | int) else None


def _read_text(payload: bytes, ours: Container[str], names_prompts: bool) -> ProgressText | None:
    first, rest = _cut(payload[4:])
    if first is None:
        return None
    prompt = first.decode(errors="replace")
    if names_prompts or prompt in ours:
        node, text = _cut(rest)
        if node is not None:
            return ProgressText(prompt, node, text)
    return ProgressText(None, first, rest)


def _read_preview(payload: bytes) -> Preview | None:
    metadata, _ = _cut(payload[4:])
    about = None if metadata is None else read_object(metadata)
    if about is None:
        return None
    prompt = about.get("prompt_id")
    frame = Frame(payload, True, ("preview", metadata))
    return Preview(prompt if isinstance(prompt, str) else "", frame, about.get("image_type") == "image/png")


def _sized(octets: bytes) -> bytes:
    return len(octets).to_bytes(4, "big") + octets


def _cut(octets: bytes) -> tuple[bytes | None, bytes]:
    """What a u32 says the length of, and what follows; ``None`` if there is less than that."""
    end = 4 + int.from_bytes(octets[:4], "big")
    if len(octets) < max(4, end):
        return None, b""
    return octets[4:end], octets[end:]
