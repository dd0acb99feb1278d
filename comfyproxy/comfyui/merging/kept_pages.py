"""What each server said of its jobs or its queue, until something changes there.

In a large pool something changes somewhere all the time, and then only that server has to be asked again.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from comfyproxy.core.balancing.backend import Backend

WATCHED_LIFETIME = 5.0
"""Seconds that a page counts of a server whose events are heard: only what other clients delete from its
history goes without one."""

LIFETIME = 0.5
"""Seconds that a page of any other server counts."""

Version = tuple[int, int]


class Page(Protocol):
    """What one server answered; ``size`` is the room that it takes.

    Where it is not ``is_whole``, the server has more that belongs there, and the page is not kept.
    """

    @property
    def backend(self) -> Backend:
        """Whose it is."""

    @property
    def is_whole(self) -> bool:
        """Whether it is all there is."""

    @property
    def size(self) -> int:
        """More than 0."""


P = TypeVar("P", bound=Page)


class KeptPages(Generic[P]):
    """The latest pages, of ``max_size`` in all.

    ``is_watched`` says of a server whether its events are heard.
    """

    def __init__(self, is_watched: Callable[[Backend], bool], max_size: int) -> None:
        self._is_watched = is_watched
        self._pages: OrderedDict[tuple[Backend, bytes], tuple[Version, float, P]] = OrderedDict()
        self._left = max_size
        self._versions: dict[Backend, int] = {}
        self._version = 0

    def changed(self, backend: Backend | None = None) -> None:
        """``backend``, or any of them, may have other jobs than before."""
        if backend is None:
            self._version += 1
        else:
            self._versions[backend] = self._versions.get(backend, 0) + 1

    def version(self, backend: Backend) -> Version:
        """Another one after each change of ``backend``."""
        return self._version, self._versions.get(backend, 0)

    def get(self, backend: Backend, target: bytes, now: float) -> P | None:
        """What ``backend`` answered to ``target``, if that still counts."""
        kept = self._pages.get((backend, target))
        if kept is None:
            return None
        version, asked, page = kept
        lifetime = WATCHED_LIFETIME if self._is_watched(backend) else LIFETIME
        return page if version == self.version(backend) and now - asked < lifetime else None

    def former(self, backend: Backend, target: bytes) -> P | None:
        """What ``backend`` answered to ``target`` the last time, whether it still counts or not."""
        kept = self._pages.get((backend, target))
        return None if kept is None else kept[2]

    def put(self, page: P, target: bytes, version: Version, now: float) -> None:
        """Keep ``page``; its server was asked for ``target`` at the time ``now``, when `version` was that."""
        key = page.backend, target
        if key in self._pages:
            self._drop(key)
        if page.is_whole:
            self._pages[key] = version, now, page
            self._left -= page.size
            while self._left < 0:
                self._drop(next(iter(self._pages)))

    def keep_only(self, backends: frozenset[Backend]) -> None:
        """Forget the servers that are not among ``backends``."""
        for key in [key for key in self._pages if key[0] not in backends]:
            self._drop(key)
        if self._versions.keys() - backends:
            self._versions.clear()
            self._version += 1

    def _drop(self, key: tuple[Backend, bytes]) -> None:
        _, _, page = self._pages.pop(key)
        self._left += page.size
