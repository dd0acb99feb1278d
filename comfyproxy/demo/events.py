"""The messages of ComfyUI's WebSocket, as values.

JSON messages are text frames `{"type": ..., "data": ...}`. Previews are binary frames: a big-endian u32 kind,
then for kind 1 a u32 image format and the image, for kind 4 a u32 length, that many bytes of JSON about the
node, and the image.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREVIEW_IMAGE = 1
PREVIEW_IMAGE_WITH_METADATA = 4

_FORMAT_PNG = 2


@dataclass(frozen=True, slots=True)
class Event:
    """One JSON message."""

    type: str
    data: Mapping[str, Any]

    def encode(self) -> str:
        """The text frame, spaced as ComfyUI's."""
        return json.dumps({"type": self.type, "data": self.data})


@dataclass(frozen=True, slots=True)
class Preview:
    """One preview image (PNG) of a node at work."""

    image: bytes
    prompt_id: str
    node_id: str

    def encode(self) -> bytes:
        """The binary frame for clients that never said what they support: the image alone (kind 1)."""
        return struct.pack(">II", PREVIEW_IMAGE, _FORMAT_PNG) + self.image

    def encode_with_metadata(self) -> bytes:
        """The binary frame for clients that flagged `supports_preview_metadata` (kind 4)."""
        about = {
            "node_id": self.node_id,
            "prompt_id": self.prompt_id,
            "display_node_id": self.node_id,
            "parent_node_id": None,
            "real_node_id": self.node_id,
            "image_type": "image/png",
        }
        text = json.dumps(about).encode()
        return struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(text)) + text + self.image


def queue_info(remaining: int) -> dict[str, Any]:
    """What GET /prompt answers and `status` carries: prompts that run or wait."""
    return {"exec_info": {"queue_remaining": remaining}}


def status(remaining: int, sid: str | None = None) -> Event:
    """`status`; only the first one of a connection carries the ``sid``."""
    data: dict[str, Any] = {"status": queue_info(remaining)}
    return Event("status", data if sid is None else data | {"sid": sid})


def executing(node_id: str | None, prompt_id: str) -> Event:
    """A node starts; None: the prompt has ended, and its history is stored."""
    if node_id is None:
        return Event("executing", {"node": None, "prompt_id": prompt_id})
    return Event("executing", {"node": node_id, "display_node": node_id, "prompt_id": prompt_id})


def executing_resumed(node_id: str) -> Event:
    """What a client that comes back in mid-job is told: the node, but not the prompt."""
    return Event("executing", {"node": node_id})


def executed(node_id: str, prompt_id: str, output: Mapping[str, Any]) -> Event:
    """A node with something to show is done."""
    return Event(
        "executed", {"node": node_id, "display_node": node_id, "output": output, "prompt_id": prompt_id}
    )


def progress(node_id: str, prompt_id: str, value: float, maximum: float) -> Event:
    """One step of a node."""
    return Event("progress", {"value": value, "max": maximum, "prompt_id": prompt_id, "node": node_id})


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """How far one node is; ``state`` is running, finished or error."""

    value: float
    maximum: float
    state: str


def progress_state(prompt_id: str, nodes: Mapping[str, NodeProgress]) -> Event:
    """How far every node is that is no longer pending: all of them, each time."""
    return Event(
        "progress_state",
        {
            "prompt_id": prompt_id,
            "nodes": {
                node_id: {
                    "value": node.value,
                    "max": node.maximum,
                    "state": node.state,
                    "node_id": node_id,
                    "prompt_id": prompt_id,
                    "display_node_id": node_id,
                    "parent_node_id": None,
                    "real_node_id": node_id,
                }
                for node_id, node in nodes.items()
            },
        },
    )
