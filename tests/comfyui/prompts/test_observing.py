"""What the proxy hears over WebSockets of its own."""

from typing import Any

import pytest

from comfyproxy.comfyui.prompts.observing import Observer

STATUS = b'{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "x"}}'


class Heard:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def heard(self, backend: Any, document: Any, now: float) -> None:
        self.said.append(document["type"])

    def connected(self, backend: Any, now: float) -> None:
        self.said.append("connected")

    def disconnected(self, backend: Any, now: float) -> None:
        self.said.append("disconnected")


class Intruder:
    closed: Any = None

    def send(self, payload: bytes, is_binary: bool, key: object = None) -> None:
        raise AssertionError("nobody is told anything")

    def close(self, code: int, reason: bytes) -> None:
        self.closed = code


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def backend(make_pool: Any) -> Any:
    return make_pool().backends[0]


def test_the_first_status_says_that_the_server_knows_it(heard: Heard, backend: Any) -> None:
    observer = Observer("me", lambda: [backend], heard)
    assert observer.wanted == [backend]
    observer.opened(backend, lambda payload, is_binary: None, 1.0)
    assert not observer.is_greeted(backend)
    observer.from_backend(backend, b'{"type": "progress", "data": {}}', False, 1.0)
    observer.from_backend(backend, STATUS, False, 1.0)
    observer.from_backend(backend, STATUS, False, 2.0)
    assert observer.is_greeted(backend)
    assert heard.said == ["progress", "connected", "status", "status"]
    observer.lost(backend, "gone", 3.0)
    assert not observer.is_greeted(backend)
    assert heard.said[-1] == "disconnected"


@pytest.mark.parametrize(("payload", "is_binary"), [(b"\0\0\0\1", True), (b"{", False), (b"[]", False)])
def test_what_is_no_event_is_passed_over(heard: Heard, backend: Any, payload: bytes, is_binary: bool) -> None:
    observer = Observer("me", list, heard)
    observer.from_backend(backend, payload, is_binary, 1.0)
    assert heard.said == []


def test_nobody_may_be_the_observer(heard: Heard) -> None:
    observer, intruder = Observer("me", list, heard), Intruder()
    observer.attach(intruder, 1.0)
    observer.from_client(intruder, b"{}", False, 1.0)
    observer.detach(intruder, 1.0)
    assert intruder.closed == 1008
    observer.due(2.0)
    assert not observer.is_over(1e9)
