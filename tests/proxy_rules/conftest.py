"""The rules of an HTTP/1.1 reverse proxy, held by every front; README.md beside this file has them by number.

Each test runs once for each of `FRONTS`. Where a front may do otherwise, `EXCEPTIONS` says so with the
reason. Such a test must then fail, so that the list does not outlive its reasons.

What the proxy sends is read with h11, in both directions: what another program makes of our framing counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import h11
import pytest

from comfyproxy.testing import BackendConnection, RawClient, Rig
from comfyproxy.testing.rig import daemon

FRONTS: dict[str, Callable[..., Any]] = {"daemon": daemon}


@dataclass(frozen=True)
class Exempt:
    """Tests (by name, ``*`` and all) that ``front`` does not pass, and why that is right."""

    front: str
    tests: str
    reason: str


EXCEPTIONS: list[Exempt] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for one in EXCEPTIONS:
            if f"[{one.front}" in item.name and fnmatchcase(item.name, one.tests):
                item.add_marker(pytest.mark.xfail(reason=one.reason, strict=True))


@pytest.fixture(params=FRONTS, scope="session")
def front(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Each front in turn."""
    return FRONTS[request.param]


@dataclass
class Message:
    """A request or an answer as h11 reads it; ``complete`` says that its end was seen."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    status: int = 0
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    complete: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of that name."""
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def value(self, name: bytes) -> bytes | None:
        """The value of the only field of that name, or ``None``."""
        values = self.values(name)
        assert len(values) <= 1, f"{name!r} is there {len(values)} times"
        return values[0] if values else None

    @property
    def names(self) -> list[bytes]:
        """The names of all fields, in lower case, in order."""
        return [name.lower() for name, _ in self.fields]


def _messages(parser: h11.Connection) -> Iterator[Message]:
    message: Message | None = None
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            if message is None or "without sending complete message" not in str(error):
                raise
            event = h11.NEED_DATA
        if isinstance(event, h11.Request):
            message = Message(event.method + b" " + event.target, list(event.headers.raw_items()))
        elif isinstance(event, h11.InformationalResponse):
            yield Message(
                bytes(event.reason), list(event.headers.raw_items()), event.status_code, complete=True
            )
            if event.status_code == 101:
                return
        elif isinstance(event, h11.Response):
            message = Message(bytes(event.reason), list(event.headers.raw_items()), event.status_code)
        elif isinstance(event, h11.Data):
            assert message is not None
            message.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert message is not None
            message.trailers = tuple(event.headers.raw_items())
            message.complete = True
            yield message
            return
        elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
            if message is not None:
                yield message
            return


def _handshake(method: str) -> tuple[list[tuple[str, str]], str]:
    if method != "UPGRADE":
        return [("Host", "a")], method
    return [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket")], "GET"


class RuleRig(Rig):
    """A rig that reads what its peers received."""

    def answers(self, client: RawClient, *methods: str) -> list[Message]:
        """What ``client`` got as the answers, 1xx included, to requests made with ``methods``.

        ``UPGRADE`` is a GET that asks for a WebSocket. Nothing else may have come.
        """
        data, answers = client.received, []
        for method in methods or ("GET",):
            parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
            headers, method = _handshake(method)
            parser.send(h11.Request(method=method, target="/", headers=headers))
            parser.send(h11.EndOfMessage())
            parser.receive_data(data)
            if client.ended == "closed":
                parser.receive_data(b"")
            answers += _messages(parser)
            data = parser.trailing_data[0]
        assert data == b"", f"behind the last answer came {data[:200]!r}"
        return answers

    def answer(self, client: RawClient, method: str = "GET") -> Message:
        """The only answer that ``client`` got, complete."""
        (answer,) = self.answers(client, method)
        assert answer.complete, answer
        return answer

    def requests(self, number: int = 0) -> list[Message]:
        """What a backend got, over all its connections."""
        backend = self.backends[number]
        assert backend is not None
        return [one for connection in backend.connections for one in _requests(connection)]

    def request(self, number: int = 0) -> Message:
        """The only request that a backend got, complete."""
        (request,) = self.requests(number)
        assert request.complete, request
        return request


def _requests(connection: BackendConnection) -> Iterator[Message]:
    data = connection.received
    while data:
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
        parser.receive_data(data)
        yield from _messages(parser)
        if parser.their_state is not h11.DONE and parser.their_state is not h11.MIGHT_SWITCH_PROTOCOL:
            return
        data = parser.trailing_data[0]


@pytest.fixture
def make_rig(front: Callable[..., Any]) -> Iterator[Callable[..., RuleRig]]:
    """Makes rigs with this front; at the end nothing may be left of them: no lease, connection or timer."""
    rigs: list[RuleRig] = []

    def make(*backends: Any, **settings: Any) -> RuleRig:
        rigs.append(RuleRig(*backends, **{"front": front} | settings))
        return rigs[-1]

    yield make
    assert [left for rig in rigs for left in rig.close()] == []


@pytest.fixture
def rig(make_rig: Callable[..., RuleRig]) -> RuleRig:
    """A rig with one backend that answers every head."""
    return make_rig()
