"""Operations made of operations."""

import pytest

from comfyproxy.comfyui.steps import together
from comfyproxy.core.balancing.operations import AskAddress, Operation


def count(steps: int, closed: list[int]) -> Operation:
    answers = []
    try:
        for _ in range(steps):
            answers.append((yield AskAddress()))
    except GeneratorExit:
        closed.append(steps)
        raise
    return answers


def test_all_go_on_at_the_same_time_and_each_has_its_own_answers() -> None:
    operation = together([count(2, []), count(0, []), count(1, [])])
    assert operation.send(None) == (AskAddress(), AskAddress())
    assert operation.send((b"first", b"third")) == (AskAddress(),)
    with pytest.raises(StopIteration) as done:
        operation.send((b"again",))
    assert done.value.value == [[b"first", b"again"], [], [b"third"]]


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(together([])) == []
    assert list(together([count(0, []), count(0, [])])) == []


def test_who_is_not_waited_for_any_more_is_told() -> None:
    closed: list[int] = []
    operation = together([count(1, closed), count(2, closed)])
    operation.send(None)
    operation.send((b"", b""))
    operation.close()
    assert closed == [2]
