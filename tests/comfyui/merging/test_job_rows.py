"""Jobs made of the lists of servers that have none, against what ComfyUI 0.33 makes of the same lists."""

from typing import Any

import pytest

from comfyproxy.comfyui.merging.job_rows import (
    ended_job,
    ended_job_in_full,
    queued_job,
    queued_job_in_full,
)
from comfyproxy.comfyui.merging.known import Status
from tests.comfyui.merging.servers import START, entry, row, vector


def test_what_waits_and_what_runs() -> None:
    queue = vector("queue.json")
    made = [queued_job(one, Status.PENDING) for one in queue["queue_pending"]]
    made += [queued_job(one, Status.IN_PROGRESS) for one in queue["queue_running"]]
    expected = vector("jobs.json")["queue"]
    assert sorted(made, key=str) == sorted(expected, key=str)


def test_what_has_ended() -> None:
    made = [ended_job(prompt_id, one) for prompt_id, one in vector("history.json").items()]
    assert sorted(made, key=str) == sorted(vector("jobs.json")["history"], key=str)


def test_one_job_in_full() -> None:
    queue = vector("queue.json")
    made = [
        queued_job_in_full(queue["queue_running"][0], Status.IN_PROGRESS),
        queued_job_in_full(queue["queue_pending"][0], Status.PENDING),
    ]
    made += [ended_job_in_full(prompt_id, one) for prompt_id, one in vector("history.json").items()]
    assert made == vector("job.json")


def test_a_server_that_does_not_say_when_a_prompt_was_created() -> None:
    assert queued_job(row("a", created=None), Status.PENDING)["create_time"] == 0
    old = entry("a", 1000)
    del old["prompt"][3]["create_time"]
    assert ended_job("a", old)["create_time"] == START + 900


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"extra_pnginfo": []},
        {"extra_pnginfo": {"workflow": 3}},
        {"extra_pnginfo": {"workflow": {"id": 3}}},
    ],
)
def test_a_prompt_without_a_workflow_has_no_id_of_one(extra: Any) -> None:
    assert "workflow_id" not in queued_job(row("a", **extra), Status.PENDING)


def test_an_entry_without_events_has_no_times() -> None:
    assert set(ended_job("a", entry("a") | {"status": None})).isdisjoint(
        {"execution_start_time", "execution_end_time", "execution_error"}
    )
