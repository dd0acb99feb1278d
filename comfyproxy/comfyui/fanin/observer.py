"""The session of prompts that nobody watches: it hears their events for the proxy alone."""

from comfyproxy.comfyui.fanin.upstreams import Upstreams
from comfyproxy.comfyui.wire import read_object
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Client


class ObserverSession(Upstreams):
    """A session without a client, for the prompts that were submitted without a client id.

    It is never over. A client that claims its id is turned away.
    """

    def attach(self, client: Client, now: float) -> None:
        """Nobody is shown what an observer sees."""
        client.close(1008, b"This client id is the proxy's own.")

    def detach(self, client: Client, now: float) -> None:
        """Nothing to do."""

    def from_client(self, client: Client, payload: bytes, is_binary: bool, now: float) -> None:
        """Nobody to hear."""

    def from_backend(self, backend: Backend, payload: bytes, is_binary: bool, now: float) -> None:
        """Note it."""
        document = None if is_binary else read_object(payload)
        if document is not None:
            if document.get("type") == "status":
                self._status_came(backend, now)
            self._note(backend, document)

    def is_over(self, now: float) -> bool:
        """Never."""
        return False
