"""SIGTERM under load: nothing new, what runs is finished, and the end comes in time whatever anybody does."""

import signal
import time

from fault_rig.daemon import Daemon, StartDaemon, options_of
from fault_rig.load import NamedServer, load
from fault_rig.peers import PATIENCE, Connection, StartServer

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
FAST = 4
"""Clients that ask as fast as they are answered."""

SLOW = 16


def begin_to_stop(daemon: Daemon) -> None:
    """Send SIGTERM, and wait until nobody is let in any more."""
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_for_log(r"SIGTERM")
    while True:
        try:
            daemon.connect().close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            # The kernel let this one in as the port closed.
            continue


def test_no_request_is_lost_when_it_is_told_to_end_under_load(
    start_daemon: StartDaemon, named_servers: list[NamedServer]
) -> None:
    """Clients that keep their connections learn by `Connection: close` that this is the end."""
    daemon = start_daemon(*options_of([one.url for one in named_servers]))
    with load(daemon.port, clients=FAST) as fast, load(daemon.port, "/slow", clients=SLOW) as slow:
        fast.wait_for(500)
        slow.wait_for(SLOW)
        assert daemon.stop() == 0
    for asking, clients in ((fast, FAST), (slow, SLOW)):
        assert set(asking.answers) == {200}
        assert asking.refused + asking.reopened >= 1, "they went on until there was nobody"
        # The kernel may connect some more between the last look at its queue and the port's end, and resets
        # them: each client meets that at most once, before its request was read.
        assert len(asking.cut) <= clients, (fast, slow)
        assert all("reset by peer') after b''" in one for one in asking.cut), (fast, slow)


def test_what_runs_is_finished_and_what_waits_is_closed(
    start_daemon: StartDaemon, start_server: StartServer
) -> None:
    server = start_server()
    daemon = start_daemon(*options_of([server.url]), "--drain-timeout", "1h")
    idle, asked, uploading = daemon.connect(), daemon.ask(GET), daemon.ask(PUT)
    with idle, asked, uploading, server.accept() as first, server.accept() as second:
        first.read_head()
        second.read_head()
        begin_to_stop(daemon)
        assert idle.read_rest() == (b"", True)
        uploading.send(b"b" * 10)
        for backend in (first, second):
            backend.send(OK)
        for client in (asked, uploading):
            answer = client.answer()
            assert (answer.status, answer.body) == (200, b"fine")
            assert answer.fields["connection"] == "close"
        assert daemon.process.wait(PATIENCE) == 0


PUT = b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n"

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
AWAY = bytes.fromhex("03e9")
"""The code 1001 of a close frame."""


def switched(daemon: Daemon, server_connection: Connection, client: Connection) -> None:
    """Answer a handshake, and see it through."""
    server_connection.read_head()
    server_connection.send(SWITCHED)
    assert client.read_head().startswith(b"HTTP/1.1 101 ")


def test_a_stalled_answer_and_a_silent_websocket_are_cut_when_the_time_is_up(
    start_daemon: StartDaemon, start_server: StartServer
) -> None:
    server = start_server()
    daemon = start_daemon(*options_of([server.url]), "--drain-timeout", "1s")
    socket, asked = daemon.ask(UPGRADE), daemon.ask(GET)
    with socket, server.accept() as first, asked, server.accept() as second:
        backends = {one.read_until(b" HTTP/1.1\r\n").split()[1]: one for one in (first, second)}
        switched(daemon, backends[b"/ws"], socket)
        backends[b"/"].send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ")
        asked.wait()
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        rest, _ = socket.read_rest()
        assert rest[:1] == b"\x88", "a close frame"
        assert AWAY in rest[:4]
        answer = asked.answer()
        assert (answer.status, answer.body, answer.complete) == (200, b"half ", False)
        assert daemon.process.wait(PATIENCE) == 0
        assert time.monotonic() - began < PATIENCE


def test_told_twice_it_waits_no_longer(start_daemon: StartDaemon, start_server: StartServer) -> None:
    server = start_server()
    daemon = start_daemon(*options_of([server.url]), "--drain-timeout", "1h")
    with daemon.ask(GET) as client, server.accept() as backend:
        backend.read_head()
        begin_to_stop(daemon)
        daemon.process.send_signal(signal.SIGTERM)
        assert client.read_rest()[0].partition(b" ")[2][:3] in (b"", b"503")
        assert daemon.process.wait(PATIENCE) == 0


def test_a_reload_in_a_drain_starts_nothing_anew(
    start_daemon: StartDaemon, start_server: StartServer
) -> None:
    server = start_server()
    daemon = start_daemon(*options_of([server.url]), "--drain-timeout", "1h")
    with daemon.ask(GET) as client, server.accept() as backend:
        backend.read_head()
        begin_to_stop(daemon)
        daemon.reload()
        daemon.wait_for_log("Nothing is reloaded")
        backend.send(OK)
        assert client.answer().body == b"fine"
        assert daemon.process.wait(PATIENCE) == 0
