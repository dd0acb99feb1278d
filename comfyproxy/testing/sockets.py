"""Sockets in memory, as far as Twisted uses sockets."""

import errno
from itertools import count
from socket import MSG_PEEK
from typing import Any


class Direction:
    """What one socket has sent and the other has not yet read.

    ``piece`` is what one read takes at most, ``carried`` all that was ever sent. The sender has ``ended`` it
    (a FIN) or has ``broken`` it (a reset). The receiver ``refused`` what still comes: it has closed, and of
    what it was sent it ``dropped`` so many octets unread, for which it resets the sender.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.piece = window
        self.data = bytearray()
        self.carried = 0
        self.ended = False
        self.broken = False
        self.refused = False
        self.dropped = 0

    @property
    def room(self) -> int:
        """Octets that may still be sent."""
        return max(self.window - len(self.data), 0)


class MemorySocket:
    """One end of a connection, as far as Twisted uses sockets; it never blocks and has no descriptor."""

    _numbers = count(1_000_000)

    def __init__(self, incoming: Direction, outgoing: Direction) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self._number = next(self._numbers)
        self._resets = False

    @property
    def is_readable(self) -> bool:
        """Whether reading yields octets, the end or an error."""
        return bool(self.incoming.data) or self.incoming.ended or self.incoming.broken

    @property
    def is_writable(self) -> bool:
        """Whether writing yields progress or an error."""
        return self.outgoing.room > 0 or self.outgoing.refused or self.incoming.broken

    def fileno(self) -> int:
        """A number that no descriptor has."""
        return self._number

    def setblocking(self, flag: bool) -> None:
        """It does not block anyhow."""

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Only ``SO_LINGER`` means something here: closing resets."""
        self._resets = self._resets or isinstance(value, bytes)

    def getsockopt(self, level: int, option: int) -> int:
        """Nothing is set."""
        return 0

    def send(self, data: Any) -> int:
        """Send what there is room for; what a peer gets that has closed makes it answer with a reset."""
        if self.incoming.broken:
            raise OSError(errno.EPIPE, "the peer is gone")
        if data and self.outgoing.refused:
            self.outgoing.dropped += len(data)
            self.incoming.broken = True
            return len(data)
        if data and not self.outgoing.room:
            raise BlockingIOError(errno.EWOULDBLOCK, "the window is full")
        taken = bytes(data[: self.outgoing.room])
        self.outgoing.data += taken
        self.outgoing.carried += len(taken)
        return len(taken)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """What has come, ``b""`` at the end; with ``MSG_PEEK`` it stays to be read."""
        incoming = self.incoming
        if incoming.data:
            size = min(size, incoming.piece)
            data = bytes(incoming.data[:size])
            if not flags & MSG_PEEK:
                del incoming.data[:size]
            return data
        if incoming.ended:
            return b""
        if incoming.broken:
            raise OSError(errno.ECONNRESET, "the peer reset the connection")
        raise BlockingIOError(errno.EWOULDBLOCK, "nothing has come")

    def shutdown(self, how: int) -> None:
        """Send no more."""
        self.outgoing.ended = True

    def close(self) -> None:
        """Take no more; if that is meant so, or octets are left unread, the peer is reset."""
        if self._resets or self.incoming.data:
            self.outgoing.broken = True
        self.incoming.refused = True
        self.incoming.dropped += len(self.incoming.data)
        self.incoming.data.clear()
