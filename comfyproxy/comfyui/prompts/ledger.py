"""What is known of each prompt: where it is, whose it is, how far it is, and how to submit it again."""

import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from comfyproxy.comfyui.workflow import Workflow
from comfyproxy.core.balancing.backend import Backend

MAX_BODIES = 256 * 1024 * 1024
"""Octets of submissions that are kept, compressed, of all prompts that have not ended."""

MAX_ENDED = 100_000
"""Prompts that have ended, of which it is still known whose they were: ten servers' whole histories."""

MAX_DOUBTS = 10_000
"""Prompts of which it is remembered on which servers they may be by mistake."""

_LEVEL = 1
Key = TypeVar("Key")


class Phase(Enum):
    """How far a prompt is.

    SENDING is on its way to a server, for the first time or from another one; in a server's queue it is
    PENDING or RUNNING.
    """

    SENDING = "sending"
    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Prompt:
    """One prompt, from its submission to its end.

    ``owner`` is the fingerprint of the caller whose it is. ``body`` is its submission, compressed, empty if
    that is not kept; ``fields`` are those of the client's request that its server gets too. ``created`` is in
    milliseconds since the epoch, as ComfyUI has it, and ``since`` when its phase and its server became these.
    ``runs`` counts the times that it began to run, ``began`` is when its server says it did.

    ``is_found`` says that it was found on a server, ``is_listed`` that a server has had it, ``is_taken_out``
    that we deleted it from its server's queue, ``is_withdrawn`` that it is not wanted any more. ``fits`` has
    of servers whether they can run it, and the catalog that says so.
    """

    prompt_id: str
    client_id: str
    owner: str
    backend: Backend
    number: float
    workflow: Workflow | None = None
    phase: Phase = Phase.SENDING
    since: float = 0.0
    created: int = 0
    body: bytes = b""
    fields: bytes = b""
    is_found: bool = False
    is_listed: bool = False
    is_taken_out: bool = False
    is_withdrawn: bool = False
    runs: int = 0
    began: object = None
    fits: dict[Backend, tuple[object, bool]] = field(default_factory=dict)

    @property
    def is_queued(self) -> bool:
        """Whether it is in the queue of its server, as far as is known."""
        return self.phase in (Phase.PENDING, Phase.RUNNING)

    @property
    def submission(self) -> bytes:
        """Its submission as it was kept; empty if it was not."""
        return unpack(self.body)

    def becomes(self, phase: Phase, now: float) -> None:
        """It is in ``phase`` from now on."""
        self.phase, self.since = phase, now


def unpack(body: bytes) -> bytes:
    """The submission that was kept as ``body``."""
    return zlib.decompress(body) if body else b""


@dataclass(frozen=True, slots=True)
class Ended:
    """What is remembered of a prompt that has ended, or was withdrawn, at the time ``at``; it was ``created``
    as `Prompt` says."""

    backend: Backend
    client_id: str
    owner: str
    at: float
    created: int = 0


class Ledger:
    """The prompts of one pool, by their id; those that ended too, as long as there is room."""

    def __init__(self, max_bodies: int = MAX_BODIES, max_ended: int = MAX_ENDED) -> None:
        self._active: dict[str, Prompt] = {}
        self._by_backend: dict[Backend, dict[str, Prompt]] = {}
        self._by_client: dict[str, dict[str, Prompt]] = {}
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._doubts: OrderedDict[tuple[str, Backend], None] = OrderedDict()
        self._bodies = 0
        self._max_bodies = max_bodies
        self._max_ended = max_ended

    def __len__(self) -> int:
        """Prompts that have not ended."""
        return len(self._active)

    def __iter__(self) -> Iterator[Prompt]:
        """The prompts that have not ended, in the order in which they came."""
        return iter(tuple(self._active.values()))

    def get(self, prompt_id: str) -> Prompt | None:
        """The prompt of that id if it has not ended."""
        return self._active.get(prompt_id)

    def ended(self, prompt_id: str) -> Ended | None:
        """What is remembered of the prompt of that id if it has ended or was withdrawn."""
        return self._ended.get(prompt_id)

    def backend_of(self, prompt_id: str) -> Backend | None:
        """Where the prompt of that id is, or was when it ended."""
        known = self._active.get(prompt_id) or self._ended.get(prompt_id)
        return None if known is None else known.backend

    def created(self, prompt_id: str) -> int:
        """When the prompt of that id was created, in milliseconds since the epoch; 0 if that is not known."""
        known = self._active.get(prompt_id) or self._ended.get(prompt_id)
        return 0 if known is None else known.created

    def on(self, backend: Backend) -> tuple[Prompt, ...]:
        """The prompts that are on ``backend`` or on their way there."""
        return tuple(self._by_backend.get(backend, {}).values())

    def of(self, client_id: str) -> tuple[Prompt, ...]:
        """The prompts that were submitted under ``client_id``."""
        return tuple(self._by_client.get(client_id, {}).values())

    def count(self, client_id: str) -> int:
        """How many they are."""
        return len(self._by_client.get(client_id, ()))

    def queued_on(self, backend: Backend) -> int:
        """How many prompts ``backend`` should have in its queue, what runs included."""
        return sum(prompt.is_queued for prompt in self._by_backend.get(backend, {}).values())

    def between_servers(self) -> int:
        """How many prompts a server has had and none has now."""
        return sum(prompt.is_listed and prompt.phase is Phase.SENDING for prompt in self._active.values())

    def add(self, prompt: Prompt, submission: bytes) -> None:
        """Remember ``prompt``, and what it was submitted with."""
        former = self._active.get(prompt.prompt_id)
        if former is not None:
            self.drop(former)
        self._ended.pop(prompt.prompt_id, None)
        self._doubts.pop((prompt.prompt_id, prompt.backend), None)
        self._active[prompt.prompt_id] = prompt
        self._by_backend.setdefault(prompt.backend, {})[prompt.prompt_id] = prompt
        self._by_client.setdefault(prompt.client_id, {})[prompt.prompt_id] = prompt
        prompt.body = zlib.compress(submission, _LEVEL)
        self._bodies += len(prompt.body)

    def settle(self, prompt: Prompt) -> None:
        """``prompt`` is in the queue of its server: if there is no room, its submission is forgotten."""
        if self._bodies > self._max_bodies:
            self._bodies -= len(prompt.body)
            prompt.body = b""

    def assign(self, prompt: Prompt, backend: Backend) -> None:
        """``prompt`` is on ``backend`` now, or on its way there."""
        self._doubts.pop((prompt.prompt_id, backend), None)
        if prompt.backend is not backend:
            self._leave(self._by_backend, prompt.backend, prompt)
            prompt.backend = backend
            self._by_backend.setdefault(backend, {})[prompt.prompt_id] = prompt

    def end(self, prompt: Prompt, now: float) -> None:
        """``prompt`` is over; whose it was is remembered."""
        if self.drop(prompt):
            ended = Ended(prompt.backend, prompt.client_id, prompt.owner, now, prompt.created)
            self._remember(prompt.prompt_id, ended)

    def drop(self, prompt: Prompt) -> bool:
        """Forget ``prompt``: it never came to be, or another took its place; whether it was known."""
        if self._active.get(prompt.prompt_id) is not prompt:
            return False
        del self._active[prompt.prompt_id]
        self._leave(self._by_backend, prompt.backend, prompt)
        self._leave(self._by_client, prompt.client_id, prompt)
        self._bodies -= len(prompt.body)
        prompt.body, prompt.phase = b"", Phase.ENDED
        return True

    def doubt(self, prompt: Prompt, backend: Backend) -> None:
        """``backend`` may have ``prompt``, or get it yet, though it is given to another: not to run it."""
        self._doubts[prompt.prompt_id, backend] = None
        if len(self._doubts) > MAX_DOUBTS:
            self._doubts.popitem(last=False)

    def is_doubted(self, prompt_id: str, backend: Backend) -> bool:
        """Whether that is so."""
        return (prompt_id, backend) in self._doubts

    def _remember(self, prompt_id: str, ended: Ended) -> None:
        self._ended.pop(prompt_id, None)
        self._ended[prompt_id] = ended
        while len(self._ended) > self._max_ended:
            self._ended.popitem(last=False)

    def _leave(self, index: dict[Key, dict[str, Prompt]], key: Key, prompt: Prompt) -> None:
        group = index[key]
        del group[prompt.prompt_id]
        if not group:
            del index[key]
