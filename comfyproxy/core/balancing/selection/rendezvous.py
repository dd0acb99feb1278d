"""Rendezvous hashing: a key stays with its backend, and only 1/N of the keys move when a backend goes."""

from array import array
from collections.abc import Collection, Sequence
from heapq import nlargest
from math import log
from zlib import crc32

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.policy import Selection
from comfyproxy.core.balancing.selection.round_robin import RoundRobin

SLOTS = 1 << 18
"""Keys are divided into so many slots. It is the same for every pool, else a growing pool would move all."""

FIRST_RANKS = 8
MAX_RANKS = 1 << 20
"""How many ranks behind the first are remembered in all, some 40 MB."""

_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15


class Rendezvous(Selection):
    """The backend whose hash with the key is the highest; the next highest where that one is unavailable.

    It depends on the addresses and their weights alone, so every process with the same pool and every start
    finds the same backend (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998;
    the weighted form is in Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005: the
    logarithm of the hash, divided by the weight, is compared).

    Hashing is per slot, of which there are `SLOTS`, and what was found is remembered until the pool changes:
    the first request of a slot costs O(n), all others O(1). Slow start counts for nothing here, as in nginx,
    since a key must not wander. A request without the key takes its turn in a round robin.
    """

    __slots__ = (
        "_backends",
        "_hashes",
        "_identity",
        "_ranks",
        "_remembered",
        "_rotation",
        "_tops",
        "_weights",
    )

    def __init__(self, backends: Sequence[Backend] = ()) -> None:
        self._rotation = RoundRobin()
        self._identity: list[tuple[Backend, int]] = []
        self._tops = array("i")
        self.use(backends)

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on."""
        self._rotation.use(backends)
        self.watches = self._rotation.watches
        self._backends = backends
        identity = [(backend, backend.address.weight) for backend in backends]
        if identity == self._identity and self._tops:
            return
        self._identity = identity
        self._hashes = [_mixed(int(backend.fingerprint, 16)) for backend in backends]
        self._weights = [weight for _, weight in identity] if len({w for _, w in identity}) > 1 else []
        self._tops = array("i", [-1]) * SLOTS
        self._ranks: dict[int, list[int]] = {}
        self._remembered = 0

    def pick(self, key: bytes | None = None, tried: Collection[Backend] = ()) -> Backend | None:
        """The backend of ``key``."""
        if key is None or not self._backends:
            return self._rotation.pick(None, tried)
        slot = crc32(key) % SLOTS
        place = self._tops[slot]
        if place < 0:
            place = self._tops[slot] = self._top(slot)
        backend = self._backends[place]
        return backend if backend.is_available and backend not in tried else self._next(slot, tried)

    def taken(self, backend: Backend) -> None:
        """For those without a key."""
        self._rotation.taken(backend)

    def update(self, backend: Backend) -> None:
        """For those without a key."""
        self._rotation.update(backend)

    def _next(self, slot: int, tried: Collection[Backend]) -> Backend | None:
        """The available backend of the highest rank behind the first."""
        count = FIRST_RANKS
        while True:
            ranks = self._ranked(slot, count)
            for place in ranks:
                backend = self._backends[place]
                if backend.is_available and backend not in tried:
                    return backend
            # Before it ranks all of a large pool it makes sure that there is somebody to find.
            if len(ranks) == len(self._backends) or self._rotation.pick(None, tried) is None:
                return None
            count *= FIRST_RANKS

    def _ranked(self, slot: int, count: int) -> list[int]:
        """The first ``count`` places for ``slot``, the highest rank first."""
        ranks = self._ranks.get(slot)
        if ranks is None or len(ranks) < min(count, len(self._backends)):
            scores = self._scores(slot)
            ranks = nlargest(count, range(len(scores)), key=scores.__getitem__)
            if self._remembered > MAX_RANKS:
                self._ranks.clear()
                self._remembered = 0
            self._ranks[slot] = ranks
            self._remembered += len(ranks)
        return ranks

    def _top(self, slot: int) -> int:
        scores = self._scores(slot)
        return scores.index(max(scores))

    def _scores(self, slot: int) -> Sequence[float]:
        seed, mask, odd = _mixed(slot), _MASK, _ODD
        hashes = [((one ^ seed) * odd) & mask for one in self._hashes]
        if not self._weights:
            return hashes
        return [
            log((one + 1) / (mask + 1)) / weight for one, weight in zip(hashes, self._weights, strict=True)
        ]


def _mixed(number: int) -> int:
    """64 bits that all depend on all bits of ``number`` (the finalizer of SplitMix64)."""
    number = (number * _ODD + _ODD) & _MASK
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & _MASK
    return number ^ number >> 31
