"""Signals that a service acts on while it runs."""

import signal
import threading
from typing import Any


class Signals:
    """Takes signals over, and gives all of them back in the end."""

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def catch(self, name: str, handler: Any) -> None:
        """Call ``handler`` as Python calls signal handlers, where this can be had.

        Windows has no SIGHUP, and Python sets signals in the main thread only. A handler may do no more than
        ``callFromThread``.
        """
        number = getattr(signal, name, None)
        if number is not None and threading.current_thread() is threading.main_thread():
            self._previous.setdefault(number, signal.signal(number, handler))

    def release(self) -> None:
        """Let every signal mean what it meant before."""
        previous, self._previous = self._previous, {}
        for number, handler in previous.items():
            # One that was not set by Python cannot be set by it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
