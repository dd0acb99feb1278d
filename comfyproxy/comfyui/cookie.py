"""The cookie by which a browser stays with one backend (RFC 6265).

Most requests of ComfyUI's page carry no id of any kind; they do carry cookies. The value is a backend's
fingerprint: it grants nothing, and a client that makes one up only chooses a server it might have been given.

So it has no ``Secure``, which protects secrets. A pool on one's own network is reached by plain HTTP, where
a browser would not store such a cookie; and one stored over HTTPS could not be replaced over HTTP when its
backend is gone. ``HttpOnly``, because no script needs it. ``SameSite=Lax``, because of what other sites
start only links to the page are let through. It lives as long as the browser's session.
"""

import re

from comfyproxy.core.backend import Backend

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH = re.compile(r"/[!-:<-~]*")


class BackendCookie:
    """Names the backend of a browser; ``name`` and ``path`` keep several pools on one address apart."""

    __slots__ = ("_attributes", "_name", "_pattern")

    def __init__(self, name: str = "comfyproxy", path: str = "/") -> None:
        """Raises `ValueError` for a name or path that a ``Set-Cookie`` field cannot have."""
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a cookie's name.")
        if not _PATH.fullmatch(path):
            raise ValueError(f"{path!r} is not a cookie's path.")
        self._name = name.encode()
        self._attributes = f"; Path={path}; HttpOnly; SameSite=Lax".encode()
        # The comma joins repeated Cookie fields (`Head.notable`); no value of ours has one.
        self._pattern = re.compile(rb"(?:^|[;,])[ \t]*" + re.escape(self._name) + rb"=([^;,]*)")

    def fingerprints(self, cookies: bytes | None) -> tuple[str, ...]:
        """What those of this name say in a value of ``Cookie``, as browsers send them: longest path first."""
        if cookies is None or self._name not in cookies:
            return ()
        return tuple(value.strip(b' \t"').decode("latin-1") for value in self._pattern.findall(cookies))

    def line(self, backend: Backend) -> bytes:
        """The field line that makes a browser stay with ``backend``."""
        return b"Set-Cookie: %b=%b%b" % (self._name, backend.fingerprint.encode(), self._attributes)

    def without(self, value: bytes) -> bytes:
        """A ``Cookie`` value without this cookie; empty if nothing is left."""
        if self._name not in value:
            return value
        rest, found = self._pattern.subn(b"", value)
        return rest.lstrip(b";, \t") if found else value
