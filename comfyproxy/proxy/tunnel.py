"""A WebSocket that is relayed octet by octet (``--websocket relay``), and can still say goodbye.

The proxy takes no part in the protocol, with one exception: when it stops, clients are to hear a Close frame
(1001, going away) and no mere end of the connection, for a page tells the two apart. A frame of ours may
stand only between two of the backend's, so the way from backend to client is followed by its frame headers
(`comfyproxy.core.http.frames`). What the client answers passes to the backend as any frame, so both
connections end as the protocol has it.

Pings of our own are not among what a relay can do: their pongs would reach the other side. TCP's keep-alive
finds peers that vanished, not those that hang.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from comfyproxy.core.config import Timeouts
from comfyproxy.core.http.frames import FrameTracker, close_frame
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.draining import STOPPING, Work
from comfyproxy.proxy.relay import Relay, RelayEnd, Write

GOING_AWAY = 1001
"""A server goes down (RFC 6455 section 7.4.1)."""

PROBES = 3
"""Unanswered probes of TCP's keep-alive until it takes the peer for dead."""


class Tunnel(Relay):
    """Relays a WebSocket. With ``drain`` it is one of ComfyUI's, and its backend is always read."""

    def __init__(
        self,
        client: RelayEnd,
        backend: RelayEnd,
        ended: Callable[[], None],
        deadlines: Deadlines,
        timeouts: Timeouts,
        *,
        to_client: bytes = b"",
        to_backend: bytes = b"",
        drain: bool = False,
    ) -> None:
        for end in (client, backend):
            keep_alive(end.transport, timeouts)
        super().__init__(
            client, backend, ended, deadlines, to_client=to_client, to_backend=to_backend, drain=drain
        )

    @property
    def work(self) -> Work:
        """What it counts as when the proxy is to stop."""
        return Work.WEBSOCKET if self._drain is None else Work.EVENTS

    def _toward_client(self, write: Write) -> Write:
        self._frames = frames = FrameTracker()
        follow = frames.feed

        def pass_on(data: bytes) -> None:
            follow(data)
            write(data)

        self._write = write
        return pass_on

    def goodbye(self) -> None:
        """Send the client a Close frame, once the frame under way is complete; then nothing of the
        backend's."""
        if self.is_ending:
            return
        if self._frames.is_between_frames:
            self._say_it(b"")
        else:
            self._to_client = self._finish_frame
        self._end()

    def _finish_frame(self, data: bytes) -> None:
        end = self._frames.end_in(data)
        if end < 0:
            self._frames.feed(data)
            self._write(data)
        else:
            self._say_it(data[:end])
            self._end()

    def _say_it(self, before: bytes) -> None:
        self._to_client = _drop
        self._write(before + close_frame(GOING_AWAY, STOPPING))


def keep_alive(transport: Any, timeouts: Timeouts) -> None:
    """Let TCP look whether the peer of an idle connection still exists, as often as WebSockets are pinged."""
    # Under TLS this is the socket of the transport below; other transports have none.
    line = getattr(transport, "socket", None)
    if line is None or not timeouts.websocket_ping:
        return
    interval = (timeouts.websocket_dead or timeouts.websocket_ping) / PROBES
    with suppress(OSError, AttributeError):
        # Unix sockets, and some systems, have only some of these.
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(int(timeouts.websocket_ping), 1))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(int(interval), 1))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


def _drop(data: bytes) -> None:
    """The client has been told that there is no more."""
