"""Runs a service in the foreground, on the fast reactor, until it is told to stop."""

import errno
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)


def install_reactor() -> Any:
    """Install the reactor that ``comfyproxy run`` is fast on, and return it."""
    from comfyproxy.proxy.reactor import install

    install()
    from twisted.internet import reactor

    return reactor


def run_in_foreground(reactor: Any, make_service: Callable[[], Service], quiet: bool = False) -> int:
    """Run the service until SIGINT or SIGTERM; returns the exit status of the process.

    The log goes to standard error, with ``quiet`` only its warnings. A port that cannot be had is told in one
    sentence, with exit status 1; other errors of making or starting the service are the caller's.
    """
    level = LogLevel.warn if quiet else LogLevel.info
    observer = FilteringLogObserver(
        textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(defaultLogLevel=level)]
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    service = make_service()
    try:
        service.privilegedStartService()
    except CannotListenError as error:
        print(_why_not(error), file=sys.stderr)
        return 1
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0


def _why_not(error: CannotListenError) -> str:
    reason = getattr(error.socketError, "strerror", None) or error.socketError
    where = f"{error.interface or '*'}:{error.port}"
    in_use = getattr(error.socketError, "errno", None) == errno.EADDRINUSE
    hint = " Is another server running there?" if in_use else ""
    return f"Cannot listen on {where}: {reason}.{hint} See --listen."
