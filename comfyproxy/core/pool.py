"""A named set of backends in a stable order; the owner of their identity over reloads."""

from collections.abc import Iterable

from comfyproxy.core.addresses import Address
from comfyproxy.core.backend import Backend
from comfyproxy.core.changes import Changes, diff


class Pool:
    """The backends of one name; ``verify`` says whether ``https`` needs a good certificate.

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
        former = self._by_key
        former.update((key, backend) for key, backend in self._removed.items() if backend.leases)
        self._by_key = {}
        for index, address in enumerate(changes.wanted):
            key = address.key
            backend = former.pop(key, None) or Backend(address, verify=self.verify)
            backend.address = address
            backend.index = index
            backend.removed = False
            backend.usable = True
            backend.weight = float(address.weight)
            self._by_key[key] = backend
        for backend in former.values():
            backend.removed = True
            backend.usable = False
        self._removed = former
        self.backends = tuple(self._by_key.values())
        self._forget_idle()

    def _forget_idle(self) -> None:
        self._removed = {key: backend for key, backend in self._removed.items() if backend.leases}
        everyone = (*self.backends, *self._removed.values())
        self._by_fingerprint = {backend.fingerprint: backend for backend in everyone}
