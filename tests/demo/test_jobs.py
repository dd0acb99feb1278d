"""/api/jobs as a view of the queue and the history."""

from typing import Any

import pytest

from comfyproxy.demo.jobs import BadQuery, JobsQuery, find_job, is_job_id, list_jobs
from comfyproxy.demo.queue import PromptQueue, QueuedPrompt

PICTURE = {"filename": "a.png", "subfolder": "", "type": "output"}
PREVIEW = {"filename": "p.png", "subfolder": "", "type": "temp"}


def prompt(prompt_id: str, created: int, workflow: str = "") -> QueuedPrompt:
    extra: dict[str, Any] = {"create_time": created}
    if workflow:
        extra["extra_pnginfo"] = {"workflow": {"id": workflow}}
    return QueuedPrompt(created, prompt_id, {}, extra, ("9",), {})


def finish(queue: PromptQueue, ended: QueuedPrompt, end: str, seconds: int, outputs: dict[str, Any]) -> None:
    queue.put(ended)
    queue.take()
    success = end == "execution_success"
    messages = [["execution_start", {"timestamp": 1000}], [end, {"timestamp": 1000 + seconds * 1000}]]
    status = {"status_str": "success" if success else "error", "completed": success, "messages": messages}
    queue.done(outputs, {}, status)


@pytest.fixture
def queue() -> PromptQueue:
    queue = PromptQueue(lambda: None)
    finish(queue, prompt("done", 1, "w"), "execution_success", 5, {"9": {"images": [PREVIEW, PICTURE]}})
    finish(queue, prompt("broken", 2), "execution_error", 1, {})
    finish(queue, prompt("stopped", 3), "execution_interrupted", 9, {})
    for waiting in (prompt("running", 4), prompt("waiting", 5, "w")):
        queue.put(waiting)
    queue.take()
    return queue


def ids(queue: PromptQueue, **query: str) -> list[str]:
    return [job["id"] for job in list_jobs(queue, JobsQuery.parse(query))["jobs"]]


def test_the_newest_job_comes_first(queue: PromptQueue) -> None:
    assert ids(queue) == ["waiting", "running", "stopped", "broken", "done"]
    assert ids(queue, sort_order="asc") == ["done", "broken", "stopped", "running", "waiting"]


def test_each_status_has_its_name(queue: PromptQueue) -> None:
    statuses = {job["id"]: job["status"] for job in list_jobs(queue, JobsQuery())["jobs"]}
    assert statuses == {
        "waiting": "pending",
        "running": "in_progress",
        "done": "completed",
        "broken": "failed",
        "stopped": "cancelled",
    }


def test_jobs_are_filtered_and_sorted(queue: PromptQueue) -> None:
    assert ids(queue, status="in_progress, Pending") == ["waiting", "running"]
    assert ids(queue, workflow_id="w") == ["waiting", "done"]
    assert ids(queue, sort_by="execution_duration", status="completed,failed,cancelled") == [
        "stopped",
        "done",
        "broken",
    ]


def test_without_a_limit_the_answer_says_null(queue: PromptQueue) -> None:
    pagination = list_jobs(queue, JobsQuery())["pagination"]
    assert pagination == {"offset": 0, "limit": None, "total": 5, "has_more": False}


def test_a_page_says_whether_there_is_more(queue: PromptQueue) -> None:
    page = list_jobs(queue, JobsQuery.parse({"limit": "2", "offset": "1"}))
    assert [job["id"] for job in page["jobs"]] == ["running", "stopped"]
    assert page["pagination"] == {"offset": 1, "limit": 2, "total": 5, "has_more": True}
    last = list_jobs(queue, JobsQuery.parse({"limit": "2", "offset": "3"}))
    assert last["pagination"]["has_more"] is False


def test_the_preview_of_a_job_is_a_saved_picture_before_a_temporary_one(queue: PromptQueue) -> None:
    done = list_jobs(queue, JobsQuery.parse({"status": "completed"}))["jobs"][0]
    assert done["preview_output"] == PICTURE | {"nodeId": "9", "mediaType": "images"}
    assert (done["outputs_count"], done["execution_end_time"]) == (2, 6000)
    broken = list_jobs(queue, JobsQuery.parse({"status": "failed"}))["jobs"][0]
    assert "preview_output" not in broken
    assert broken["execution_error"] == {"timestamp": 2000}


def test_one_job_comes_with_its_workflow_and_its_outputs(queue: PromptQueue) -> None:
    done, waiting = find_job(queue, "done"), find_job(queue, "waiting")
    assert done is not None
    assert waiting is not None
    assert done["outputs"] == {"9": {"images": [PREVIEW, PICTURE]}}
    assert done["execution_status"]["completed"] is True
    assert waiting["workflow"]["extra_data"]["create_time"] == 5
    assert find_job(queue, "nobody") is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"status": "done"}, "Invalid status value"),
        ({"sort_by": "name"}, "sort_by must be"),
        ({"sort_order": "up"}, "sort_order must be"),
        ({"limit": "0"}, "limit must be a positive"),
        ({"limit": "x"}, "limit must be an integer"),
        ({"offset": "x"}, "offset must be an integer"),
    ],
)
def test_a_bad_query_is_told_why(query: dict[str, str], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        JobsQuery.parse(query)


def test_a_negative_offset_is_none() -> None:
    assert JobsQuery.parse({"offset": "-3"}).offset == 0


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("0f8fad3c-93f1-4a0e-8d1f-24f6c0ffee12", True),
        ("0F8FAD3C-93F1-4A0E-8D1F-24F6C0FFEE12", False),
        ("0f8fad3c93f14a0e8d1f24f6c0ffee12", False),
        ("abc", False),
        (7, False),
        (None, False),
    ],
)
def test_a_job_id_is_a_uuid_in_canonical_form(value: object, valid: bool) -> None:
    assert is_job_id(value) is valid
