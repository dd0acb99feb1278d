"""The cookie by which a client stays with one backend (RFC 6265).

Its value is a backend's fingerprint: it grants nothing, and a client that makes one up only chooses a server
it might have been given. Who would rather have clients choose nothing signs it: then a dot and half of an
HMAC-SHA256 (RFC 2104 section 5) of it follow, and a value without them counts for nothing.

``HttpOnly``, because no script needs it. ``SameSite=Lax``, because what other sites start needs no server of
its own. It lives as long as the browser's session.
"""

import hmac
import re

from comfyproxy.core.balancing.backend import Backend

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH = re.compile(r"/[!-:<-~]*")
_SIGNATURE = 16
"""Octets of the HMAC that are sent."""


class BackendCookie:
    """Names the backend of a client; ``name`` and ``path`` keep several pools on one address apart.

    It is signed with ``secret`` unless that is empty.
    """

    __slots__ = ("_attributes", "_name", "_pattern", "_secret")

    def __init__(self, name: str = "comfyproxy", path: str = "/", secret: str = "") -> None:
        """Raises `ValueError` for a name or path that a ``Set-Cookie`` field cannot have."""
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a cookie's name.")
        if not _PATH.fullmatch(path):
            raise ValueError(f"{path!r} is not a cookie's path.")
        self._name = name.encode()
        self._attributes = f"; Path={path}; HttpOnly; SameSite=Lax".encode()
        # The comma joins repeated Cookie fields (`Head.notable`); no value of ours has one.
        self._pattern = re.compile(rb"(?:^|[;,])[ \t]*" + re.escape(self._name) + rb"=([^;,]*)")
        self._secret = secret.encode()

    def fingerprints(self, cookies: bytes | None) -> tuple[str, ...]:
        """What those of this name say in a value of ``Cookie``, as browsers send them: longest path first."""
        if cookies is None or self._name not in cookies:
            return ()
        values = [value.strip(b' \t"') for value in self._pattern.findall(cookies)]
        if self._secret:
            said = [(value.partition(b".")[0], value) for value in values]
            values = [name for name, value in said if hmac.compare_digest(self._signed(name), value)]
        return tuple(value.decode("latin-1") for value in values)

    def line(self, backend: Backend, *, secure: bool = False) -> bytes:
        """The field line that makes a client stay with ``backend``; ``secure``: by TLS only."""
        return self.line_saying(backend.fingerprint, secure=secure)

    def line_saying(self, word: str, *, secure: bool = False) -> bytes:
        """The field line that gives a client ``word``, which is in ASCII and has no comma or semicolon."""
        value = word.encode()
        if self._secret:
            value = self._signed(value)
        attributes = self._attributes + b"; Secure" if secure else self._attributes
        return b"Set-Cookie: %b=%b%b" % (self._name, value, attributes)

    def _signed(self, value: bytes) -> bytes:
        signature = hmac.digest(self._secret, b"%b=%b" % (self._name, value), "sha256")[:_SIGNATURE]
        return b"%b.%b" % (value, signature.hex().encode())

    def without(self, value: bytes) -> bytes:
        """A ``Cookie`` value without this cookie; empty if nothing is left."""
        if self._name not in value:
            return value
        rest, found = self._pattern.subn(b"", value)
        return rest.lstrip(b";, \t") if found else value
