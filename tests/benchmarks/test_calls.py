"""The counter behind the cost guard: it sees what the guard is there to see."""

from collections.abc import Iterator

import pytest

from benchmarks.calls import Calls, Counting, report


def twice(values: list[int]) -> int:
    """Two calls in C."""
    return len(values) + len(values)


@pytest.fixture
def counting() -> Iterator[Counting]:
    """A counter that is stopped whatever happens."""
    counting = Counting()
    yield counting
    counting.stop()


def test_calls_of_python_and_of_c_are_counted_for_each_request(counting: Counting) -> None:
    counting.start()
    for _ in range(10):
        twice([])
    counting.stop()
    calls = counting.result(requests=10, top=5)
    assert calls.python == pytest.approx(1, abs=0.2)  # `stop` is one too
    assert calls.c == pytest.approx(2, abs=0.2)
    assert calls.total == calls.python + calls.c


def test_the_functions_called_most_come_first_with_their_place(counting: Counting) -> None:
    counting.start()
    twice([])
    counting.stop()
    (first, _), (second, _) = counting.result(requests=1, top=2).top
    assert first == "len"
    assert second.startswith("twice (benchmarks/test_calls.py:")


def test_nothing_is_counted_before_and_after(counting: Counting) -> None:
    twice([])
    counting.start()
    counting.stop()
    twice([])
    assert not any(name == "len" for name, _ in counting.result(requests=1, top=9).top)


def test_the_report_says_what_is_system_calls() -> None:
    text = report("plain", Calls(python=3, c=4, system=2, top=[("len", 4.0)]))
    assert (
        text
        == "plain: 7.0 calls a request: 3.0 in Python, 4.0 in C, 2.0 of these system calls\n    4.00  len"
    )
