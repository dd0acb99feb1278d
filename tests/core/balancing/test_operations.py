"""The steps of operations, driven by hand."""

import pytest

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Latch, Operation, Reply
from comfyproxy.core.balancing.routing import Respond
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.http.http1 import parse_response_head

ONE = Backend(Address("http", "one", 8188))
TWO = Backend(Address("http", "two", 8188))
OK = parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"GET")


def first_that_answers(backends: tuple[Backend, ...]) -> Operation:
    for backend in backends:
        reply = yield Ask(backend, b"GET", b"/prompt")
        if reply.status == 200:
            return Respond(200, reply.body, backend=backend)
    return Respond(200, b"{}")


def test_an_operation_is_driven_by_what_comes_of_its_steps() -> None:
    operation = first_that_answers((ONE, TWO))
    assert next(operation) == Ask(ONE, b"GET", b"/prompt")
    assert operation.send(Reply(ONE, why="refused", was_sent=False)) == Ask(TWO, b"GET", b"/prompt")
    with pytest.raises(StopIteration) as stopped:
        operation.send(Reply(TWO, OK, b"{}"))
    assert stopped.value.value == Respond(200, b"{}", backend=TWO)


def test_a_reply_without_an_answer_has_no_status() -> None:
    assert Reply(ONE, why="refused").status == 0
    assert Reply(ONE, OK).status == 200


def test_who_waits_for_a_latch_goes_on_when_it_opens_or_is_open() -> None:
    latch, went_on = Latch(), []
    latch.wait(lambda: went_on.append("first"))
    latch.wait(lambda: went_on.append("second"))
    assert went_on == []
    latch.open()
    latch.wait(lambda: went_on.append("late"))
    latch.open()
    assert went_on == ["first", "second", "late"]


def test_who_waits_for_a_latch_may_leave_at_any_time() -> None:
    latch, went_on = Latch(), []
    leave = latch.wait(lambda: went_on.append("gone"))
    latch.wait(lambda: went_on.append("there"))
    leave()
    latch.open()
    leave()
    assert went_on == ["there"]
