"""A named set of backends in a stable order; the owner of their identity over reloads."""

from collections.abc import Iterable

from comfyproxy.core.addresses import Address
from comfyproxy.core.backend import Backend
from comfyproxy.core.changes import Changes, diff


class Pool:
    """The backends of one name; ``verify`` is whether those reached by ``https`` must have a good certificate.

    A backend that a reload removes keeps serving the clients that are on it (their WebSocket, and requests
    that need the files and the queue it holds) until its last lease ends; then it is forgotten. If a
    later reload names it again before that, it is the same object.
    """

    __slots__ = ("_by_fingerprint", "_by_key", "_removed", "backends", "name", "verify")

    def __init__(self, name: str, addresses: Iterable[Address] = (), *, verify: bool = True) -> None:
        self.name = name
        self.verify = verify
        self.backends: tuple[Backend, ...] = ()
        self._by_key: dict[str, Backend] = {}
        self._by_fingerprint: dict[str, Backend] = {}
        self._removed: dict[str, Backend] = {}
        self.apply(diff((), addresses))

    def __len__(self) -> int:
        return len(self.backends)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses now in force, in order."""
        return tuple(backend.address for backend in self.backends)

    @property
    def removed(self) -> tuple[Backend, ...]:
        """Backends that a reload took out and that still have work in flight."""
        self._forget_idle()
        return tuple(self._removed.values())

    def find(self, fingerprint: str) -> Backend | None:
        """The backend of that fingerprint, a removed one too while it still has work in flight."""
        backend = self._by_fingerprint.get(fingerprint)
        if backend is not None and backend.removed and not backend.leases:
            self._forget_idle()
            return None
        return backend

    def holds(self, backend: Backend) -> bool:
        """Whether ``backend`` may still be asked: it is in the pool, or removed with work in flight."""
        return not backend.removed or backend.leases > 0

    def apply(self, changes: Changes) -> None:
        """Become what ``changes`` wants; survivors keep their state."""
        backends = []
        for index, address in enumerate(changes.wanted):
            backend = self._by_key.get(address.key) or self._removed.pop(address.key, None)
            if backend is None:
                backend = Backend(address, verify=self.verify)
            backend.address = address
            backend.index = index
            backend.removed = False
            backends.append(backend)
        for address in changes.removed:
            gone = self._by_key[address.key]
            gone.removed = True
            self._removed[address.key] = gone
        self.backends = tuple(backends)
        self._by_key = {backend.address.key: backend for backend in backends}
        self._forget_idle()

    def _forget_idle(self) -> None:
        self._removed = {key: backend for key, backend in self._removed.items() if backend.leases}
        everyone = (*self.backends, *self._removed.values())
        self._by_fingerprint = {backend.fingerprint: backend for backend in everyone}
