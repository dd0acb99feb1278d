"""What a router may do before it decides: the steps of an operation, as values.

An **operation** is a generator. It yields a `Step`, is sent what came of it, and returns when it is done; it
performs nothing itself, so a test drives it by hand and `comfyproxy.proxy.operations` with real connections.
Closing it (`generator.close`) is how it learns that nobody waits for it any more.

    reply = yield Ask(backend, b"GET", b"/queue")
    replies = yield tuple(Ask(backend, b"GET", b"/queue") for backend in backends)    # all at once
"""

from collections.abc import Callable, Collection, Generator, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.http.http1 import ResponseHead

MAX_REPLY = 64 * 1024 * 1024
"""Octets of a reply that an operation may ask for at most unless it says otherwise."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of the proxy's own to one backend; what comes of it is a `Reply`.

    ``fields`` are field lines, each with its CRLF, beside ``Host`` and ``Content-Length``. ``limit`` is in
    octets of the reply's body, ``timeout`` in seconds for all of it.
    """

    backend: Backend
    method: bytes
    target: bytes
    body: bytes = b""
    content_type: bytes = b"application/json"
    fields: bytes = b""
    limit: int = MAX_REPLY
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of an `Ask`: an answer with its whole body, or none.

    ``head`` is ``None`` where there was no complete answer; then ``why`` says in a few words what happened,
    ``was_sent`` whether the backend may have seen the request, and ``was_too_long`` whether there was an
    answer, but longer than the `Ask` allows.
    """

    backend: Backend
    head: ResponseHead | None = None
    body: bytes = b""
    why: str = ""
    was_sent: bool = True
    was_too_long: bool = False

    @property
    def status(self) -> int:
        """The answer's status; 0 if there was no answer."""
        return 0 if self.head is None else self.head.status


class Session(Protocol):
    """One client's WebSocket, made of those that the backends have for it.

    It decides; `comfyproxy.proxy.sessions` owns the connections and tells it what comes over them. Whatever
    it wants to send, it hands to the functions that it was given.
    """

    @property
    def client_id(self) -> str:
        """By which the backends know the client."""

    @property
    def wanted(self) -> Collection[Backend]:
        """The backends to which there should be a connection for this client now."""

    def attach(self, client: "Client", now: float) -> None:
        """A WebSocket of the client is open. It takes the place of one that is open already."""

    def detach(self, client: "Client", now: float) -> None:
        """That WebSocket is gone."""

    def from_client(self, client: "Client", payload: bytes, is_binary: bool, now: float) -> None:
        """The client sent a message."""

    def opened(self, backend: Backend, send: Callable[[bytes, bool], None], now: float) -> None:
        """The connection to ``backend`` is open; ``send`` sends it a message (payload, is binary)."""

    def from_backend(self, backend: Backend, payload: bytes, is_binary: bool, now: float) -> None:
        """``backend`` sent a message."""

    def lost(self, backend: Backend, why: str, now: float) -> None:
        """The connection to ``backend`` is gone, or could not be had; it is tried again while wanted."""

    def is_greeted(self, backend: Backend) -> bool:
        """Whether ``backend`` knows the client: its first ``status`` has come over the present connection."""

    def due(self, now: float) -> None:
        """Time has passed: called a few times a second."""

    def is_over(self, now: float) -> bool:
        """Whether nothing needs this session any more; its connections are closed then."""


class Client(Protocol):
    """The client's end of a `Session`."""

    def send(self, payload: bytes, is_binary: bool, key: Hashable | None = None) -> None:
        """Send a message; one that still waits under the same ``key`` gives way to it."""

    def close(self, code: int, reason: bytes) -> None:
        """Say goodbye."""


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Have ``backend`` know the client of ``session``; what comes of it is a `bool`: whether it does."""

    session: Session
    backend: Backend
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class AskAddress:
    """The address that the request of this operation is believed to come from, as `bytes`."""


class Latch:
    """Shut until it is opened: for operations that wait until another one has done something for them all."""

    __slots__ = ("_waiting", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._waiting: dict[object, Callable[[], None]] = {}

    def open(self) -> None:
        """Let those go on who wait, and wait no more."""
        self.is_open = True
        waiting, self._waiting = self._waiting, {}
        for go_on in waiting.values():
            go_on()

    def wait(self, go_on: Callable[[], None]) -> Callable[[], None]:
        """Have ``go_on`` called once it is open, which may be now; returns what calls that off."""
        place = object()
        if self.is_open:
            go_on()
        else:
            self._waiting[place] = go_on
        return lambda: self._leave(place)

    def _leave(self, place: object) -> None:
        self._waiting.pop(place, None)


@dataclass(frozen=True, slots=True)
class Wait:
    """Until ``latch`` is open; what comes of it is ``None``.

    Whoever waits must not have shut a latch itself: two such operations might wait for each other.
    """

    latch: Latch


Step = Ask | OpenSocket | AskAddress | Wait | tuple["Step", ...]
"""A tuple is done all at once; what comes of it is the tuple of what came of each."""

Operation = Generator[Step, Any, Any]
