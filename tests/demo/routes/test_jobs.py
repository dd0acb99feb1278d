"""/api/jobs over HTTP."""

import json
from typing import Any

import pytest

UNKNOWN = "0f8fad3c-93f1-4a0e-8d1f-24f6c0ffee12"


def test_the_list_is_only_there_under_its_own_name(bench: Any) -> None:
    assert bench.get("/api/jobs")["pagination"]["limit"] is None
    assert bench.ask("GET", "/jobs").status == 404
    assert bench.get("/api/api/jobs")["jobs"] == []


def test_a_job_is_found_while_it_waits_runs_and_after(bench: Any, sampled_picture: dict[str, Any]) -> None:
    prompt_id = bench.prompt(sampled_picture)
    seen = [bench.get(f"/api/jobs/{prompt_id}")["status"]]
    bench.clock.advance(0)
    seen.append(bench.get(f"/api/jobs/{prompt_id}")["status"])
    bench.run()
    seen.append(bench.get(f"/api/jobs/{prompt_id}")["status"])
    assert seen == ["pending", "in_progress", "completed"]


def test_an_unknown_job_is_not_found(bench: Any) -> None:
    answer = bench.ask("GET", f"/api/jobs/{UNKNOWN}")
    assert (answer.status, json.loads(answer.body)) == (404, {"error": "Job not found"})


def test_a_bad_query_is_refused(bench: Any) -> None:
    assert bench.ask("GET", "/api/jobs?limit=0").status == 400


def test_cancelling_stops_what_runs_or_waits_and_is_idempotent(
    bench: Any, sampled_picture: dict[str, Any]
) -> None:
    running, waiting = (bench.prompt(sampled_picture) for _ in range(2))
    bench.clock.pump([0, 0])
    for prompt_id, cancelled in [(running, True), (waiting, True), (waiting, False), (UNKNOWN, False)]:
        assert bench.post(f"/api/jobs/{prompt_id}/cancel") == {"cancelled": cancelled}
    bench.run()
    assert bench.post(f"/api/jobs/{running}/cancel") == {"cancelled": False}
    assert bench.get(f"/api/jobs/{running}")["status"] == "cancelled"


def test_several_jobs_are_cancelled_at_once(bench: Any, sampled_picture: dict[str, Any]) -> None:
    ids = [bench.prompt(sampled_picture) for _ in range(3)]
    assert bench.post("/api/jobs/cancel", {"job_ids": [UNKNOWN, *ids]}) == {"cancelled": True}
    assert bench.post("/api/jobs/cancel", {"job_ids": [UNKNOWN, *ids]}) == {"cancelled": False}
    assert bench.get("/prompt") == {"exec_info": {"queue_remaining": 0}}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "must be valid JSON"),
        ({}, "must be a list"),
        ([], "must be a list"),
        ({"job_ids": ["abc", 7]}, "invalid id"),
    ],
)
def test_a_bad_list_cancels_nothing(bench: Any, body: Any, error: str) -> None:
    answer = bench.ask("POST", "/api/jobs/cancel", body)
    assert answer.status == 400
    assert error in json.loads(answer.body)["error"]


def test_an_older_server_has_no_jobs(make_bench: Any) -> None:
    bench = make_bench(jobs_api=False)
    assert [bench.ask("GET", path).status for path in ("/api/jobs", f"/api/jobs/{UNKNOWN}")] == [404, 404]
    assert bench.ask("POST", "/api/jobs/cancel", {"job_ids": []}).status == 405
