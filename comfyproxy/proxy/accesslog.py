"""Lines about requests: the console line of each routed request, or an access log, through one buffered
writer.

A line is formatted where the request is and written with many others a moment later, so it costs the request
about a microsecond and no system call.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from comfyproxy.core.balancing.backend import Backend

if TYPE_CHECKING:
    from comfyproxy.proxy.exchange import Exchange

FLUSH_AFTER = 0.2
"""Seconds a line may wait."""

FLUSH_SIZE = 64 * 1024
"""Octets that are written without waiting."""


class AccessLog:
    """Writes no lines; its subclasses write one for each request. ``write`` takes octets and may block."""

    def __init__(self, clock: Any, write: Callable[[bytes], None]) -> None:
        self._clock = clock
        self._write = write
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: IDelayedCall | None = None

    def routed(self, backend: Backend, size: int) -> None:
        """A request goes to ``backend``, in a pool of ``size``."""

    def finished(self, exchange: "Exchange") -> None:
        """``exchange`` is over, one way or the other."""

    def refused(self, peer: str, status: int, sent: int) -> None:
        """A request from ``peer`` could not be read; ``sent`` are the octets of the answer's body."""

    def flush(self) -> None:
        """Write what waits, and leave no timer."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        lines, self._lines, self._size = self._lines, [], 0
        if lines:
            self._write(b"".join(lines))

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_SIZE:
            self.flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(FLUSH_AFTER, self.flush)


class RoutingLog(AccessLog):
    """``[LoadBalancer] Routing request to http://server1:8188 (0/3)``: the server, its index, the pool's
    size."""

    def routed(self, backend: Backend, size: int) -> None:
        self._add(
            b"[LoadBalancer] Routing request to %b (%d/%d)\n" % (backend.url.encode(), backend.index, size)
        )


class CombinedLog(AccessLog):
    """The format of Apache and nginx, with the server and the seconds behind it."""

    def finished(self, exchange: "Exchange") -> None:
        head = exchange.head
        now = self._clock.seconds()
        self._add(
            b'%b - - [%b] "%b" %d %d "%b" "%b" %b %.3f\n'
            % (
                exchange.client,
                _apache_time(now),
                _quoted(head.line),
                exchange.status,
                exchange.sent,
                _quoted(head.value(b"referer") or b"-"),
                _quoted(head.value(b"user-agent") or b"-"),
                exchange.backend.url.encode() if exchange.backend is not None else b"-",
                now - exchange.started,
            )
        )

    def refused(self, peer: str, status: int, sent: int) -> None:
        now = _apache_time(self._clock.seconds())
        self._add(b'%b - - [%b] "-" %d %d "-" "-" - 0.000\n' % (peer.encode(), now, status, sent))


class JSONLog(AccessLog):
    """One JSON object a line."""

    def refused(self, peer: str, status: int, sent: int) -> None:
        time = _iso_time(self._clock.seconds())
        record = {
            "time": time,
            "client": peer,
            "method": None,
            "target": None,
            "status": status,
            "sent": sent,
        }
        self._add(json.dumps(record).encode() + b"\n")

    def finished(self, exchange: "Exchange") -> None:
        head = exchange.head
        now = self._clock.seconds()
        record = {
            "time": _iso_time(now),
            "client": exchange.client.decode(),
            "method": head.method.decode("latin-1"),
            "target": head.target.decode("latin-1"),
            "host": head.host.decode("latin-1"),
            "status": exchange.status,
            "sent": exchange.sent,
            "seconds": round(now - exchange.started, 6),
            "server": exchange.backend.url if exchange.backend is not None else None,
            "user_agent": (head.value(b"user-agent") or b"").decode("latin-1"),
            "referer": (head.value(b"referer") or b"").decode("latin-1"),
            "request_id": exchange.request_id or None,
        }
        self._add(json.dumps(record).encode() + b"\n")


FORMATS: dict[str, type[AccessLog]] = {
    "none": AccessLog,
    "routing": RoutingLog,
    "combined": CombinedLog,
    "json": JSONLog,
}
"""The log for each value of ``--access-log``."""


def _apache_time(now: float) -> bytes:
    return datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000").encode()


def _iso_time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")


def _quoted(value: bytes) -> bytes:
    """``value`` between quotes as nginx writes it: quotes, backslashes and octets outside ASCII as
    ``\\xNN``."""
    return b"".join(
        bytes((octet,)) if 0x20 <= octet < 0x7F and octet not in b'"\\' else b"\\x%02X" % octet
        for octet in value
    )
