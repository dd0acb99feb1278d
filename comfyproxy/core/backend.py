"""One server that requests are sent to, and the leases that count its work."""

from hashlib import blake2b

from comfyproxy.core.addresses import Address


class Backend:
    """One server of a pool: its address (identity) and what is known of it (state).

    A reload gives a surviving backend a new `address` (its weight or name may have changed) and keeps the
    object, so its state and its connections stay. ``index`` is its place in the pool, from 0. ``leases`` is
    the work in flight. ``verify`` says whether its certificate must be good (``https``). ``removed`` says
    that a reload took it out: it gets no new clients and lives until its last lease ends.
    """

    __slots__ = ("address", "authority", "fingerprint", "index", "leases", "removed", "url", "verify")

    def __init__(self, address: Address, index: int = 0, *, verify: bool = True) -> None:
        self.address = address
        self.url = address.url
        self.authority = address.authority.encode("ascii")
        self.fingerprint = fingerprint(address)
        self.index = index
        self.leases = 0
        self.removed = False
        self.verify = verify

    @property
    def is_full(self) -> bool:
        """Whether it has as much in flight as ``max_conns`` lets it (0 is no limit)."""
        return 0 < self.address.max_conns <= self.leases

    @property
    def is_available(self) -> bool:
        """Whether it may take work that could as well go elsewhere."""
        return not self.removed and not self.is_full

    def __repr__(self) -> str:
        return f"<Backend {self.url} leases={self.leases}{' removed' if self.removed else ''}>"


class Lease:
    """One unit of work in flight on a backend; `release` is the only way the count goes down."""

    __slots__ = ("_held", "backend")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._held = True
        backend.leases += 1

    def release(self) -> None:
        """Give the unit back; a second call does nothing."""
        if self._held:
            self._held = False
            self.backend.leases -= 1


def fingerprint(address: Address) -> str:
    """Twelve hexadecimal digits that name a backend in cookies and minted ids.

    They depend on the URL alone, so every process with the same pool reads them alike, and they do not
    show the address to clients.
    """
    return blake2b(address.key.encode(), digest_size=6).hexdigest()
