"""Sticky clients of any HTTP service: a cookie tells which backend a client has."""

from collections.abc import Hashable
from functools import lru_cache

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import Decision, Default, Pin, Rewrite
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.http1 import RequestHead, ResponseHead

_ANY = Default()
_NOTHING: frozenset[bytes] = frozenset()


class StickyRouter:
    """A client stays with the backend that its cookie names, as with HAProxy's ``cookie insert indirect``.

    Who has no such cookie gets one with the answer, by TLS with ``Secure``. It is replaced when its backend
    is gone, down or in maintenance, or cannot be reached: then another one takes over. A backend that is to
    drain keeps its clients; for one that is full they wait. Backends never see the cookie.
    """

    drop = _NOTHING

    def __init__(self, pool: Pool, cookie: BackendCookie) -> None:
        self._pool = pool
        self._cookie = cookie
        self._given = lru_cache(1024)(self._give)

    def route(self, head: RequestHead, body: bytes | None, now: float) -> Decision:
        """The backend of the cookie while that takes its clients, else any."""
        home = self._home(head)
        return _ANY if home is None else Pin(home)

    def place(self, head: RequestHead, body: bytes | None, backend: Backend, now: float) -> Rewrite | None:
        """Give the client its cookie, unless it has it."""
        return None if self._home(head) is backend else self._given(backend)

    def _home(self, head: RequestHead) -> Backend | None:
        """The first backend that its cookies name and that still takes its clients."""
        for fingerprint in self._cookie.fingerprints(head.notable.get(b"cookie")):
            backend = self._pool.find(fingerprint)
            if backend is not None and backend.takes_pins and not backend.removed:
                return backend
        return None

    def _give(self, backend: Backend) -> Rewrite:
        return Rewrite(
            answer_fields=b"%b\r\n" % self._cookie.line(backend),
            tls_fields=b"%b\r\n" % self._cookie.line(backend, secure=True),
        )

    def learn(self, answer: ResponseHead, body: bytes, backend: Backend, now: float) -> None:
        """Nothing is to be learnt."""

    def message_key(self, payload: bytes, is_binary: bool) -> Hashable | None:
        """Every message is to be delivered."""
        return None

    def cookies(self, value: bytes) -> bytes:
        """A ``Cookie`` value without the one that is the proxy's own."""
        return self._cookie.without(value)
