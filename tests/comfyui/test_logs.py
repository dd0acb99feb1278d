"""Who reads the log, and of which server."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui import logs as module
from comfyproxy.comfyui.logs import LogSubscriptions
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, OpenSocket, Reply
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import Decision, Default, Pin
from comfyproxy.core.http.http1 import RequestHead, parse_response_head

MakeHead = Callable[..., RequestHead]
OK = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n", b"PATCH")


class Page:
    """As much of a session as subscriptions look at."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.greeted_by: set[Backend] = set()

    def is_greeted(self, backend: Backend) -> bool:
        return backend in self.greeted_by


class Scene:
    """A page whose nearest backend may become another."""

    def __init__(self, pool: Pool, make_head: MakeHead) -> None:
        self.one, self.two, _ = pool.backends
        self.nearest: Backend | None = self.one
        self.logs = LogSubscriptions(lambda client: self.nearest)
        self.head = make_head("PATCH", "/internal/logs/subscribe", length=2)
        self.page = Page("page")
        self.page.greeted_by.add(self.one)

    def subscribe(self, document: Any, *, has_session: bool = True) -> tuple[list[Any], Decision]:
        """The steps that it took, and the decision."""
        session: Any = self.page if has_session else None
        operation = self.logs.subscribe(self.head, document, lambda client: session)
        steps: list[Any] = []
        try:
            while True:
                steps.append(operation.send(True if steps else None))
        except StopIteration as done:
            return steps, done.value

    def tick(self, reply: Callable[[Backend], Reply] | None = None) -> list[Ask]:
        """What is asked beside requests; each gets that reply."""
        sessions: Any = [self.page]
        asked = []
        for operation in self.logs.background(sessions):
            step = operation.send(None)
            assert isinstance(step, Ask)
            asked.append(step)
            with pytest.raises(StopIteration):
                operation.send(reply(step.backend) if reply else Reply(step.backend, OK))
        return asked


@pytest.fixture
def scene(make_pool: Callable[..., Pool], make_head: MakeHead) -> Scene:
    return Scene(make_pool(), make_head)


READ = {"clientId": "page", "enabled": True}


def test_the_server_has_the_clients_websocket_first(scene: Scene) -> None:
    session: Any = scene.page
    assert scene.subscribe(READ) == ([OpenSocket(session, scene.one)], Pin(scene.one, strict=True))


def test_who_stops_reading_needs_none(scene: Scene) -> None:
    scene.subscribe(READ)
    assert scene.subscribe(READ | {"enabled": False}) == ([], Pin(scene.one, strict=True))
    scene.nearest = scene.two
    scene.page.greeted_by.add(scene.two)
    assert scene.tick() == []


def test_without_a_session_the_request_goes_on_as_it_is(scene: Scene) -> None:
    assert scene.subscribe(READ, has_session=False) == ([], Pin(scene.one, strict=True))


@pytest.mark.parametrize("document", [None, {}, {"clientId": 7, "enabled": True}])
def test_a_request_that_names_nobody_goes_anywhere(scene: Scene, document: Any) -> None:
    assert scene.subscribe(document) == ([], Default())


def test_so_does_one_where_no_server_works(scene: Scene) -> None:
    scene.nearest = None
    assert scene.subscribe(READ) == ([], Default())
    scene.logs._clients["page"] = module._Subscription(scene.one)
    assert scene.tick() == []


def test_nothing_is_asked_while_all_is_well(scene: Scene) -> None:
    assert scene.tick() == []
    scene.subscribe(READ)
    assert scene.tick() == []


def test_after_a_lost_websocket_it_is_subscribed_anew(scene: Scene) -> None:
    scene.subscribe(READ)
    scene.page.greeted_by.clear()
    assert scene.tick() == []
    scene.page.greeted_by.add(scene.one)
    (ask,) = scene.tick()
    assert (ask.backend, ask.method, ask.target) == (scene.one, b"PATCH", b"/internal/logs/subscribe")
    assert json.loads(ask.body) == READ
    assert scene.tick() == []


def test_another_nearest_server_is_subscribed_to(scene: Scene) -> None:
    scene.subscribe(READ)
    scene.nearest = scene.two
    assert scene.tick() == []
    scene.page.greeted_by.add(scene.two)
    assert [ask.backend for ask in scene.tick()] == [scene.two]


def test_what_was_not_answered_is_asked_again(scene: Scene) -> None:
    scene.subscribe(READ)
    scene.nearest = scene.two
    scene.page.greeted_by.add(scene.two)
    assert len(scene.tick(lambda backend: Reply(backend, why="lost"))) == 1
    assert len(scene.tick()) == 1


def test_it_is_asked_once_at_a_time(scene: Scene) -> None:
    scene.subscribe(READ)
    scene.nearest = scene.two
    scene.page.greeted_by.add(scene.two)
    sessions: Any = [scene.page]
    (operation,) = scene.logs.background(sessions)
    operation.send(None)
    assert list(scene.logs.background(sessions)) == []
    operation.close()
    assert len(list(scene.logs.background(sessions))) == 1


def test_who_is_gone_is_forgotten(scene: Scene) -> None:
    scene.subscribe(READ)
    assert list(scene.logs.background([])) == []
    assert not scene.logs._clients


def test_only_so_many_are_remembered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SUBSCRIBERS", 2)
    for number in range(4):
        scene.subscribe({"clientId": f"page{number}", "enabled": True})
    assert list(scene.logs._clients) == ["page2", "page3"]
