"""The proxy's own WebSocket to each server: how long the queues are, and how prompts without a client fare.

ComfyUI tells every WebSocket of its server how many prompts are left (``status``), and of a prompt's course
the WebSocket of its client alone. A prompt that was submitted without a client would tell of its start and
its end to nobody, so it is submitted under this observer's client id.
"""

from collections.abc import Callable, Collection
from typing import Protocol

from comfyproxy.comfyui.wire import Document, read_object
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Client


class Listener(Protocol):
    """Who wants to know what an `Observer` hears."""

    def heard(self, backend: Backend, document: Document, now: float) -> None:
        """``backend`` sent an event."""

    def connected(self, backend: Backend, now: float) -> None:
        """``backend`` knows the observer, and says how long its queue is."""

    def disconnected(self, backend: Backend, now: float) -> None:
        """The connection to ``backend`` is gone, or could not be had."""


class Observer:
    """A `Session` that no client ever has; ``wanted`` says which servers it is to be connected with."""

    def __init__(self, client_id: str, wanted: Callable[[], Collection[Backend]], listener: Listener) -> None:
        self.client_id = client_id
        self._wanted = wanted
        self._listener = listener
        self._greeted: set[Backend] = set()

    @property
    def wanted(self) -> Collection[Backend]:
        """All servers that are worth a connection."""
        return self._wanted()

    def attach(self, client: Client, now: float) -> None:
        """Nobody may be the observer."""
        client.close(1008, b"This client id is the proxy's own.")

    def detach(self, client: Client, now: float) -> None:
        """It was nobody."""

    def from_client(self, client: Client, payload: bytes, is_binary: bool, now: float) -> None:
        """Nobody may speak for the observer."""

    def opened(self, backend: Backend, send: Callable[[bytes, bool], None], now: float) -> None:
        """The first ``status`` is still to come."""
        self._greeted.discard(backend)

    def from_backend(self, backend: Backend, payload: bytes, is_binary: bool, now: float) -> None:
        """Tell the listener; pictures are for clients."""
        document = None if is_binary else read_object(payload)
        if document is None:
            return
        if backend not in self._greeted and document.get("type") == "status":
            self._greeted.add(backend)
            self._listener.connected(backend, now)
        self._listener.heard(backend, document, now)

    def lost(self, backend: Backend, why: str, now: float) -> None:
        """Tell the listener."""
        self._greeted.discard(backend)
        self._listener.disconnected(backend, now)

    def is_greeted(self, backend: Backend) -> bool:
        """Whether ``backend`` knows the observer."""
        return backend in self._greeted

    def due(self, now: float) -> None:
        """Nothing is ever due."""

    def is_over(self, now: float) -> bool:
        """It lives as long as the pool."""
        return False
