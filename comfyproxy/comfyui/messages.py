"""ComfyUI's WebSocket messages of which a slow client needs only the newest (``server.py``, ``progress.py``).

While a sampler runs these come several times a second, and each says all that the ones before it said. Every
other message is an event that happens once, or is too small to matter.
"""

from collections.abc import Hashable

from comfyproxy.comfyui.wire import read_object

_PREVIEW = b"\x00\x00\x00\x01"
_PREVIEW_WITH_METADATA = b"\x00\x00\x00\x04"
_LENGTH = slice(4, 8)


def message_key(payload: bytes, is_binary: bool) -> Hashable | None:
    """Under which key a newer message may replace this one while both wait; ``None`` for never."""
    if is_binary:
        return _preview_key(payload)
    # ComfyUI writes the type first. Looking for it there spares most messages the parsing.
    if b'"progress' not in payload[:32]:
        return None
    message = read_object(payload) or {}
    data = message.get("data")
    if not isinstance(data, dict):
        return None
    match message.get("type"), data.get("prompt_id"), data.get("node"):
        case "progress_state", str(prompt), _:
            return "progress_state", prompt
        case "progress", str(prompt), str(node):
            return "progress", prompt, node
    return None


def _preview_key(payload: bytes) -> Hashable | None:
    """Previews with metadata replace those whose metadata (prompt and node) is the same, the others any."""
    kind = payload[:4]
    if kind == _PREVIEW:
        return kind
    if kind == _PREVIEW_WITH_METADATA:
        return kind, payload[8 : 8 + int.from_bytes(payload[_LENGTH], "big")]
    return None
