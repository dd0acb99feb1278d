"""How many prompts the pool has."""

import json
from typing import Any

import pytest

from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.merging.queue_length import queue_info, remaining, sum_remaining
from tests.comfyui.merging.servers import START, A, B, C, reply, silence


def says(count: Any) -> Any:
    return {"exec_info": {"queue_remaining": count}}


def test_the_prompts_of_all_servers_are_counted() -> None:
    assert sum_remaining([reply(A, says(2)), reply(B, says(0)), reply(C, says(3))]) == 5


def test_what_is_known_stands_in_for_a_server_that_does_not_answer() -> None:
    records = [
        Known("a", Status.PENDING, 0, START, A),
        Known("b", Status.IN_PROGRESS, 0, START, B),
        Known("c", Status.PENDING, 0, START, None),
        Known("d", Status.FAILED, 0, START, B),
    ]
    assert sum_remaining([reply(A, says(1)), silence(B)], records) == 3


@pytest.mark.parametrize(
    "strange", [[], {}, {"exec_info": 3}, says("1"), says(None), says(1.5), says(10**30)]
)
def test_a_strange_answer_is_none(strange: object) -> None:
    assert remaining(reply(A, strange)) is None


def test_no_server_has_less_than_nothing() -> None:
    assert remaining(reply(A, says(-3))) == 0


def test_the_answer_is_comfyuis() -> None:
    assert json.loads(queue_info(3)) == says(3)
