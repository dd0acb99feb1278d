"""How much is left to run, as a client is told it (``status``)."""

from collections.abc import Callable
from math import inf

from comfyproxy.comfyui.fanin.frames import Frame, status

INTERVAL = 0.25
"""Seconds between two: each makes a page ask for two lists."""


class Remaining:
    """The ``status`` messages of one client, not too many of them; ``count`` gives ``queue_remaining``.

    Each server says it whenever its queue changes, also when the number stays the same: the page looks again
    then. That nothing is left is said at once, for a page may wait for it to queue the next prompt.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._is_due = False
        self._said = 0
        self._said_at = -inf

    def greeting(self, sid: str, now: float) -> Frame:
        """The first of a connection, which tells the client its id."""
        self._is_due = False
        self._said, self._said_at = self._value(), now
        return Frame(status(self._said, sid))

    def changes(self) -> None:
        """The queue of a server has changed."""
        self._is_due = True

    def news(self, now: float) -> Frame | None:
        """What there is to say now."""
        value = self._value()
        is_other = value != self._said
        is_time = now - self._said_at >= INTERVAL or (is_other and not value)
        if not is_time or not (is_other or self._is_due):
            return None
        self._is_due = False
        self._said, self._said_at = value, now
        return Frame(status(value), key="status")

    def _value(self) -> int:
        return max(0, self._count())
