"""What a router may say of a request, as values.

A router knows an application (`comfyproxy.comfyui.router` knows ComfyUI). It sees the head, and the
body only if it asks for it; it performs nothing itself.
"""

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Operation, Session
from comfyproxy.core.http.http1 import RequestHead, ResponseHead


@dataclass(frozen=True, slots=True)
class Default:
    """Any backend will do: the pool's policy chooses."""


@dataclass(frozen=True, slots=True)
class Pin:
    """This backend has what the request is about.

    ``strict`` says that no other will do: if it cannot be reached the request fails. Otherwise another one
    takes over.
    """

    backend: Backend
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """Some backend has what a GET or HEAD asks for: each is asked in turn until one answers other than
    404."""


@dataclass(frozen=True, slots=True)
class NeedBody:
    """Ask again with the whole body; one larger than ``limit`` octets is refused with 413."""

    limit: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer this status with this sentence; no backend sees the request."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Operate:
    """Carry out ``operation`` and go by the decision that it returns.

    It is closed when the client leaves, unless it ``outlasts`` the client: then it goes on, and only what it
    decides is not wanted any more (a prompt that was sent whole is queued, whether its sender waits or not).
    """

    operation: Operation
    outlasts: bool = False


@dataclass(frozen=True, slots=True)
class Respond:
    """This is the answer. ``fields`` are field lines beside ``Content-Type`` and ``Content-Length``, each
    with its CRLF; ``backend`` is who has done the work, for the log, if one has."""

    status: int
    body: bytes
    content_type: bytes = b"application/json; charset=utf-8"
    fields: bytes = b""
    backend: Backend | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """Accept the WebSocket here and let ``session`` have it. ``fields`` are field lines for the 101."""

    session: Session
    fields: bytes = b""


Decision = Default | Pin | Search | NeedBody | Refuse | Operate | Respond | Join


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What is different about a request once its backend is known, and about the answer to it.

    ``None`` leaves the target or the body as it is. ``answer_fields`` are field lines, each with its CRLF,
    added to the answer; ``tls_fields``, if there are any, stand in their place where the client asks by TLS.
    An answer of up to ``watch`` octets is shown to the router as it passes (`Router.learn`).
    """

    target: bytes | None = None
    body: bytes | None = None
    answer_fields: bytes = b""
    watch: int = 0
    tls_fields: bytes = b""


class Router(Protocol):
    """Places requests of one application on the backends of one pool."""

    drop: frozenset[bytes]
    """Lower-case names of request fields that the application's backends must not see."""

    def route(self, head: RequestHead, body: bytes | None, now: float) -> Decision:
        """Where this request belongs; ``body`` is ``None`` until it was asked for, ``now`` is in seconds."""

    def place(self, head: RequestHead, body: bytes | None, backend: Backend, now: float) -> Rewrite | None:
        """Note that the request goes to ``backend`` and say what is to change; called again on a retry."""

    def learn(self, answer: ResponseHead, body: bytes, backend: Backend, now: float) -> None:
        """A complete answer that it asked to watch; ``body`` is in the content coding that ``answer``
        says."""

    def message_key(self, payload: bytes, is_binary: bool) -> Hashable | None:
        """Under which key a newer WebSocket message of a backend may replace this one while both wait for
        a slow client; ``None`` if this one must be delivered."""

    def cookies(self, value: bytes) -> bytes:
        """A ``Cookie`` value without what is the proxy's own; empty if nothing is left."""


@runtime_checkable
class WorkingRouter(Router, Protocol):
    """A router that has work of its own beside requests."""

    @property
    def sessions(self) -> Collection[Session]:
        """Those whose connections to backends are to be kept."""

    wake: Callable[[], None]
    """Whoever carries its work out sets this: calling it has `background` asked in the next turn, once
    however often it is called."""

    def background(self, now: float) -> Iterable[Operation]:
        """The operations to begin now, each of which returns ``None``; asked for a few times a second."""

    @property
    def in_hand(self) -> int:
        """How many things no backend has at the moment: they would be lost if the router ended now."""

    def settle(self, now: float) -> Iterable[Operation]:
        """As `background`, of a router that is to end: what brings to backends all that is ``in_hand``."""
