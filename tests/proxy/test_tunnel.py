"""A relayed WebSocket: its goodbye stands between two frames, and TCP looks whether its peers exist."""

import socket
from typing import Any

import pytest
from twisted.internet.protocol import ClientFactory, Factory

from comfyproxy.core.config import Timeouts
from comfyproxy.core.http.frames import close_frame
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.draining import STOPPING, Work
from comfyproxy.proxy.relay import RelayEnd
from comfyproxy.proxy.tunnel import PROBES, Tunnel, keep_alive
from comfyproxy.testing import MemoryNetwork, RawClient, ScriptedBackend

HELLO = b"\x81\x05Hello"
LONG = b"\x82\x7e\x01\x00" + bytes(256)
GOODBYE = close_frame(1001, STOPPING)


class Joined:
    """A client and a backend with a tunnel between them."""

    def __init__(self, **options: Any) -> None:
        self.network = MemoryNetwork()
        self.deadlines = Deadlines(self.network)
        self.ended = 0
        accepted, made = RelayEnd(), RelayEnd()
        server = ScriptedBackend(stays_open=True)
        self.network.listenTCP(1, server)
        self.network.listenTCP(2, Factory.forProtocol(lambda: accepted))
        factory = ClientFactory()
        factory.protocol = lambda: made
        self.network.connectTCP("127.0.0.1", 1, factory)
        self.client = RawClient()
        self.network.connect(self.client, "127.0.0.1", 2)
        self.backend = server.connections[0]
        self.tunnel = Tunnel(accepted, made, self._count, self.deadlines, Timeouts(), **options)
        self.run()

    def _count(self) -> None:
        self.ended += 1

    def run(self) -> None:
        self.network.run()

    def say(self, data: bytes, piece: int = 0) -> None:
        """Let the backend send ``data``."""
        self.backend.send(data, piece)
        self.run()

    def goodbye(self) -> None:
        self.tunnel.goodbye()
        self.run()


@pytest.mark.parametrize("is_comfyui", [False, True])
@pytest.mark.parametrize("before", [b"", HELLO, HELLO + LONG], ids=["none", "one", "two"])
@pytest.mark.parametrize("piece", [0, 1])
def test_between_two_frames_it_is_said_at_once(before: bytes, is_comfyui: bool, piece: int) -> None:
    joined = Joined(drain=is_comfyui)
    joined.say(before, piece)
    joined.goodbye()
    assert joined.client.received == before + GOODBYE


def test_frames_that_came_with_the_handshake_count() -> None:
    joined = Joined(to_client=HELLO[:3])
    joined.goodbye()
    assert joined.client.received == HELLO[:3]
    joined.say(HELLO[3:])
    assert joined.client.received == HELLO + GOODBYE


@pytest.mark.parametrize("frame", [HELLO, LONG], ids=["short", "long"])
@pytest.mark.parametrize("piece", [0, 1, 3])
def test_a_frame_under_way_is_finished_and_nothing_passes_behind_it(frame: bytes, piece: int) -> None:
    for place in (1, 2, 3, len(frame) - 1):
        joined = Joined()
        joined.say(HELLO + frame[:place])
        joined.goodbye()
        assert joined.client.received == HELLO + frame[:place]
        joined.say(frame[place:] + HELLO + LONG, piece)
        assert joined.client.received == HELLO + frame + GOODBYE


def test_what_the_client_answers_reaches_the_backend_and_the_end_comes_as_ever() -> None:
    joined = Joined()
    joined.goodbye()
    joined.client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe9")
    joined.run()
    assert joined.backend.received == b"\x88\x82\x00\x00\x00\x00\x03\xe9"
    joined.say(b"\x88\x02\x03\xe9")
    assert joined.client.received == GOODBYE
    joined.backend.close()
    joined.run()
    assert (joined.client.ended, joined.ended, len(joined.deadlines)) == ("closed", 1, 0)


def test_it_is_said_once() -> None:
    joined = Joined()
    joined.goodbye()
    joined.goodbye()
    assert joined.client.received == GOODBYE


@pytest.mark.parametrize("end", ["finish", "close"])
def test_behind_an_end_it_is_not_said(end: str) -> None:
    joined = Joined()
    getattr(joined.backend, end)()
    joined.run()
    joined.goodbye()
    assert joined.client.received == b""


@pytest.mark.parametrize(("is_comfyui", "work"), [(False, Work.WEBSOCKET), (True, Work.EVENTS)])
def test_it_counts_as_what_it_is(is_comfyui: bool, work: Work) -> None:
    assert Joined(drain=is_comfyui).tunnel.work is work


class Transport:
    """A transport with a socket that notes what is set, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.socket = self
        self.options: dict[int, int] = {}
        self._error = error

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if self._error is not None:
            raise self._error
        self.options[option] = value


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="this system has another name for it")
@pytest.mark.parametrize(
    ("timeouts", "idle", "interval"),
    [
        (Timeouts(websocket_ping=25, websocket_dead=75), 25, 25),
        (Timeouts(websocket_ping=25, websocket_dead=0), 25, 8),
        (Timeouts(websocket_ping=0.5, websocket_dead=1), 1, 1),
    ],
)
def test_tcp_looks_as_often_as_peers_are_pinged(timeouts: Timeouts, idle: int, interval: int) -> None:
    transport = Transport()
    keep_alive(transport, timeouts)
    assert transport.options == {
        socket.SO_KEEPALIVE: 1,
        socket.TCP_KEEPIDLE: idle,
        socket.TCP_KEEPINTVL: interval,
        socket.TCP_KEEPCNT: PROBES,
    }


@pytest.mark.parametrize(
    ("transport", "timeouts"),
    [
        (object(), Timeouts()),
        (Transport(), Timeouts(websocket_ping=0)),
        (Transport(OSError("a Unix socket")), Timeouts()),
    ],
    ids=["no socket", "no pings", "another socket"],
)
def test_where_it_cannot_or_shall_not_look_it_does_not(transport: Any, timeouts: Timeouts) -> None:
    keep_alive(transport, timeouts)
    assert not getattr(transport, "options", {})
