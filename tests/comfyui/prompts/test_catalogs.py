"""What servers can run: asked once, kept for a while, asked again before it is said that nobody can."""

import json
from typing import Any

import pytest

from comfyproxy.comfyui.prompts.catalogs import FRESH, LIFETIME, MAX_TEXTS, Catalogs
from comfyproxy.core.balancing.operations import Ask, Operation, Reply
from comfyproxy.core.http.http1 import ResponseHead, parse_response_head

GRAPH = {"1": {"class_type": "KSampler", "inputs": {}}}
HEAD = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n", b"GET")


class Pool:
    """Servers that say which classes they have, and how often they were asked."""

    def __init__(self, backends: Any) -> None:
        self.backends = backends
        self.classes: dict[Any, bytes | None] = dict.fromkeys(backends, b'{"KSampler": {}}')
        self.asked: list[int] = []

    def run(self, operation: Operation) -> Any:
        replies: Any = None
        while True:
            try:
                asks: tuple[Ask, ...] = operation.send(replies)
            except StopIteration as end:
                return end.value
            self.asked.extend(ask.backend.index for ask in asks)
            replies = tuple(self.answer(ask) for ask in asks)

    def answer(self, ask: Ask) -> Reply:
        assert ask.target == b"/object_info"
        body = self.classes[ask.backend]
        if body is None:
            return Reply(ask.backend, why="no answer")
        assert isinstance(HEAD, ResponseHead)
        return Reply(ask.backend, HEAD, body)


@pytest.fixture
def pool(make_pool: Any) -> Pool:
    return Pool(make_pool("http://server[1-6]:8188").backends)


def test_each_is_asked_once_and_again_after_a_while_if_prompts_come(pool: Pool) -> None:
    catalogs = Catalogs()
    assert catalogs.due(pool.backends, 0.0) == list(pool.backends)
    pool.run(catalogs.fetch(pool.backends, 0.0))
    assert pool.asked == [0, 1, 2, 3, 4, 5]
    assert catalogs.due(pool.backends, LIFETIME + 1) == []
    pool.run(catalogs.sort_out(pool.backends, GRAPH, LIFETIME - 1))
    assert catalogs.due(pool.backends, LIFETIME - 1) == []
    assert catalogs.due(pool.backends, LIFETIME) == list(pool.backends)
    catalogs.forget(pool.backends[0])
    assert catalogs.due(pool.backends, LIFETIME - 1) == [pool.backends[0]]


def test_who_lacks_something_is_told_apart(pool: Pool) -> None:
    catalogs = Catalogs()
    pool.classes[pool.backends[1]] = b"{}"
    pool.classes[pool.backends[2]] = None
    pool.classes[pool.backends[3]] = b"no JSON"
    pool.run(catalogs.fetch(pool.backends, 0.0))
    able, lacks = pool.run(catalogs.sort_out(pool.backends, GRAPH, 1.0))
    # Of whom nothing is known nothing is said.
    assert [backend.index for backend in able] == [0, 2, 3, 4, 5]
    assert [lack.class_type for lack in lacks[pool.backends[1]]] == ["KSampler"]
    assert catalogs.get(pool.backends[2]) is None


def test_before_nobody_can_all_are_asked_again(pool: Pool) -> None:
    catalogs = Catalogs()
    pool.classes = dict.fromkeys(pool.backends, b"{}")
    pool.run(catalogs.fetch(pool.backends, 0.0))
    pool.asked.clear()
    able, _ = pool.run(catalogs.sort_out(pool.backends, GRAPH, FRESH - 1))
    assert (able, pool.asked) == ([], [])
    pool.classes[pool.backends[1]] = b'{"KSampler": {}}'
    able, _ = pool.run(catalogs.sort_out(pool.backends, GRAPH, FRESH))
    assert able == [pool.backends[1]]
    # It was among the first, so the others were not asked.
    assert pool.asked == [0, 1, 2, 3]


def test_equal_answers_are_read_once(pool: Pool) -> None:
    catalogs = Catalogs()
    pool.run(catalogs.fetch(pool.backends, 0.0))
    assert len({id(catalogs.get(backend)) for backend in pool.backends}) == 1
    first = pool.backends[0]
    for number in range(MAX_TEXTS + 1):
        pool.classes[first] = json.dumps({f"Node{number}": {}}).encode()
        pool.run(catalogs.fetch([first], 1.0))
    catalog = catalogs.get(first)
    assert catalog is not None
    assert list(catalog.classes) == [f"Node{MAX_TEXTS}"]


def test_answers_are_shared_with_whoever_shows_them(pool: Pool) -> None:
    shared = []
    catalogs = Catalogs(lambda reply, now: shared.append((reply.backend.index, now)))
    pool.classes[pool.backends[1]] = None
    pool.run(catalogs.fetch(pool.backends[:2], 7.0))
    assert shared == [(0, 7.0)]


def test_it_is_known_who_still_has_to_answer(pool: Pool) -> None:
    catalogs, backend = Catalogs(), pool.backends[0]
    assert not catalogs.is_answered(backend)
    fetching = catalogs.fetch([backend], 0.0)
    next(fetching)
    assert not catalogs.is_answered(backend)
    assert catalogs.due([backend], 0.0) == []
    fetching.close()
    assert catalogs.is_answered(backend)
