"""A session with its servers and its client, all played by the test."""

import json
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from comfyproxy.comfyui.fanin.session import ClientSession
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.configuration.addresses import parse_addresses
from tests.comfyui.fanin.page import Message

PAGE_FLAGS: Document = {
    "type": "feature_flags",
    "data": {"supports_preview_metadata": True, "supports_progress_text_metadata": True},
}


@dataclass
class Script:
    """A client that keeps all it is sent."""

    messages: list[Message] = field(default_factory=list)
    keys: list[Hashable | None] = field(default_factory=list)
    closed: tuple[int, bytes] | None = None

    def send(self, payload: bytes, is_binary: bool, key: Hashable | None = None) -> None:
        self.messages.append((payload, is_binary))
        self.keys.append(key)

    def close(self, code: int, reason: bytes) -> None:
        self.closed = code, reason

    def take(self) -> list[Any]:
        """What came since the last time: documents, and binary messages as they are."""
        taken, self.messages[:] = self.messages[:], []
        self.keys.clear()
        return [payload if is_binary else json.loads(payload) for payload, is_binary in taken]

    def kinds(self) -> list[str]:
        """What kinds of messages came since the last time, those of prompts with the prompt's id."""
        return [_kind(message) for message in self.take()]


def _kind(message: Any) -> str:
    if isinstance(message, bytes):
        return f"binary {int.from_bytes(message[:4], 'big')}"
    kind, data = message["type"], message["data"]
    if kind == "executing":
        kind = f"executing {data['node']}"
    return f"{kind} {data['prompt_id']}" if "prompt_id" in data else kind


class SessionRig:
    """A session of the client ``cid`` on some servers, the first of which is its home.

    ``queued`` has the client's prompts that have not ended, as a ledger has them. ``noted`` is what the
    ledger was told, ``unsure`` how often it was told to ask, ``told`` what the session sent to each server.
    """

    def __init__(self, servers: int = 3, now: float = 1000.0) -> None:
        addresses = parse_addresses(f"http://server[1-{servers}]:8188")
        self.backends = [Backend(address, index) for index, address in enumerate(addresses)]
        self.now = now
        self.queued: dict[str, Backend] = {}
        self.noted: list[tuple[Backend, Document]] = []
        self.unsure: Counter[Backend] = Counter()
        self.told: dict[Backend, list[bytes]] = {backend: [] for backend in self.backends}
        self.void: set[tuple[str, Backend]] = set()
        self.session = ClientSession(
            "cid",
            self.backends[0],
            now,
            note=self._note,
            unsure=lambda backend: self.unsure.update([backend]),
            queued=lambda: len(self.queued),
            mark=mark,
            is_void=lambda prompt, backend: (prompt, backend) in self.void,
        )

    def _note(self, backend: Backend, document: Document) -> None:
        self.noted.append((backend, document))
        data = document.get("data")
        if document.get("type") != "executing" or not isinstance(data, dict):
            return
        prompt = data.get("prompt_id")
        if data.get("node") is None and isinstance(prompt, str) and self.queued.get(prompt) is backend:
            self.end(prompt)

    def _tell(self, backend: Backend, payload: bytes, is_binary: bool) -> None:
        assert not is_binary
        self.told[backend].append(payload)

    def attach(self, client: Any) -> Any:
        """A WebSocket of the client opens."""
        self.session.attach(client, self.now)
        return client

    def script(self) -> Script:
        """A script opens its WebSocket; it has been greeted."""
        script: Script = self.attach(Script())
        script.take()
        return script

    def open(self, *servers: int) -> None:
        """The connections to these servers open, and they greet the client."""
        for server in servers:
            backend = self.backends[server]
            self.session.opened(backend, partial(self._tell, backend), self.now)
            self.says(server, "status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "cid"})

    def add(self, server: int, *prompts: str) -> None:
        """These prompts of the client are on that server."""
        for prompt in prompts:
            self.queued[prompt] = self.backends[server]
            self.session.adds(self.backends[server], prompt, self.now)

    def end(self, prompt: str) -> None:
        """The ledger holds that a prompt is over."""
        self.queued.pop(prompt, None)
        self.session.ended(prompt, self.now)

    def says(self, server: int, kind: str, data: object, **more: object) -> None:
        """A server sends a JSON message."""
        self.sends(server, json.dumps({"type": kind, "data": data, **more}).encode())

    def sends(self, server: int, payload: bytes, is_binary: bool = False) -> None:
        """A server sends a message."""
        self.session.from_backend(self.backends[server], payload, is_binary, self.now)

    def starts(self, server: int, prompt: str, node: str = "4") -> None:
        """A server begins with a prompt, at that node."""
        self.says(server, "execution_start", {"prompt_id": prompt, "timestamp": 1})
        self.says(server, "execution_cached", {"nodes": [], "prompt_id": prompt, "timestamp": 1})
        self.executes(server, prompt, node)

    def begin(self, *prompts: str) -> None:
        """Each of these prompts is on a server of its own (the first on the first); they begin in turn."""
        for server, prompt in enumerate(prompts):
            self.add(server, prompt)
        for server, prompt in enumerate(prompts):
            self.starts(server, prompt)

    def executes(self, server: int, prompt: str, node: str = "4") -> None:
        """A server goes on to that node."""
        self.says(server, "executing", {"node": node, "display_node": node, "prompt_id": prompt})

    def gives(self, server: int, prompt: str, node: str = "9") -> None:
        """A server has a result."""
        about = {"node": node, "display_node": node, "output": {}, "prompt_id": prompt}
        self.says(server, "executed", about)

    def finishes(self, server: int, prompt: str, ending: str = "execution_success") -> None:
        """A server ends a prompt, as ComfyUI does: the ending, and that nothing is executed any more."""
        self.says(server, ending, {"prompt_id": prompt, "timestamp": 2})
        self.says(server, "executing", {"node": None, "prompt_id": prompt})

    def wait(self, seconds: float) -> None:
        """Let time pass, a quarter of a second after the other."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.25)
            self.session.due(self.now)


def mark(output: Any, backend: Backend) -> Any:
    """``output`` with the server that made its files, if it has any."""
    if not isinstance(output, dict) or "file" not in output:
        return output
    return output | {"file": f"{backend.address.host}/{output['file']}"}


def picture(kind: int, image_format: int, mark: bytes = b"") -> bytes:
    """A preview without metadata: kind 1, and the format 1 (JPEG) or 2 (PNG)."""
    return kind.to_bytes(4, "big") + image_format.to_bytes(4, "big") + b"image" + mark


def preview(prompt: str, image_type: str = "image/jpeg", mark: bytes = b"") -> bytes:
    """A preview with metadata: kind 4."""
    about = json.dumps({"node_id": "4", "prompt_id": prompt, "image_type": image_type}).encode()
    return (4).to_bytes(4, "big") + len(about).to_bytes(4, "big") + about + b"image" + mark


def text(node: str, words: str, prompt: str | None = None) -> bytes:
    """A text at a node (kind 3), with its prompt or without."""
    parts = [part.encode() for part in (prompt, node) if part is not None]
    return (
        (3).to_bytes(4, "big")
        + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        + words.encode()
    )


def spoken(script: Script) -> list[str]:
    """The kinds of messages, without `status`."""
    return [kind for kind in script.kinds() if kind != "status"]


def whole(prompt: str, *middle: str, ending: str = "execution_success") -> list[str]:
    """The kinds of the messages by which a prompt is told of after the fact."""
    return [
        f"execution_start {prompt}",
        f"execution_cached {prompt}",
        *middle,
        f"{ending} {prompt}",
        f"executing None {prompt}",
    ]


def begun(prompt: str, node: str = "4") -> list[str]:
    """The same of one that begins."""
    return [f"execution_start {prompt}", f"execution_cached {prompt}", f"executing {node} {prompt}"]
