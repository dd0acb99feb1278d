"""The resource behind a Site that speaks HTTP/2, with the h2 library as the client."""

from collections.abc import Callable
from typing import Any

import pytest
import twisted.internet
from twisted.internet.defer import ensureDeferred

from comfyproxy.web.resource import RoundRobinResource
from comfyproxy.web.streaming import StreamingSite

h2 = pytest.importorskip("h2")
pytest.importorskip("priority")

from h2.config import H2Configuration  # noqa: E402
from h2.connection import H2Connection  # noqa: E402
from h2.events import (  # noqa: E402
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: then\r\n\r\nok"
HEAD = [(":method", "GET"), (":scheme", "https"), (":authority", "proxy.example"), (":path", "/a%2Fb?c")]


class Client:
    """One HTTP/2 connection of a client's."""

    def __init__(self, rig: Any) -> None:
        self.peer = rig.client(negotiatedProtocol=b"h2")
        config = H2Configuration(client_side=True, header_encoding="ascii", validate_outbound_headers=False)
        self.connection = H2Connection(config)
        self.connection.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.peer.send(self.connection.data_to_send())

    def ask(self, *fields: tuple[str, str], method: str = "GET", end: bool = True) -> int:
        stream: int = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, [(":method", method), *HEAD[1:], *fields], end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        while data or end:
            room = min(len(data), self.connection.local_flow_control_window(stream), 16_384)
            self.connection.send_data(stream, data[:room], end_stream=end and room == len(data))
            if room == len(data):
                break
            data = data[room:]
            self.flush()
            self.read()
        self.flush()

    def read(self) -> list[Any]:
        """The events since the last time; windows are opened again."""
        events = []
        for _ in range(20):
            new = self.connection.receive_data(self.peer.read())
            for event in new:
                if isinstance(event, DataReceived):
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            events += new
            self.flush()
        return events


@pytest.fixture
def rig(rig: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    # twisted.web gives an HTTP/2 connection no other reactor than the default one.
    monkeypatch.setattr(twisted.internet, "reactor", rig.reactor)
    return rig


def fields(events: list[Any]) -> list[tuple[str, str]]:
    (answer,) = [event for event in events if isinstance(event, ResponseReceived)]
    return [(name, value) for name, value in answer.headers if name not in ("date",)]


def body(events: list[Any]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, DataReceived))


def ended(events: list[Any]) -> bool:
    return any(isinstance(event, StreamEnded) for event in events)


def test_a_request_and_its_answer(rig: Any) -> None:
    client = Client(rig)
    client.ask(("x-a", "1"), ("cookie", "a=1"), ("cookie", "b=2"))
    server = rig.accept()
    received = server.read().split(b"\r\n")
    assert received[:2] == [b"GET /a%2Fb?c HTTP/1.1", b"Host: proxy.example"]
    assert b"Cookie: a=1; b=2" in received
    server.send(OK.replace(b"\r\nDate", b"\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: x\r\nDate"))
    events = client.read()
    assert fields(events) == [
        (":status", "200"),
        ("content-length", "2"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
    ]
    assert body(events) == b"ok"
    assert ended(events)


def test_requests_on_one_connection_take_turns(rig: Any) -> None:
    client = Client(rig)
    client.ask()
    client.ask()
    assert rig.dialled == [("10.0.0.1", 8188), ("10.0.0.2", 8188)]


def test_an_upload_has_its_length(rig: Any) -> None:
    client = Client(rig)
    stream = client.ask(method="POST", end=False)
    client.send(stream, b"x" * 200_000, end=True)
    server = rig.accept()
    received = b""
    while data := server.read():
        received += data
    head, _, content = received.partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: 200000" in head
    assert content == b"x" * 200_000


def test_an_answer_of_unknown_length(rig: Any) -> None:
    client = Client(rig)
    client.ask()
    rig.accept().send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    events = client.read()
    assert (body(events), ended(events)) == (b"ok", True)


def test_half_an_answer_resets_its_stream_and_no_other(rig: Any) -> None:
    client = Client(rig)
    stream = client.ask()
    client.ask()
    server = rig.accept()
    server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    server.leave()
    rig.accept().send(OK)
    events = client.read()
    assert [event.stream_id for event in events if isinstance(event, StreamReset)] == [stream]
    assert body(events).endswith(b"ok")
    assert client.peer.how_closed == ""


def test_a_client_that_resets_its_stream_ends_the_request(rig: Any) -> None:
    client = Client(rig)
    stream = client.ask()
    server = rig.accept()
    client.connection.reset_stream(stream)
    client.flush()
    assert server.how_closed == "aborted"


def test_an_early_hint_is_left_out(rig: Any) -> None:
    client = Client(rig)
    client.ask()
    rig.accept().send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    events = client.read()
    assert not [event for event in events if isinstance(event, InformationalResponseReceived)]
    assert body(events) == b"ok"


def test_a_slow_client_stops_the_server(rig: Any) -> None:
    client = Client(rig)
    client.ask()
    server = rig.accept()
    server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x" * 70_000)
    assert not server.is_read
    client.read()
    assert server.is_read


def test_there_is_no_upgrade(rig: Any) -> None:
    client = Client(rig)
    client.ask(("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="))
    server = rig.accept()
    assert b"Upgrade" not in server.read()
    server.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    assert fields(client.read())[0] == (":status", "502")


def test_answers_of_our_own(rig: Any) -> None:
    rig.resource.reload([])
    client = Client(rig)
    client.ask()
    assert fields(client.read())[0] == (":status", "503")


def test_stopping_resets_what_was_answered_in_part(rig: Any) -> None:
    client = Client(rig)
    client.ask()
    rig.accept().send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    stopping = rig.resource.stop()
    rig.reactor.turn(5)
    assert stopping.called
    assert [event for event in client.read() if isinstance(event, StreamReset)]


def test_closing_the_proxy_resets_what_is_going_on(rig: Any) -> None:
    client = Client(rig)
    client.ask()
    rig.accept()
    closing = ensureDeferred(rig.resource.proxy.close())
    rig.reactor.turn(5)
    assert closing.called
    assert [event for event in client.read() if isinstance(event, StreamReset)]


def test_a_streaming_site_takes_uploads_in_first(make_rig: Callable[..., Any], monkeypatch: Any) -> None:
    rig = make_rig(lambda reactor: RoundRobinResource("http://10.0.0.1", reactor=reactor), StreamingSite)
    monkeypatch.setattr(twisted.internet, "reactor", rig.reactor)
    client = Client(rig)
    stream = client.ask(method="POST", end=False)
    client.send(stream, b"abc")
    assert rig.dialled == []
    client.send(stream, b"de", end=True)
    server = rig.accept()
    received = server.read()
    assert b"\r\nContent-Length: 5\r\n" in received
    assert received.endswith(b"\r\n\r\nabcde")
    server.send(OK)
    assert ended(client.read())
