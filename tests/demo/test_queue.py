"""The queue and the history."""

from typing import Any

import pytest

from comfyproxy.demo import queue as queue_module
from comfyproxy.demo.queue import PromptQueue, QueuedPrompt


class Counted:
    """A queue, and how often it said that it had changed."""

    def __init__(self) -> None:
        self.changes = 0
        self.queue = PromptQueue(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def put(self, prompt_id: str, number: float = 0) -> None:
        self.queue.put(QueuedPrompt(number, prompt_id, {}, {}, ("9",), {"api_key_comfy_org": "secret"}))

    def finish(self, prompt_id: str) -> None:
        self.put(prompt_id)
        self.queue.take()
        self.queue.done({}, {}, {"status_str": "success", "completed": True, "messages": []})


@pytest.fixture
def counted() -> Counted:
    return Counted()


def ids(prompts: list[QueuedPrompt]) -> list[str]:
    return [prompt.prompt_id for prompt in prompts]


def test_the_smallest_number_runs_first(counted: Counted) -> None:
    for prompt_id, number in [("b", 2), ("front", -3), ("a", 1), ("between", 1.5)]:
        counted.put(prompt_id, number)
    taken = [counted.queue.take() for _ in range(4)]
    assert ids([prompt for prompt in taken if prompt]) == ["front", "a", "between", "b"]
    assert counted.queue.take() is None


def test_the_same_prompt_twice_is_two_prompts(counted: Counted) -> None:
    counted.put("a")
    counted.put("a")
    assert (len(counted.queue), ids(counted.queue.pending)) == (2, ["a", "a"])


def test_what_runs_still_counts_as_remaining(counted: Counted) -> None:
    counted.put("a")
    counted.queue.take()
    assert (len(counted.queue), counted.queue.pending) == (1, [])


def test_the_status_goes_out_as_often_as_in_comfyui(counted: Counted) -> None:
    def changes(step: Any) -> int:
        before = counted.changes
        step()
        return counted.changes - before

    assert changes(lambda: counted.put("a")) == 1
    assert changes(lambda: counted.put("b")) == 1
    assert changes(lambda: counted.queue.delete("nobody")) == 0
    assert changes(lambda: counted.queue.delete("a")) == 1
    assert changes(lambda: counted.queue.delete("b")) == 2  # the last one is removed by clearing
    assert changes(lambda: counted.finish("c")) == 3
    assert changes(counted.queue.clear) == 1


def test_a_running_prompt_cannot_be_deleted(counted: Counted) -> None:
    counted.put("a")
    counted.queue.take()
    assert counted.queue.delete("a") is False
    assert counted.queue.running is not None


def test_deleting_keeps_the_order_of_the_others(counted: Counted) -> None:
    for number in (5, 1, 4, 2, 3):
        counted.put(str(number), number)
    assert counted.queue.delete("1") is True
    assert ids([prompt for _ in range(4) if (prompt := counted.queue.take())]) == ["2", "3", "4", "5"]


def test_no_answer_repeats_a_secret(counted: Counted) -> None:
    counted.finish("a")
    assert "secret" not in repr(counted.queue.history)
    assert counted.queue.history["a"]["prompt"] == [0, "a", {}, {}, ["9"]]


@pytest.mark.parametrize(
    ("max_items", "offset", "shown"),
    [
        (None, -1, "abcd"),
        (2, -1, "cd"),
        (9, -1, "abcd"),
        (2, 0, "ab"),
        (2, 1, "bc"),
        (None, 2, "cd"),
        (2, 9, ""),
        (0, -1, ""),
        (0, 0, "a"),  # ComfyUI looks at the limit only after it has taken one
    ],
)
def test_a_slice_of_the_history(counted: Counted, max_items: int | None, offset: int, shown: str) -> None:
    for prompt_id in "abcd":
        counted.finish(prompt_id)
    assert "".join(counted.queue.history_slice(max_items, offset)) == shown


def test_the_history_forgets_the_oldest(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "MAXIMUM_HISTORY", 2)
    for prompt_id in "abcd":
        counted.finish(prompt_id)
    assert "".join(counted.queue.history) == "bcd"


def test_the_history_forgets_what_it_is_told_to(counted: Counted) -> None:
    for prompt_id in "abc":
        counted.finish(prompt_id)
    counted.queue.delete_history(["b", "nobody"])
    assert "".join(counted.queue.history) == "ac"


def test_flags_are_taken_once(counted: Counted) -> None:
    counted.queue.flags["free_memory"] = True
    assert (counted.queue.take_flags(), counted.queue.take_flags()) == ({"free_memory": True}, {})
