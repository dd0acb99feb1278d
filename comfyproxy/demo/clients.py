"""Who is connected, and in which order messages reach them.

Two faults of ComfyUI live here on purpose, because a proxy must cope with them:

- **Displacement.** A second socket with a known client id takes over the entry; the first is neither closed
  nor told, and when it ends, its cleaning up removes the entry of the second, which then gets nothing for
  ever while it looks open.
- **Head-of-line blocking.** Messages leave one after the other. A socket that cannot take more (its reader
  stopped) holds up everything that was published after, for everybody, until it drains or closes.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from comfyproxy.demo.events import Event, Preview


class Socket(Protocol):
    """One open WebSocket, as far as sending goes."""

    @property
    def writable(self) -> bool:
        """Whether it takes more now; once it does again, or is closed, `Clients.flush` is called."""

    def send(self, payload: str | bytes) -> None:
        """One message: text as a text frame, bytes as a binary one."""


class Clients:
    """The sockets by client id (``sid``), what each client said it supports, and messages on their way."""

    def __init__(self) -> None:
        self._sockets: dict[str, Socket] = {}
        self._features: dict[str, Mapping[str, Any]] = {}
        self._outbox: deque[tuple[str | bytes, str | None]] = deque()
        self._flushing = False

    def __len__(self) -> int:
        return len(self._sockets)

    def __contains__(self, sid: object) -> bool:
        return sid in self._sockets

    def join(self, sid: str, socket: Socket) -> None:
        """``socket`` is ``sid``'s from now on, whoever was before."""
        self._sockets[sid] = socket
        self._features[sid] = {}

    def leave(self, sid: str) -> None:
        """A socket of ``sid`` has ended: the entry goes, whichever socket is in it (displacement)."""
        self._sockets.pop(sid, None)
        self._features.pop(sid, None)
        self.flush()

    def set_features(self, sid: str, features: Mapping[str, Any]) -> None:
        """Remember what ``sid`` flagged in its first message."""
        if sid in self._sockets:
            self._features[sid] = features

    def supports(self, sid: str | None, feature: str) -> bool:
        """Whether ``sid`` flagged ``feature``; nobody in particular supports nothing."""
        return sid is not None and self._features.get(sid, {}).get(feature) is True

    def answer(self, event: Event, sid: str) -> None:
        """Send to one client past all that is waiting, as ComfyUI's socket handler does."""
        if socket := self._sockets.get(sid):
            socket.send(event.encode())

    def publish(self, event: Event, sid: str | None) -> None:
        """Send to ``sid`` if it is connected by then, to everybody if None; there is no replay."""
        self._post(event.encode, sid)

    def publish_preview(self, preview: Preview, sid: str | None, *, with_metadata: bool) -> None:
        """Send one preview, in the newer form or the older."""
        self._post(preview.encode_with_metadata if with_metadata else preview.encode, sid)

    def flush(self) -> None:
        """Send what waits, up to the first message one of whose sockets is not writable."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._outbox and all(socket.writable for socket in self._addressed(self._outbox[0][1])):
                payload, sid = self._outbox.popleft()
                for socket in self._addressed(sid):
                    socket.send(payload)
        finally:
            self._flushing = False

    def _post(self, encode: Callable[[], str | bytes], sid: str | None) -> None:
        self._outbox.append((encode(), sid))
        self.flush()

    def _addressed(self, sid: str | None) -> list[Socket]:
        if sid is None:
            return list(self._sockets.values())
        return [self._sockets[sid]] if sid in self._sockets else []
