"""Long bodies from socket to socket inside the kernel (Linux, ``splice(2)``).

Design note. A body of known length needs no look from us: only its count matters. Copying 10 MiB through
Python costs five times what the kernel needs to hand the pages over, so from `WORTHWHILE` octets on, the
rest of such a body goes source socket -> pipe -> sink socket, and Python only counts.

The two transports stay what they are. The source's reading is stopped, and a `Splice` reads a *duplicate*
of its descriptor: epoll knows registrations by descriptor, so both can be registered without knowing of
each other, and the sink's own reader goes on noticing a client that hangs up. At the end (all octets
moved, or an end or error on the source) the source reads again by itself, and whatever happened shows
there in the ordinary way. Nothing may be waiting in the sink's buffer when this begins, since the octets
would overtake it; `can_splice` looks.

Back-pressure is the pipe's: while the sink takes nothing, nothing more is read, so one pipe (`PIPE_SIZE`)
is all that waits. Pipes are kept for the next transfer if they are empty.

Not used, and never an error, where it cannot be: TLS, transports other than those of `transports`, other
systems, no descriptors left.

Rejected: splicing chunked bodies (each chunk's framing has to be seen; it would be two system calls more
a chunk) and tunnels (a pipe and two descriptors each, for messages that are mostly smaller than the
cost).
"""

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from socket import MSG_PEEK
from typing import Any

from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from comfyproxy.proxy.transports import EagerWrites

WORTHWHILE = 64 * 1024
"""Octets still to come from which on setting this up costs less than copying them."""

PIPE_SIZE = 1024 * 1024
"""Octets that a pipe holds: what Linux lets any user have."""

MOST_AT_ONCE = 4
"""Fillings of the pipe before others have a turn: on a fast network neither socket ever has enough."""

MAX_SPARE = 64
"""Empty pipes kept."""

_spare: list[tuple[int, int]] = []


def can_splice(source: Any, sink: Any, octets: int) -> bool:
    """Whether ``octets`` from ``source`` to ``sink`` (transports) are worth a splice, and it is possible
    now."""
    return (
        octets >= WORTHWHILE
        and isinstance(source, EagerWrites)
        and isinstance(sink, EagerWrites)
        and not source.TLS
        and not sink.TLS
        and sink.is_flushed
        and hasattr(os, "splice")
    )


class Splice:
    """Moves ``octets`` from ``source`` to ``sink``.

    ``moved`` is called with each count that has left, ``ended`` once with the octets that have not: 0 is
    success; else the source ended or failed, or the sink did, and their transports will say so. `stop`
    ends it silently. Raises `OSError` if there are no descriptors for it; then nothing has happened.
    """

    def __init__(
        self,
        source: Any,
        sink: Any,
        octets: int,
        moved: Callable[[int], None],
        ended: Callable[[int], None],
    ) -> None:
        self._source = source
        self._sink = sink
        self._moved = moved
        self._ended = ended
        self._to_read = octets
        self._in_pipe = 0
        self._reactor = source.reactor
        with ExitStack() as undo:
            self._pipe = _take_pipe()
            undo.callback(_put_back, self._pipe)
            self._from = os.dup(source.fileno())
            undo.callback(os.close, self._from)
            self._to = os.dup(sink.fileno())
            undo.callback(os.close, self._to)
            self._reader = _Descriptor(self._from, self._read)
            self._writer = _Descriptor(self._to, self._write)
            self._reactor.addReader(self._reader)
            undo.pop_all()
        self._active = True
        source.stopReading()

    @property
    def waits_for_sink(self) -> bool:
        """Whether it is the sink that it waits for, and not the source."""
        return self._in_pipe > 0

    def stop(self) -> None:
        """Move no more; the source reads by itself again."""
        if self._active:
            self._release()
            self._source.resumeProducing()

    def _release(self) -> None:
        """Give back everything; what is in the pipe is lost."""
        self._active = False
        self._reactor.removeReader(self._reader)
        self._reactor.removeWriter(self._writer)
        os.close(self._from)
        os.close(self._to)
        if self._in_pipe:
            _close(self._pipe)
        else:
            _put_back(self._pipe)

    def _read(self) -> None:
        """Fill the pipe, and empty it, until one of the sockets has enough or others should have a turn."""
        for _ in range(MOST_AT_ONCE):
            try:
                count = os.splice(self._from, self._pipe[1], min(self._to_read, PIPE_SIZE), flags=_FLAGS)
            except BlockingIOError:
                return
            except OSError:
                count = 0
            if not count:
                self._finish()
                return
            self._to_read -= count
            self._in_pipe += count
            if not self._empty_pipe():
                return
            if not self._to_read:
                self._finish()
                return

    def _write(self) -> None:
        if self._empty_pipe():
            self._reactor.removeWriter(self._writer)
            if self._to_read:
                self._reactor.addReader(self._reader)
                self._read()
            else:
                self._finish()

    def _empty_pipe(self) -> bool:
        """Move what is in the pipe on; ``False`` when the sink takes no more, or has failed."""
        while self._in_pipe:
            try:
                count = os.splice(self._pipe[0], self._to, self._in_pipe, flags=_FLAGS)
            except BlockingIOError:
                self._reactor.removeReader(self._reader)
                self._reactor.addWriter(self._writer)
                return False
            except OSError:
                self._fail_sink()
                return False
            self._in_pipe -= count
            self._moved(count)
            if not self._active:
                return False
        return True

    def _finish(self) -> None:
        left = self._to_read + self._in_pipe
        self.stop()
        self._ended(left)

    def _fail_sink(self) -> None:
        """The sink takes nothing any more. What is in the pipe is lost, so nothing may follow it: the source
        stays unread. The sink's transport finds out by trying to write."""
        left = self._to_read + self._in_pipe
        self._release()
        if self._sink.connected:
            self._sink.startWriting()
        self._ended(left)


def has_more(source: Any) -> bool:
    """Whether there is something to read at ``source``: octets, the end or an error."""
    try:
        source.socket.recv(1, MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@implementer(IReadDescriptor, IWriteDescriptor)
class _Descriptor:
    """A descriptor as the reactor wants to see one; ``act`` is called when it is ready."""

    def __init__(self, descriptor: int, act: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self.doRead = self.doWrite = act

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._descriptor

    def logPrefix(self) -> str:
        """What the log calls it."""
        return "splice"

    def connectionLost(self, reason: Failure) -> None:
        """A hang-up or an error on the socket: try, so that the ordinary way finds out."""
        self.doRead()


_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)


def _take_pipe() -> tuple[int, int]:
    if _spare:
        return _spare.pop()
    # Systems without splice have no fcntl either.
    import fcntl

    pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with suppress(OSError):
        # Past what one user's pipes may hold in all they stay small, which costs turns, not octets.
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return pipe


def _put_back(pipe: tuple[int, int]) -> None:
    if len(_spare) < MAX_SPARE:
        _spare.append(pipe)
    else:
        _close(pipe)


def _close(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    os.close(pipe[1])
