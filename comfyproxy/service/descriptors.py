"""File descriptors: how many this process may have, and how many clients they are enough for."""

import sys

RESERVED = 64
"""Descriptors for all that is no client and no server: ports, logs, the reactor's own, libraries, probes."""

PER_CLIENT = 2
"""Descriptors of one client: its connection, and one to a server."""


def raise_limit() -> None:
    """Let this process have as many as it may (``ulimit -Hn``), where that is of no harm.

    The soft limit is low, usually 1024, for the sake of programs that use ``select``, which can't count
    further. Twisted's reactor on Linux is not one of them.
    """
    if sys.platform != "linux":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def possible_connections() -> int:
    """How many clients the descriptors are enough for; 0 if there is no limit to them, or none is known."""
    try:
        import resource
    except ImportError:  # pragma: no cover -- Windows
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 0
    return max(1, (soft - RESERVED) // PER_CLIENT)
