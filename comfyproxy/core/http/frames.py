"""Where the frames of a WebSocket end (RFC 6455 section 5.2), and nothing else about them.

A relay that passes octets on unseen may put a frame of its own, a goodbye, only between two frames. So it
follows where they end: one look at each frame's header, none at what is in it.
"""

CLOSE = 0x88
"""The first octet of a Close frame: whole, opcode 8."""

MAX_REASON = 123
"""Octets of a Close frame's reason: control frames carry 125, of which the code takes two."""

_LONGEST_HEADER = 14


class FrameTracker:
    """Follows one direction of a WebSocket, from its first frame on."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        self._left = 0
        self._header = b""

    @property
    def is_between_frames(self) -> bool:
        """Whether everything that came so far are whole frames."""
        return not self._left and not self._header

    def feed(self, data: bytes) -> None:
        """Take the octets that came next, however they are cut."""
        size = len(data)
        if self._left >= size:
            self._left -= size
            return
        at = self._left
        if self._header:
            data = self._header + data
            size = len(data)
        while at < size:
            # A short frame without a mask, as most are that come from servers.
            if at + 1 < size and (length := data[at + 1]) < 126:
                at += 2 + length
            elif whole := _size(data, at):
                at += whole
            else:
                self._header = data[at:]
                self._left = 0
                return
        self._header = b""
        self._left = at - size

    def end_in(self, data: bytes) -> int:
        """Where the frame under way ends in ``data``, which comes next; -1 if it goes on behind it."""
        end = self._left or _size(self._header + data[:_LONGEST_HEADER], 0) - len(self._header)
        return end if 0 < end <= len(data) else -1


def close_frame(code: int, reason: str = "") -> bytes:
    """A server's Close frame (section 5.5.1): one without a mask. ``reason`` is in ASCII."""
    text = reason.encode("ascii")[:MAX_REASON]
    return bytes((CLOSE, 2 + len(text))) + code.to_bytes(2, "big") + text


def _size(data: bytes, at: int) -> int:
    """Octets of the frame that begins at ``at``, its header included; 0 while that is not there whole."""
    if len(data) < at + 2:
        return 0
    length = data[at + 1] & 0x7F
    header = 6 if data[at + 1] & 0x80 else 2
    extended = {126: 2, 127: 8}.get(length, 0)
    if extended:
        if len(data) < at + 2 + extended:
            return 0
        length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
    return header + extended + length
