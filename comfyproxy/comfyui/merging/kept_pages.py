"""What each server said of its jobs, until something changes there.

In a large pool something changes somewhere all the time, and then only that server has to be asked again.
"""

from collections.abc import Callable

from comfyproxy.comfyui.merging.jobs import JobsPage
from comfyproxy.core.balancing.backend import Backend

WATCHED_LIFETIME = 5.0
"""Seconds that a page counts of a server whose events are heard: only what other clients delete from its
history goes without one."""

LIFETIME = 0.5
"""Seconds that a page of any other server counts."""

MAX_ROWS = 1024
MAX_PAGES = 8
"""Jobs of a page that is kept, and pages that are kept of a server, at most."""


class KeptPages:
    """The latest pages; ``is_watched`` says of a server whether its events are heard."""

    def __init__(self, is_watched: Callable[[Backend], bool]) -> None:
        self._is_watched = is_watched
        self._pages: dict[Backend, dict[bytes, tuple[float, JobsPage]]] = {}
        self._versions: dict[Backend, int] = {}
        self._version = 0

    def changed(self, backend: Backend | None = None) -> None:
        """``backend``, or any of them, may have other jobs than before."""
        if backend is None:
            self._pages.clear()
            self._versions.clear()
            self._version += 1
        else:
            self._pages.pop(backend, None)
            self._versions[backend] = self._versions.get(backend, 0) + 1

    def version(self, backend: Backend) -> tuple[int, int]:
        """Another one after each change of ``backend``."""
        return self._version, self._versions.get(backend, 0)

    def get(self, backend: Backend, target: bytes, now: float) -> JobsPage | None:
        """What ``backend`` answered to ``target``, if that still counts."""
        asked, page = self._pages.get(backend, {}).get(target, (0.0, None))
        lifetime = WATCHED_LIFETIME if self._is_watched(backend) else LIFETIME
        return page if page is not None and now - asked < lifetime else None

    def put(self, page: JobsPage, target: bytes, version: tuple[int, int], now: float) -> None:
        """Keep ``page``; its server was asked for ``target`` at the time ``now``, when `version` was that."""
        if version != self.version(page.backend) or not page.is_whole or len(page.jobs) > MAX_ROWS:
            return
        pages = self._pages.setdefault(page.backend, {})
        pages.pop(target, None)
        pages[target] = (now, page)
        if len(pages) > MAX_PAGES:
            del pages[next(iter(pages))]

    def keep_only(self, backends: set[Backend]) -> None:
        """Forget the servers that are not among ``backends``."""
        for gone in self._pages.keys() - backends:
            del self._pages[gone]
        if self._versions.keys() - backends:
            self.changed()
