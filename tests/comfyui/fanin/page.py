"""What ComfyUI's page makes of the messages of its WebSocket, and recorded messages to feed it with.

`Page` follows the frontend, 1.32.9 and 1.48.7 alike: `api.ts` (the messages), `executionStore.ts` (the active
job and its progress), `app.ts` with `nodeOutputStore.ts` (the results at the nodes).
"""

import base64
import json
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[2] / "vectors" / "comfyui-events" / "v0.3.75.json"

LASTING = (
    "active",
    "jobs",
    "progress",
    "progress_by_job",
    "node_progress",
    "outputs",
    "texts",
    "results",
    "error",
)

Message = tuple[bytes, bool]
"""A payload, and whether it is binary."""


class Recording:
    """What a real ComfyUI said to one client (tests/real/record_events.py)."""

    def __init__(self, who: str) -> None:
        self._said: dict[str, list[Any]] = json.loads(VECTORS.read_text())[who]

    def greeting(self) -> list[Message]:
        """What it said before any prompt: `status`, and for a page `feature_flags`."""
        return [_message(one) for one in self._said["greeting"]]

    def prompt(self, kind: str, prompt_id: str) -> list[Message]:
        """What it said of a prompt, as if that had this id (36 characters) and made files named after it."""
        said = [_message(one) for one in self._said[kind]]
        [old] = {data["prompt_id"] for _, data in events(said) if "prompt_id" in data}
        mark = b"_%b_" % prompt_id.encode()
        return [
            (re.sub(rb"_0000\d_", mark, payload.replace(old.encode(), prompt_id.encode())), is_binary)
            for payload, is_binary in said
        ]


def _message(one: Any) -> Message:
    return (one.encode(), False) if isinstance(one, str) else (base64.b64decode(one["binary"]), True)


def events(messages: list[Message]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON messages, each as its type and its data."""
    for payload, is_binary in messages:
        if not is_binary:
            document = json.loads(payload)
            yield document["type"], document["data"]


@dataclass
class Page:
    """One tab."""

    sid: str = ""
    remaining: list[int] = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)
    active: str | None = None
    jobs: dict[str, dict[str, bool]] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    progress_by_job: dict[str, Any] = field(default_factory=dict)
    node_progress: Any = None
    outputs: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    error: Any = None
    endings: list[str] = field(default_factory=list)
    errors_shown: list[str] = field(default_factory=list)
    previews: list[tuple[str | None, str]] = field(default_factory=list)
    """Of which job each preview was, and which was active then."""
    misplaced: list[str] = field(default_factory=list)
    """Messages about a job that was not the active one."""
    other: list[str] = field(default_factory=list)

    def send(self, payload: bytes, is_binary: bool, key: Hashable | None = None) -> None:
        """A message arrives (the page is its own `Client`)."""
        if is_binary:
            self._binary(payload)
            return
        document = json.loads(payload)
        kind, data = document["type"], document["data"]
        getattr(self, f"_{kind}", lambda data: self.other.append(kind))(data)

    def close(self, code: int, reason: bytes) -> None:
        """The session has nothing to say goodbye for."""
        raise AssertionError(reason)

    @property
    def state(self) -> dict[str, Any]:
        """All that lasts, in one value; previews of a job that is over are as good as any."""
        return {name: getattr(self, name) for name in LASTING} | {"errors": sorted(self.errors_shown)}

    def _status(self, data: dict[str, Any]) -> None:
        self.sid = data.get("sid", self.sid)
        self.remaining.append(data["status"]["exec_info"]["queue_remaining"])

    def _feature_flags(self, data: dict[str, Any]) -> None:
        self.flags = data

    def _execution_start(self, data: dict[str, Any]) -> None:
        self.error = None
        self.active = data["prompt_id"]
        self.jobs.setdefault(self.active, {})
        self.results[self.active] = "running"

    def _execution_cached(self, data: dict[str, Any]) -> None:
        self._expect(data)
        if self.active in self.jobs:
            self.jobs[self.active] |= dict.fromkeys(data["nodes"], True)

    def _executed(self, data: dict[str, Any]) -> None:
        self._expect(data)
        if self.active in self.jobs:
            self.jobs[self.active][data["node"]] = True
        self.outputs[data["display_node"]] = data["output"]

    def _executing(self, data: dict[str, Any]) -> None:
        if data["node"] is not None:
            self._expect(data)
        self.node_progress = None
        if self.active in self.jobs and data["node"] is None:
            del self.jobs[self.active]
            self.active = None

    def _progress(self, data: dict[str, Any]) -> None:
        self._expect(data)
        self.node_progress = data

    def _progress_state(self, data: dict[str, Any]) -> None:
        self._expect(data)
        self.progress_by_job[data["prompt_id"]] = data["nodes"]
        self.progress = data["nodes"]

    def _execution_success(self, data: dict[str, Any]) -> None:
        self._end(data, "completed")

    def _execution_interrupted(self, data: dict[str, Any]) -> None:
        self._end(data, "interrupted")

    def _execution_error(self, data: dict[str, Any]) -> None:
        self._end(data, "failed")
        self.error = data["exception_message"]
        self.errors_shown.append(data["prompt_id"])

    def _end(self, data: dict[str, Any], result: str) -> None:
        self._expect(data)
        self.endings.append(data["prompt_id"])
        self.results[data["prompt_id"]] = result
        self.progress = {}
        self.progress_by_job.pop(data["prompt_id"], None)
        self.jobs.pop(self.active or "", None)
        self.active = None
        self.node_progress = None

    def _expect(self, data: dict[str, Any]) -> None:
        if data["prompt_id"] != self.active:
            self.misplaced.append(json.dumps(data))

    def _binary(self, payload: bytes) -> None:
        kind, length = (int.from_bytes(payload[at : at + 4], "big") for at in (0, 4))
        if kind == 4:
            self.previews.append((self.active, json.loads(payload[8 : 8 + length])["prompt_id"]))
        elif kind == 3:
            rest = payload[4:]
            if self.flags.get("supports_progress_text_metadata"):
                rest = rest[4 + length :]
            end = 4 + int.from_bytes(rest[:4], "big")
            self.texts[rest[4:end].decode()] = rest[end:].decode()
        else:
            self.other.append(f"binary {kind}")
