"""Everything comfyproxy raises, in one tree.

Each error carries what its catcher needs to decide: the status to answer, and whether bytes of the
request had already been sent upstream (so whether another backend may be tried).
"""

from collections.abc import Sequence


def printable(text: str) -> str:
    """``text`` with escapes for its control characters, and whatever else does not show."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


class ComfyproxyError(Exception):
    """Base of every error of this package; ``str()`` is one sentence fit for a person."""


class ConfigError(ComfyproxyError):
    """A source of configuration does not parse.

    ``source`` names it (a path, ``--url``, ``DEV_SERVER_COMFYUI_URL``); ``line`` and ``column`` count
    from 1 and are ``None`` where the source has none. The message may quote whatever stands there: what would
    do something to a terminal is written as an escape (``\\x1b``).
    """

    def __init__(self, message: str, source: str, line: int | None = None, column: int | None = None) -> None:
        place = ":".join(str(part) for part in (source, line, column) if part is not None)
        message = printable(message)
        super().__init__(f"{printable(place)}: {message}")
        self.message = message
        self.source = source
        self.line = line
        self.column = column


class Stopping(ComfyproxyError):
    """The proxy is about to stop: what it is asked for comes too late."""


class ProtocolError(ComfyproxyError):
    """A peer broke HTTP; ``status`` is what a client is told (4xx its fault, 502 the backend's)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NoBackendAvailable(ComfyproxyError):
    """No backend of the pool may take this request now.

    ``is_full`` says that one could, if it had not as much in flight as it may: waiting helps.
    """

    status = 503

    def __init__(self, pool: str, message: str, is_full: bool = False) -> None:
        super().__init__(message)
        self.pool = pool
        self.is_full = is_full


class UnknownServer(ComfyproxyError):
    """No pool has the server that was named; ``known`` are the URLs of those that there are."""

    MOST_NAMED = 5

    def __init__(self, name: str, known: Sequence[str]) -> None:
        there_are = ", ".join(known[: self.MOST_NAMED]) or "none"
        more = len(known) - self.MOST_NAMED
        super().__init__(
            f"No pool has a server {name!r}; there are {there_are}"
            + (f" and {more} more." if more > 0 else ".")
        )
        self.name = name
        self.known = known


class BackendError(ComfyproxyError):
    """A backend failed one exchange; ``request_was_sent`` says whether it may have acted on it."""

    status = 502

    def __init__(self, message: str, *, request_was_sent: bool) -> None:
        super().__init__(message)
        self.request_was_sent = request_was_sent


class ConnectFailed(BackendError):
    """No connection to the backend came about; nothing was sent, so trying another is always safe."""

    def __init__(self, message: str) -> None:
        super().__init__(message, request_was_sent=False)


class OutOfDescriptors(ConnectFailed):
    """This process had no file descriptor, or no memory, for a connection: it says nothing of the backend."""

    status = 503


class BackendLost(BackendError):
    """The backend's connection ended before its answer did."""


class BackendTimeout(BackendError):
    """The backend kept its connection open but said nothing for too long."""

    status = 504


class BackendProtocolError(BackendError):
    """The backend's answer breaks HTTP (RFC 9112); its connection is closed."""
