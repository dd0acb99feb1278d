"""A directory of files as a server of its own, on a loopback port.

The data path knows no files. What serves them well (ranges, conditional requests, types, no way out of the
directory) is twisted.web, so a built frontend is one more backend, on this machine.
"""

import warnings
from typing import Any

from twisted.web.server import Site

with warnings.catch_warnings():
    # Twisted 22.10 deprecated classes that this module of its own still makes instances of.
    warnings.filterwarnings("ignore", r".*_Unsafe", DeprecationWarning)
    from twisted.web.static import File


def serve_directory(reactor: Any, path: str) -> Any:
    """Serve the files below ``path`` on a free loopback port; returns the `IListeningPort`."""
    site = Site(File(path))
    site.noisy = False
    site.displayTracebacks = False
    return reactor.listenTCP(0, site, interface="127.0.0.1")
