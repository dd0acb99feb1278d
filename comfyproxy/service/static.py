"""A directory of files as a server of its own, on a loopback port.

The data path knows no files. What serves them well (ranges, conditional requests, types, no way out of the
directory) is twisted.web, so a built frontend is one more backend, on this machine.
"""

import warnings
from typing import Any

from twisted.web.server import Site
from twisted.web.util import redirectTo

with warnings.catch_warnings():
    # Twisted 22.10 deprecated classes that this module of its own still makes instances of.
    warnings.filterwarnings("ignore", r".*_Unsafe", DeprecationWarning)
    from twisted.web.static import File


class _Site(Site):
    noisy = False

    def startFactory(self) -> None:
        """Keep no access log, nor the timer for its dates: the proxy in front has its own."""


class _Files(File):
    def getChild(self, path: bytes, request: Any) -> Any:
        """No file has such a name, and twisted.web would log the mistake of whoever asks for it."""
        if b"\0" in path or not _is_text(path):
            return self.childNotFound
        return super().getChild(path, request)

    def directoryListing(self) -> Any:
        """A directory without an index page shows nothing of what is in it."""
        return self.childNotFound

    def redirect(self, request: Any) -> bytes:
        """To the directory with a slash, whatever the client calls this server: it was asked for by another
        name, and perhaps over TLS."""
        path, mark, query = request.uri.partition(b"?")
        return redirectTo(b"./" + path.rpartition(b"/")[2] + b"/" + mark + query, request)


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def serve_directory(reactor: Any, path: str) -> Any:
    """Serve the files below ``path`` on a free loopback port; returns the `IListeningPort`."""
    return reactor.listenTCP(0, _Site(_Files(path), reactor=reactor), interface="127.0.0.1")
