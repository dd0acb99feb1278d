"""The jobs of the pool."""

import json
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.merging.documents import BadQuery
from comfyproxy.comfyui.merging.history import read_history
from comfyproxy.comfyui.merging.jobs import (
    JobsPage,
    JobsQuery,
    job_in_full,
    known_job,
    make_jobs,
    merge_jobs,
    read_jobs,
)
from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.merging.queue import read_queue
from comfyproxy.comfyui.merging.showing import Showing
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.demo.jobs import JobsQuery as SimulatedQuery
from comfyproxy.demo.jobs import list_jobs
from comfyproxy.demo.queue import PromptQueue, QueuedPrompt
from tests.comfyui.merging.servers import (
    START,
    A,
    B,
    C,
    entry,
    history,
    job,
    jobs,
    queue,
    reply,
    row,
    silence,
    vector,
)

ALL = JobsQuery()
SERVERS = (A, B, C)


def page(backend: Backend, *listed: Any, total: Any = None) -> JobsPage:
    found = read_jobs(reply(backend, jobs(*listed, total=total)))
    assert found is not None
    return found


def merged(*pages: JobsPage, query: JobsQuery = ALL, known: Any = (), asked: float = 0.0) -> Any:
    return json.loads(merge_jobs(pages, query, known, asked))


def ids(*pages: JobsPage, query: JobsQuery = ALL, known: Any = (), asked: float = 0.0) -> list[str]:
    return [one["id"] for one in merged(*pages, query=query, known=known, asked=asked)["jobs"]]


def known(prompt_id: str, status: Status = Status.PENDING, backend: Any = None, **more: Any) -> Known:
    return Known(prompt_id, status, 0, START, backend, **more)


# What is asked


def test_without_a_query_all_jobs_are_wanted_newest_first() -> None:
    assert JobsQuery.parse(b"") == ALL
    assert ALL.target() == b"/api/jobs?sort_by=created_at&sort_order=desc"


def test_the_queries_of_the_page() -> None:
    waiting = JobsQuery.parse(b"status=in_progress,pending&limit=200&offset=0")
    assert waiting == JobsQuery(frozenset((Status.IN_PROGRESS, Status.PENDING)), limit=200)
    assert (waiting.wants_queued, waiting.wants_ended) == (True, False)
    ended = JobsQuery.parse(b"status=completed,failed,cancelled&limit=64&offset=128")
    assert (ended.wants_queued, ended.wants_ended) == (False, True)
    assert (ended.limit, ended.offset) == (64, 128)


def test_each_server_is_asked_for_all_that_may_be_on_the_page() -> None:
    query = JobsQuery.parse(
        b"status=%20Failed%20,,pending&workflow_id=a%26b&limit=10&offset=5&sort_by=EXECUTION_DURATION&sort_order=Asc"
    )
    target, _, asked = query.target(3).partition(b"?")
    assert target == b"/api/jobs"
    assert parse_qs(asked.decode()) == {
        "status": ["failed,pending"],
        "workflow_id": ["a&b"],
        "limit": ["18"],
        "offset": ["0"],
        "sort_by": ["execution_duration"],
        "sort_order": ["asc"],
    }


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            b"status=done,x",
            "Invalid status value(s): done, x. "
            "Valid values: pending, in_progress, completed, failed, cancelled",
        ),
        (b"sort_by=id", "sort_by must be 'created_at' or 'execution_duration'"),
        (b"sort_order=up", "sort_order must be 'asc' or 'desc'"),
        (b"limit=x", "limit must be an integer"),
        (b"limit=0", "limit must be a positive integer"),
        (b"limit=-1", "limit must be a positive integer"),
        (b"offset=1.0", "offset must be an integer"),
    ],
)
def test_what_comfyui_refuses_is_refused_with_its_words(query: bytes, message: str) -> None:
    with pytest.raises(BadQuery) as refusal:
        JobsQuery.parse(query)
    assert str(refusal.value) == message


def test_an_offset_below_zero_is_none() -> None:
    assert JobsQuery.parse(b"offset=-3").offset == 0


# What is answered


def test_jobs_of_all_servers_are_listed_newest_first() -> None:
    one, other = page(A, job("c", created=3), job("a", created=1)), page(B, job("b", created=2))
    assert ids(one, other) == ["c", "b", "a"]
    assert ids(one, other, query=JobsQuery(descending=False)) == ["a", "b", "c"]


def test_jobs_by_how_long_they_took() -> None:
    def took(prompt_id: str, seconds: int) -> Any:
        return job(prompt_id, execution_start_time=START, execution_end_time=START + seconds)

    pages = (
        page(A, took("a", 5), job("w", "pending")),
        page(B, took("b", 7), job("s", execution_start_time="x")),
    )
    assert ids(*pages, query=JobsQuery(by_duration=True)) == ["b", "a", "w", "s"]


def test_a_page_of_them() -> None:
    pages = page(A, job("e", created=5), job("c", created=3), total=7), page(B, job("d", created=4), total=2)
    answer = merged(*pages, query=JobsQuery(limit=2, offset=1))
    assert [one["id"] for one in answer["jobs"]] == ["d", "c"]
    assert answer["pagination"] == {"offset": 1, "limit": 2, "total": 9, "has_more": True}


def test_the_last_page_has_no_more() -> None:
    answer = merged(page(A, job("a")), page(B, job("b")), query=JobsQuery(limit=5, offset=1))
    assert answer["pagination"] == {"offset": 1, "limit": 5, "total": 2, "has_more": False}


def test_the_limit_is_always_a_number() -> None:
    assert merged(page(A, job("a")), page(B, job("b")))["pagination"]["limit"] == 2
    assert merged()["pagination"] == {"offset": 0, "limit": 1, "total": 0, "has_more": False}


def test_a_job_that_two_servers_tell_of_is_listed_and_counted_once() -> None:
    pages = page(A, job("a", "pending"), total=4), page(B, job("a", "in_progress"), total=3)
    answer = merged(*pages)
    assert [(one["id"], one["status"]) for one in answer["jobs"]] == [("a", "in_progress")]
    assert answer["pagination"]["total"] == 6


def test_what_no_server_tells_of_is_listed_and_counted() -> None:
    died = Known(
        "f",
        Status.FAILED,
        2,
        START - 1,
        messages=(("execution_error", {"timestamp": START, "exception_message": "gone"}),),
    )
    records = [known("p", backend=B), known("r", Status.IN_PROGRESS, backend=B), died]
    answer = merged(page(A, job("a", created=START - 5)), known=records)
    assert [(one["id"], one["status"]) for one in answer["jobs"]] == [
        ("p", "pending"),
        ("r", "in_progress"),
        ("f", "failed"),
        ("a", "completed"),
    ]
    assert answer["pagination"]["total"] == 4
    assert answer["jobs"][2]["execution_error"]["exception_message"] == "gone"


def test_what_is_known_passes_the_same_filters() -> None:
    body = json.dumps({"prompt": {}, "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}}}).encode()
    records = [known("p", submission=lambda: body), known("q"), known("f", Status.CANCELLED)]
    assert ids(known=records, query=JobsQuery.parse(b"workflow_id=w")) == ["p"]
    assert ids(known=records, query=JobsQuery.parse(b"status=cancelled")) == ["f"]


def test_what_its_server_does_not_list_any_more_is_not_listed() -> None:
    record = known("p", backend=A, since=1.0)
    assert ids(page(A), known=[record], asked=2.0) == []
    assert ids(page(A), known=[record], asked=1.0) == ["p"]


def test_half_an_answer_says_nothing_against_a_prompt() -> None:
    half = make_jobs(A, None, [], ALL)
    assert not half.is_whole
    assert ids(half, known=[known("p", backend=A)], asked=2.0) == ["p"]


def test_a_moved_prompt_keeps_the_time_of_its_creation() -> None:
    pages = page(A, job("a", "pending", START + 9000)), page(B, job("b", "pending", START + 5))
    showing = Showing(created=lambda prompt_id: START if prompt_id == "a" else 0)
    listed = json.loads(merge_jobs(pages, ALL, showing=showing))["jobs"]
    assert [(one["id"], one["create_time"]) for one in listed] == [("b", START + 5), ("a", START)]


@pytest.mark.parametrize(
    "strange",
    [
        None,
        "x",
        {},
        job(3),  # type: ignore[arg-type]
        job("x", "done"),
        job("x", []),  # type: ignore[arg-type]
        job("x", created=None),  # type: ignore[arg-type]
        job("x", created=float("nan")),
    ],
)
def test_a_job_that_the_page_cannot_take_does_not_cost_the_others(strange: object) -> None:
    answer = merged(page(A, strange, job("a"), total=9))
    assert [one["id"] for one in answer["jobs"]] == ["a"]
    assert answer["pagination"]["total"] == 8


@pytest.mark.parametrize("total", ["x", None, -5, 0])
def test_a_strange_total_is_what_was_listed(total: object) -> None:
    document = jobs(job("a"), job("b"))
    document["pagination"]["total"] = total
    found = read_jobs(reply(A, document))
    assert found is not None
    assert found.total == 2


def test_a_server_may_forget_to_count() -> None:
    assert read_jobs(reply(A, {"jobs": [job("a")]})) == JobsPage(A, [job("a")], 1)


@pytest.mark.parametrize("strange", [[], {}, {"jobs": {}}, "x"])
def test_what_is_no_list_of_jobs_is_none(strange: object) -> None:
    assert read_jobs(reply(A, strange)) is None
    assert read_jobs(silence(A)) is None


# Servers without jobs


def test_the_jobs_of_a_server_without_them_are_those_of_one_with_them() -> None:
    queued, ended = read_queue(reply(A, vector("queue.json"))), read_history(reply(A, vector("history.json")))
    expected = vector("jobs.json")
    waiting = JobsQuery.parse(b"status=pending,in_progress")
    found = merged(make_jobs(A, queued, None, waiting), query=waiting)
    assert found["jobs"] == expected["queue"]
    over = JobsQuery.parse(b"status=completed,failed,cancelled")
    assert merged(make_jobs(A, None, ended, over), query=over)["jobs"] == expected["history"]


def test_what_ended_between_the_two_questions_is_listed_once() -> None:
    queued, ended = read_queue(reply(A, queue([row("a")]))), read_history(reply(A, history(entry("a"))))
    found = make_jobs(A, queued, ended, ALL)
    assert [(one["id"], one["status"]) for one in found.jobs] == [("a", "completed")]
    assert found.is_whole


def test_made_jobs_pass_the_filters() -> None:
    failed = read_history(reply(A, history(entry("a"), entry("b", kind="error"))))
    found = make_jobs(A, None, failed, JobsQuery.parse(b"status=failed"))
    assert [one["id"] for one in found.jobs] == ["b"]
    assert (found.total, found.is_whole) == (1, True)


STATUSES = st.sampled_from([str(status) for status in Status])
JOBS = st.lists(st.tuples(st.integers(0, 2), STATUSES, st.integers(0, 5), st.sampled_from("vw")), max_size=12)
QUERIES = st.builds(
    JobsQuery,
    statuses=st.just(frozenset(Status)) | st.frozensets(st.sampled_from(Status), min_size=1),
    workflow_id=st.sampled_from(["", "v"]),
    descending=st.booleans(),
    limit=st.none() | st.integers(1, 6),
    offset=st.integers(0, 6),
)


def as_one(listed: list[Any], query: JobsQuery) -> tuple[list[Any], int]:
    """What a single ComfyUI that had them all would answer."""
    found = [one for one in listed if one["status"] in query.statuses]
    if query.workflow_id:
        found = [one for one in found if one["workflow_id"] == query.workflow_id]
    found.sort(key=lambda one: one["create_time"], reverse=query.descending)
    stop = None if query.limit is None else query.offset + query.limit
    return found[query.offset : stop], len(found)


@given(JOBS, QUERIES)
def test_many_servers_answer_as_one_would(spread: list[tuple[int, str, int, str]], query: JobsQuery) -> None:
    listed = [
        (where, job(str(place), status, created, workflow_id=workflow))
        for place, (where, status, created, workflow) in enumerate(spread)
    ]
    pages = []
    for index, backend in enumerate(SERVERS):
        asked = JobsQuery.parse(query.target().partition(b"?")[2])
        shown, total = as_one([one for where, one in listed if where == index], asked)
        pages.append(page(backend, *shown, total=total))
    answer = merged(*pages, query=query)
    expected, total = as_one([one for _, one in listed], query)
    assert answer["pagination"]["total"] == total
    assert answer["pagination"]["has_more"] == (query.offset + len(expected) < total)
    assert [one["create_time"] for one in answer["jobs"]] == [one["create_time"] for one in expected]
    if query.limit is None and not query.offset:
        assert sorted(answer["jobs"], key=str) == sorted(expected, key=str)


# One job


def test_one_job_is_found_where_it_is() -> None:
    full = vector("job.json")[3]
    found = job_in_full(full["id"], [(B, full)], {})
    assert found is not None
    assert json.loads(found) == full


def test_of_one_job_on_two_servers_the_one_that_is_further_counts() -> None:
    found = job_in_full("a", [(A, job("a", "pending")), (B, job("a", "in_progress"))], {})
    assert found is not None
    assert json.loads(found)["status"] == "in_progress"


def test_a_job_of_another_id_is_none() -> None:
    assert job_in_full("a", [(A, job("b")), (B, {"id": "a"})], {}) is None


def test_one_job_that_the_proxy_alone_knows() -> None:
    body = b'{"prompt": {"1": {"class_type": "SaveImage"}}, "client_id": "c"}'
    waiting = known("p", submission=lambda: body)
    found = job_in_full("p", [], {"p": waiting})
    assert found is not None
    assert json.loads(found) == known_job(waiting) | {
        "workflow": {
            "prompt": {"1": {"class_type": "SaveImage"}},
            "extra_data": {"client_id": "c", "create_time": START},
        }
    }
    ended = job_in_full("p", [], {"p": known("p", Status.FAILED)}, Showing())
    assert ended is not None
    assert json.loads(ended)["outputs"] == {}


def test_the_jobs_of_a_simulated_server_are_the_same_with_and_without_them() -> None:
    simulated = PromptQueue(lambda: None)
    for place, kind in enumerate(("success", "error", "interrupted", "success")):
        simulated.put(QueuedPrompt(place, f"p{place}", {}, {"create_time": START + place}, ("1",), {}))
        simulated.take()
        ended = entry(f"p{place}", place, kind=kind)
        simulated.done(ended["outputs"], {}, ended["status"])
    for place in range(4, 7):
        simulated.put(QueuedPrompt(place, f"p{place}", {}, {"create_time": START + place}, ("1",), {}))
    simulated.take()
    assert simulated.running is not None
    waiting = queue([simulated.running.row()], [prompt.row() for prompt in simulated.pending])
    queued, ended_rows = read_queue(reply(A, waiting)), read_history(reply(A, simulated.history))
    for asked in (
        b"limit=9",
        b"limit=2&offset=1",
        b"status=failed,pending&limit=9",
        b"sort_order=asc&limit=4",
    ):
        query = JobsQuery.parse(asked)
        expected = list_jobs(simulated, SimulatedQuery.parse(dict(parse_qsl(asked.decode()))))
        assert merged(make_jobs(A, queued, ended_rows, query), query=query) == expected
