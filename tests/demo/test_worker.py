"""The worker on its clock: one prompt at a time, at any speed, and nothing left behind."""

from typing import Any

import pytest
from twisted.internet.task import Clock

from comfyproxy.demo.machine import Installation, Machine
from comfyproxy.demo.queue import QueuedPrompt


def prompt(prompt_id: str, seconds: float = 2.0) -> QueuedPrompt:
    graph: dict[str, dict[str, Any]] = {
        "1": {"class_type": "DemoSampler", "inputs": {"seed": 1, "steps": 2, "seconds": seconds}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    return QueuedPrompt(0, prompt_id, graph, {}, ("2",), {})


class Timed:
    """A machine at some speed, and how long it takes."""

    def __init__(self, speed: float) -> None:
        self.clock = Clock()
        self.machine = Machine(Installation("gpu-1", 0.5), self.clock, speed)

    def add(self, prompt_id: str) -> None:
        self.machine.queue.put(prompt(prompt_id))
        self.machine.worker.wake()

    def run(self) -> float:
        while calls := self.clock.getDelayedCalls():
            self.clock.advance(max(0.0, calls[0].getTime() - self.clock.seconds()))
        return self.clock.seconds()


@pytest.mark.parametrize(("speed", "seconds"), [(1.0, 2.0), (4.0, 0.5), (0.5, 4.0), (0.0, 0.0)])
def test_speed_is_how_many_times_faster_than_life(speed: float, seconds: float) -> None:
    timed = Timed(speed)
    timed.add("a")
    assert timed.run() == pytest.approx(seconds)
    assert list(timed.machine.queue.history) == ["a"]


def test_prompts_run_one_after_the_other() -> None:
    timed = Timed(1.0)
    for prompt_id in "ab":
        timed.machine.queue.put(prompt(prompt_id, seconds=2.0 if prompt_id == "a" else 3.0))
    timed.machine.worker.wake()
    timed.clock.pump([0, 0, 1.0, 0.9])
    running = timed.machine.queue.running
    assert running is not None
    assert (running.prompt_id, len(timed.machine.queue)) == ("a", 2)
    assert timed.run() == pytest.approx(5.0)
    assert list(timed.machine.queue.history) == ["a", "b"]


def test_an_interrupt_hits_only_what_runs() -> None:
    timed = Timed(1.0)
    timed.machine.worker.interrupt()
    timed.add("a")
    timed.machine.worker.interrupt()  # it waits still
    timed.add("b")
    timed.clock.pump([0, 0, 0.5])
    timed.machine.worker.interrupt()
    timed.run()
    statuses = {name: entry["status"]["status_str"] for name, entry in timed.machine.queue.history.items()}
    assert statuses == {"a": "error", "b": "success"}


def test_a_stopped_worker_leaves_nothing_on_the_clock() -> None:
    timed = Timed(1.0)
    timed.add("a")
    timed.clock.pump([0, 0, 0.5])
    timed.machine.worker.stop()
    timed.machine.worker.wake()
    timed.machine.worker.interrupt()
    timed.machine.worker.stop()
    assert timed.clock.getDelayedCalls() == []
    assert timed.machine.queue.history == {}


def test_each_prompt_is_a_line_in_the_log() -> None:
    timed = Timed(1.0)
    timed.add("a")
    timed.run()
    assert [entry["m"] for entry in timed.machine.logs.entries] == ["Prompt executed in 2.00 seconds\n"]
