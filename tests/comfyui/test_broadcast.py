"""Requests that every server is to obey."""

from collections.abc import Callable, Sequence

import pytest

from comfyproxy.comfyui.broadcast import broadcast
from comfyproxy.core.balancing.operations import Ask, Reply
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import Decision, Refuse, Respond
from comfyproxy.core.http.http1 import parse_response_head

BODY = b'{"unload_models": true}'


def decided(pool: Pool, statuses: Sequence[int], fields: str = "") -> Decision:
    operation = broadcast(pool.backends, b"POST", b"/free", BODY, b"Comfy-User: x\r\n")
    assert operation.send(None) == tuple(
        Ask(backend, b"POST", b"/free", BODY, fields=b"Comfy-User: x\r\n") for backend in pool.backends
    )
    replies = tuple(
        Reply(backend, parse_response_head(f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode(), b"POST"), b"said")
        if status
        else Reply(backend, why="refused")
        for backend, status in zip(pool.backends, statuses, strict=True)
    )
    with pytest.raises(StopIteration) as done:
        operation.send(replies)
    decision: Decision = done.value.value
    return decision


@pytest.mark.parametrize("statuses", [(200, 200, 200), (500, 0, 200), (0, 404, 204)])
def test_one_success_is_enough(make_pool: Callable[..., Pool], statuses: Sequence[int]) -> None:
    decision = decided(make_pool(), statuses)
    assert isinstance(decision, Respond)
    assert decision.status < 300


def test_else_the_first_answer_counts(make_pool: Callable[..., Pool]) -> None:
    decision = decided(make_pool(), (0, 400, 500), "Content-Type: text/x\r\n")
    assert decision == Respond(400, b"said", b"text/x")


def test_silence_is_no_success(make_pool: Callable[..., Pool]) -> None:
    decision = decided(make_pool(), (0, 0, 0))
    assert isinstance(decision, Refuse)
    assert decision.status == 503
