"""Which backend a client or a prompt belongs to."""

from collections import OrderedDict

from comfyproxy.comfyui.identity import fingerprint_in
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.pool import Pool

MAX_ENTRIES = 100_000
"""Ten backends' histories of 10,000 entries each (``MAXIMUM_HISTORY_SIZE`` in ComfyUI's ``execution.py``)."""

TIME_TO_LIVE = 7 * 24 * 3600.0
"""Seconds since the last use: a page left open over a weekend still finds its backend."""


class AffinityTable:
    """Remembers where ids belong; forgets those not used for ``ttl`` seconds, and the oldest beyond ``size``.

    It is a cache in front of what the ids say themselves. One that carries the fingerprint of the backend
    it belongs to takes no room here. What does: ids that clients made up, and minted ones whose backend
    failed, so that another took over.
    """

    __slots__ = ("_entries", "_pool", "_size", "_ttl")

    def __init__(self, pool: Pool, size: int = MAX_ENTRIES, ttl: float = TIME_TO_LIVE) -> None:
        self._pool = pool
        self._size = size
        self._ttl = ttl
        # Kept in the order of last use, so the oldest entry is always the first to expire.
        self._entries: OrderedDict[str, tuple[Backend, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, identifier: str, now: float) -> Backend | None:
        """The backend that ``identifier`` was bound to, else the one it names, if the pool still holds it."""
        entry = self._entries.get(identifier)
        if entry is not None:
            backend, used = entry
            if now - used < self._ttl and self._pool.holds(backend):
                self._note(identifier, backend, now)
                return backend
            del self._entries[identifier]
        fingerprint = fingerprint_in(identifier)
        return None if fingerprint is None else self._pool.find(fingerprint)

    def bind(self, identifier: str, backend: Backend, now: float) -> None:
        """From now on ``identifier`` belongs to ``backend``."""
        if fingerprint_in(identifier) == backend.fingerprint:
            self._entries.pop(identifier, None)
            return
        self._note(identifier, backend, now)
        while len(self._entries) > self._size or self._oldest() <= now - self._ttl:
            self._entries.popitem(last=False)

    def _note(self, identifier: str, backend: Backend, now: float) -> None:
        self._entries[identifier] = (backend, now)
        self._entries.move_to_end(identifier)

    def _oldest(self) -> float:
        return next(iter(self._entries.values()))[1]
