"""Where the pool keeps what belongs to its users: settings, saved workflows and other files, the users.

Each ComfyUI keeps them in a folder of its own (``app/app_settings.py``, ``app/user_manager.py``), and writes
settings by reading all of them, so two servers that both take writes would soon say different things. One
server is therefore the **home** of all that, and of uploads, which it gives names as one ComfyUI would: a
second ``u.png`` of other content becomes ``u (1).png``.

While the home is down what is read comes from another server, and what is written is refused with 503: it
would be gone when the home is back.
"""

from functools import lru_cache

from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import Decision, Default, Pin, Refuse
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.errors import ConfigError

_READS = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_ANY = Default()


class Home:
    """The home of the user state of ``pool``.

    It is ``server``, the name, URL, or host and port of one of its servers; without one the first server
    that an operator has not taken out of use, in the order of the configuration.
    """

    def __init__(self, pool: Pool, server: str = "") -> None:
        self._pool = pool
        self._server = server

    def backend(self) -> Backend | None:
        """The home; ``None`` if the pool has no server of that name, or none at all."""
        backends = self._pool.backends
        if self._server:
            return find_server(self._pool, self._server)
        ready = (one for one in backends if one.admin is AdminState.READY and not one.address.backup)
        return next(ready, backends[0] if backends else None)

    def decide(self, head: RequestHead) -> Decision:
        """Where a request about user state goes. The target stays as it is: a file's name is one segment
        there, its slashes encoded (``/userdata/workflows%2Fa.json``)."""
        home = self.backend()
        if home is not None and home.takes_pins:
            return Pin(home, strict=head.method not in _READS)
        if head.method in _READS:
            return _ANY
        return Refuse(503, f"{self._absence(home)} Nothing can be saved until it is back.")

    def upload(self) -> Decision:
        """Where an upload goes: to the home, else anywhere; it is copied to where prompts need it."""
        home = self.backend()
        return Pin(home) if home is not None and home.takes_pins else _ANY

    def _absence(self, home: Backend | None) -> str:
        if home is not None:
            name = home.address.name or f"number {home.index + 1}"
            return f"The server that keeps the settings and files of users, {name}, is down."
        if self._server:
            return (
                f"The pool has no server {self._server!r}, which is to keep the settings and files of users."
            )
        return "The pool has no servers."


def find_server(pool: Pool, text: str) -> Backend | None:
    """The server of ``pool`` that ``text`` names: its name, or its URL as it may be written in a list.

    ``None`` if there is none.
    """
    for backend in pool.backends:
        if text and text == backend.address.name:
            return backend
    key = _key(text)
    return next((backend for backend in pool.backends if backend.address.key == key), None)


@lru_cache(16)
def _key(text: str) -> str:
    try:
        addresses = parse_addresses(text, limit=1)
    except ConfigError:
        return ""
    return addresses[0].key if addresses else ""
