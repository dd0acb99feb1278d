"""Lean dispatch: an epoll reactor that calls its readers and writers without ceremony.

Design note. For every event the stock reactor enters a logging context, looks the file descriptor up
several times and wraps the call that does the work in two others. That costs more than receiving a small
message does. Here an event that says nothing but *readable* or *writable* goes straight to `doRead` or
`doWrite`. Everything else (hang-ups, errors, both at once, a reader whose descriptor has changed) goes
the stock way, as does whatever those calls report. What is lost is the ``system`` field that log events
inside such a call would have had. What is gained besides: an event is for who had the descriptor when it was
reported. The stock reactor gives it to whoever has its number by the time its turn comes, and one event may
close connections and open others.

`install` is what ``twistd --reactor comfyproxy`` calls; where there is no epoll it installs Twisted's own
default.

Rejected: the asyncio reactor on uvloop. It is as fast for small messages, but brings a compiled dependency
and copies of its own for large ones, and eager writes and splice would be of no use there.
"""

import sys

from twisted.internet.main import installReactor
from twisted.logger import Logger

_log = Logger(namespace="comfyproxy.reactor")


if sys.platform == "linux":
    from select import EPOLLIN, EPOLLOUT

    from twisted.internet.epollreactor import EPollReactor

    class LeanReactor(EPollReactor):
        """Twisted's epoll reactor with a shorter way from an event to its reader or writer."""

        def doPoll(self, timeout: float | None) -> None:
            """Wait for events for up to ``timeout`` seconds (``None``: for ever) and act on them."""
            selectables = self._selectables
            wait = -1 if timeout is None else timeout
            events = self._poller.poll(wait, len(selectables) or 1)
            for fd, event, selectable in [(fd, event, selectables.get(fd)) for fd, event in events]:
                if fd not in selectables or selectables[fd] is not selectable:
                    continue
                if event != EPOLLIN and event != EPOLLOUT:
                    self._doReadOrWrite(selectable, fd, event)
                    continue
                try:
                    why = selectable.doRead() if event == EPOLLIN else selectable.doWrite()
                except BaseException:
                    _log.failure("A reader or writer failed; its connection is closed")
                    why = sys.exc_info()[1]
                if why:
                    self._disconnectSelectable(selectable, why, event == EPOLLIN)

        doIteration = doPoll


def install() -> None:
    """Make the reactor of this module the global one, or Twisted's default where there is no epoll."""
    if sys.platform == "linux":
        installReactor(LeanReactor())
    else:
        from twisted.internet import default

        default.install()
