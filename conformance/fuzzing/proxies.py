"""Targets that are a whole proxy on a network in memory: what passes is HTTP to h11, and nothing is left."""

import h11
from twisted.logger import LogEvent, globalLogPublisher

from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.testing import Rig, ScriptedBackend, Step
from comfyproxy.testing.rig import OK

QUICK = Timeouts(connect=1, head=2, body=2, response=2, idle=2, keepalive=2, backend_keepalive=2)
SMALL = Limits(line=200, head=600, fields=12, body=200)
ENDS = ("", "close", "finish", "reset")
PIECES = (0, 1, 7)

REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
)
HOP_BY_HOP = {b"keep-alive", b"proxy-connection", b"proxy-authorization", b"http2-settings"}

logged: list[LogEvent] = []
"""Errors that nobody expected, which Twisted only logs."""


@globalLogPublisher.addObserver
def note(event: LogEvent) -> None:
    """Keep what a test would fail for."""
    if "log_failure" in event or "failure" in event:
        logged.append(event)


def client(data: bytes) -> None:
    """Octets of a client: what a backend gets of them are requests, one after the other."""
    if not data:
        return
    rig = Rig(ScriptedBackend([Step(send=OK)]), timeouts=QUICK, limits=SMALL)
    sender = rig.ask(data[1:], PIECES[data[0] % len(PIECES)])
    end = ENDS[data[0] // len(PIECES) % len(ENDS)]
    if end and not sender.is_gone:
        getattr(sender, end)()
        rig.network.run()
    check_over(rig)
    for connection in rig.backend.connections:
        check_requests(connection.received)


def backend(data: bytes) -> None:
    """Octets of a backend: what a client gets of them are answers to what it asked."""
    if not data:
        return
    asked = REQUESTS[data[0] % len(REQUESTS)]
    end = ENDS[data[0] // len(REQUESTS) % len(ENDS)]
    rig = Rig(ScriptedBackend([Step(send=data[1:])]), timeouts=QUICK, limits=SMALL)
    sender = rig.ask(asked)
    for connection in rig.backend.connections:
        if end and not connection.is_gone:
            getattr(connection, end)()
    rig.network.run()
    check_over(rig)
    check_answer(asked, sender.received)


def check_over(rig: Rig) -> None:
    """Everything ends by itself, without an error and without anything left."""
    rig.advance(30, step=1)
    assert rig.leases == 0
    assert rig.close() == []
    errors = [str(event) for event in logged]
    logged.clear()
    assert errors == []


def check_requests(received: bytes) -> None:
    """They are requests of HTTP/1.1 that say through whom they came; only the last may be cut short."""
    while received:
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
        parser.receive_data(received)
        head = parser.next_event()
        assert isinstance(head, h11.Request)
        assert head.http_version == b"1.1"
        names = [name for name, _ in head.headers]
        assert HOP_BY_HOP.isdisjoint(names)
        assert b"via" in names
        assert names.count(b"host") == names.count(b"x-forwarded-for") == 1
        while isinstance(event := parser.next_event(), h11.Data):
            pass
        received = parser.trailing_data[0] if isinstance(event, h11.EndOfMessage) else b""


def check_answer(asked: bytes, received: bytes) -> None:
    """It is an answer to ``asked``; it may be cut short."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
    method = asked.partition(b" ")[0].decode()
    upgrade = [("Connection", "upgrade"), ("Upgrade", "websocket")] if b"Upgrade:" in asked else []
    length = [("Content-Length", "0")] if method == "POST" else []
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "a"), *upgrade, *length]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(received)
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        if event in (h11.NEED_DATA, h11.PAUSED):
            return
        if isinstance(event, h11.InformationalResponse | h11.Response):
            assert HOP_BY_HOP.isdisjoint(name for name, _ in event.headers)
