"""The lists of a pool, asked of servers that answer, do not answer, and are of different ages."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.merging.jobs import MIN_SPARE
from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.merging.showing import Showing
from comfyproxy.comfyui.views import MIN_TAIL, RETRY_JOBS, Views
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Operation, Reply, Wait
from comfyproxy.core.balancing.routing import Respond
from tests.comfyui.merging.servers import (
    START,
    A,
    Answers,
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
)

NOW = 100.0
TOO_LONG = Reply(A, why="too long", was_too_long=True)


def views(*known: Known) -> Views:
    return Views(lambda: known)


def old(
    backend: Backend, *entries: Any, running: Any = (), pending: Any = ()
) -> dict[tuple[Backend, str], Any]:
    """A server that has no jobs."""
    return {(backend, "/queue"): queue(running, pending), (backend, "/history"): history(*entries)}


def ended(operation: Operation, result: Any) -> Any:
    """What ``operation`` returns when its step comes to ``result``."""
    with pytest.raises(StopIteration) as end:
        operation.send(result)
    return end.value.value


def refused(operation: Operation) -> tuple[int, Any]:
    decision = Answers({}).run(operation)
    assert isinstance(decision, Respond)
    return decision.status, json.loads(decision.body)


def ids(document: Any) -> list[str]:
    return [one["id"] for one in document["jobs"]]


# Queue and history


def test_the_queue_is_asked_of_all_at_once() -> None:
    servers = Answers({(A, "/queue"): queue([row("a")]), (B, "/queue"): queue([], [row("b")])})
    assert servers.json(views().queue([A, B], NOW)) == queue([row("a")], [row("b")])
    assert servers.rounds == [2]


def test_without_servers_the_lists_are_empty() -> None:
    servers = Answers({})
    assert servers.json(views().queue([], NOW)) == queue()
    assert servers.json(views().history([], b"", NOW)) == {}
    assert servers.json(views().jobs([], b"", NOW))["jobs"] == []
    assert servers.json(views().remaining([], NOW)) == {"exec_info": {"queue_remaining": 0}}
    assert servers.json(views().history_of([], "x")) == {}


def test_servers_that_fail_leave_a_list_all_the_same() -> None:
    servers = Answers({(A, "/queue"): silence(A), (B, "/queue"): reply(B, status=500)})
    known = Known("p", Status.PENDING, 0, START, A)
    assert [one[1] for one in servers.json(views(known).queue([A, B], NOW))["queue_pending"]] == ["p"]


def test_what_is_known_now_counts_and_not_what_was_known_when_the_servers_were_asked() -> None:
    known: list[Known] = []
    asked = Views(lambda: known).queue([A], NOW)
    next(asked)
    known.append(Known("p", Status.PENDING, 0, START, A, since=NOW + 1))
    with pytest.raises(StopIteration) as end:
        asked.send((reply(A, queue()),))
    assert [one[1] for one in json.loads(end.value.value.body)["queue_pending"]] == ["p"]


def test_a_list_is_given_again_for_a_moment() -> None:
    servers = Answers({(A, "/queue"): queue([row("a")])})
    lists = views()
    assert servers.json(lists.queue([A], NOW)) == servers.json(lists.queue([A], NOW + 0.4))
    assert servers.rounds == [1]
    servers.json(lists.queue([A], NOW + 0.6))
    assert servers.rounds == [1, 1]


def test_after_an_event_a_list_is_new() -> None:
    servers = Answers({(A, "/queue"): queue([row("a")]), (A, "/history"): {}})
    lists = views()
    servers.json(lists.queue([A], NOW))
    servers.answers[A, "/queue"] = queue()
    lists.changed()
    assert servers.json(lists.queue([A], NOW)) == queue()


def test_after_an_event_of_a_server_only_its_queue_is_asked_for() -> None:
    servers = Answers({(A, "/queue"): queue([row("a")]), (B, "/queue"): queue([row("b")])})
    lists = Views(lambda: (), is_watched=lambda _backend: True)
    servers.json(lists.queue([A, B], NOW))
    servers.answers[A, "/queue"] = queue()
    lists.changed(A)
    assert servers.json(lists.queue([A, B], NOW + 1)) == queue([row("b")])
    assert servers.asked[2:] == [(A, "/queue")]


def test_who_asks_while_the_servers_are_asked_gets_the_same_answer() -> None:
    lists = views()
    first, second = lists.queue([A], NOW), lists.queue([A], NOW)
    next(first)
    waiting = next(second)
    assert isinstance(waiting, Wait)
    assert not waiting.latch.is_open
    answer = ended(first, (reply(A, queue([row("a")])),))
    assert waiting.latch.is_open
    assert ended(second, None) == answer


def test_after_an_event_nobody_waits_for_what_was_asked_before_it() -> None:
    lists = views()
    before = lists.queue([A], NOW)
    next(before)
    lists.changed()
    assert isinstance(next(lists.queue([A], NOW)), tuple)


def test_where_the_first_left_the_next_asks() -> None:
    lists = views()
    first, second, third = (lists.queue([A], NOW) for _ in range(3))
    next(first)
    next(second)
    next(third)
    first.close()
    assert isinstance(second.send(None), tuple)
    assert isinstance(third.send(None), Wait)
    answer = ended(second, (reply(A, queue([row("a")])),))
    assert ended(third, None) == answer


def test_each_query_has_its_own_answer() -> None:
    servers = Answers(old(A, entry("a", 1), entry("b", 2)))
    lists = views()
    assert list(servers.json(lists.history([A], b"max_items=1", NOW))) == ["b"]
    assert list(servers.json(lists.history([A], b"", NOW))) == ["a", "b"]
    assert servers.asked == [(A, "/history?max_items=1"), (A, "/history")]


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        ("history", b"max_items=x", "max_items must be an integer"),
        ("jobs", b"limit=0", "limit must be a positive integer"),
    ],
)
def test_a_query_that_is_none_is_refused(path: str, query: bytes, message: str) -> None:
    assert refused(getattr(views(), path)([A], query, NOW)) == (400, {"error": message})


def test_of_a_history_that_is_too_long_the_latest_entries_are_shown() -> None:
    servers = Answers(
        {
            (A, "/history"): TOO_LONG,
            (A, f"/history?max_items={MIN_TAIL}"): TOO_LONG,
            (A, f"/history?max_items={MIN_TAIL // 4}"): history(entry("a", 1)),
            (B, "/history"): history(entry("b", 2)),
        }
    )
    assert list(servers.json(views().history([A, B], b"", NOW))) == ["a", "b"]


def test_a_history_that_is_always_too_long_is_given_up() -> None:
    servers = Answers({(A, "/history"): TOO_LONG})
    assert servers.json(views().history([A], b"max_items=3", NOW)) == {}
    assert servers.asked == [(A, "/history?max_items=3")] * 2


def test_the_length_of_all_queues() -> None:
    servers = Answers({(A, "/prompt"): {"exec_info": {"queue_remaining": 2}}, (B, "/prompt"): silence(B)})
    known = Known("p", Status.PENDING, 0, START, B)
    assert servers.json(views(known).remaining([A, B], NOW)) == {"exec_info": {"queue_remaining": 3}}


# One prompt


def test_one_entry_is_asked_for_by_its_id() -> None:
    servers = Answers({(A, "/history/a%2Fb"): {}, (B, "/history/a%2Fb"): history(entry("a/b"))})
    assert servers.json(views().history_of([A, B], "a/b")) == history(entry("a/b"))
    assert servers.rounds == [2]


def test_who_wants_to_know_is_told_what_a_prompt_made() -> None:
    told: list[Any] = []
    lists = Views(lambda: (), told=lambda *what: told.append(what))
    outputs = entry("a")["outputs"]
    full = job("a", outputs=outputs, workflow={"prompt": {}, "extra_data": {"client_id": "c"}})
    servers = Answers({(A, "/history/a"): history(entry("a", client_id="c")), (B, "/api/jobs/a"): full})
    servers.json(lists.history_of([A], "a"))
    servers.json(lists.job([B], "a", NOW))
    assert [(made, backend, extra["client_id"]) for made, backend, extra in told] == [
        (outputs, A, "c"),
        (outputs, B, "c"),
    ]


@pytest.mark.parametrize(
    "full", [job("a"), job("a", outputs={}), job("a", outputs={}, workflow={"extra_data": 3})]
)
def test_of_half_a_job_nobody_is_told(full: Any) -> None:
    lists = Views(lambda: (), told=lambda *_what: pytest.fail("told"))
    Answers({(A, "/api/jobs/a"): full}).json(lists.job([A], "a", NOW))


def test_an_unknown_job_is_not_found() -> None:
    servers = Answers({(A, "/api/jobs/x"): reply(A, {"error": "Job not found"}, status=404)})
    decision = servers.run(views().job([A], "x", NOW))
    assert (decision.status, json.loads(decision.body)) == (404, {"error": "Job not found"})
    assert servers.asked == [(A, "/api/jobs/x")]


def test_a_job_that_only_the_proxy_knows_is_found() -> None:
    servers = Answers({(A, "/api/jobs/p"): silence(A)})
    found = servers.json(views(Known("p", Status.PENDING, 0, START, A)).job([A], "p", NOW))
    assert found["status"] == "pending"


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        (old(A, running=[row("x"), row("p")]) | {(A, "/history/p"): {}}, "in_progress"),
        (old(A, pending=[row("p")]) | {(A, "/history/p"): {}}, "pending"),
        (old(A) | {(A, "/history/p"): history(entry("p"), entry("x"))}, "completed"),
    ],
)
def test_a_job_of_a_server_without_jobs_is_made(answers: Any, status: str) -> None:
    servers = Answers(answers)
    found = servers.json(views().job([A], "p", NOW))
    assert (found["id"], found["status"]) == ("p", status)
    assert set(found["workflow"]) == {"prompt", "extra_data"}
    assert servers.rounds == [1, 1, 1]


# The list of jobs


def test_jobs_are_asked_of_all_at_once() -> None:
    servers = Answers(
        {(A, "/api/jobs"): jobs(job("a", created=1)), (B, "/api/jobs"): jobs(job("b", created=2))}
    )
    assert ids(servers.json(views().jobs([A, B], b"limit=5", NOW))) == ["b", "a"]
    assert servers.asked[0][1].endswith(f"&offset=0&limit={5 + MIN_SPARE}")
    assert servers.rounds == [2]


def test_after_an_event_only_its_server_is_asked_again() -> None:
    servers = Answers({(A, "/api/jobs"): jobs(job("a", "pending")), (B, "/api/jobs"): jobs(job("b"))})
    lists = Views(lambda: (), is_watched=lambda _backend: True)
    assert set(ids(servers.json(lists.jobs([A, B], b"", NOW)))) == {"a", "b"}
    servers.answers[A, "/api/jobs"] = jobs(job("a", "in_progress"))
    lists.changed(A)
    shown = servers.json(lists.jobs([A, B], b"", NOW + 1))["jobs"]
    assert {one["id"]: one["status"] for one in shown} == {"a": "in_progress", "b": "completed"}
    assert [backend for backend, _ in servers.asked] == [A, B, A]


def test_after_an_event_of_a_server_without_jobs_it_is_asked_again() -> None:
    servers = Answers({**old(A, pending=[row("a")]), **old(B, entry("b"))})
    lists = Views(lambda: (), is_watched=lambda _backend: True)
    servers.json(lists.jobs([A, B], b"", NOW))
    before = len(servers.asked)
    lists.changed(A)
    assert set(ids(servers.json(lists.jobs([A, B], b"", NOW + 1)))) == {"a", "b"}
    assert servers.asked[before:] == [(A, "/queue"), (A, "/history")]


@pytest.mark.parametrize(("moved", "spare"), [(0, 32), (1, 64), (32, 64), (33, 128), (1000, 256)])
def test_about_as_many_moved_jobs_make_the_same_question(moved: int, spare: int) -> None:
    servers = Answers({(A, "/api/jobs"): jobs()})
    known = [Known(str(place), Status.PENDING, 0, START, A) for place in range(moved)]
    servers.json(views(*known).jobs([A], b"limit=5", NOW))
    assert servers.asked[0][1].endswith(f"&limit={5 + spare}")


def test_jobs_of_servers_of_different_ages_are_one_list() -> None:
    new = {(A, "/api/jobs"): jobs(job("a", created=START))}
    servers = Answers(new | old(B, entry("b", 1), running=[row("r", created=START + 9)]))
    assert ids(servers.json(views().jobs([A, B], b"", NOW))) == ["r", "a", "b"]
    assert servers.asked[2:] == [(B, "/queue"), (B, "/history")]


def test_a_server_without_jobs_is_not_asked_for_them_again_for_a_while() -> None:
    servers = Answers(old(A))
    lists = views()
    for now in (NOW, NOW + 1, NOW + RETRY_JOBS + 1):
        servers.json(lists.jobs([A], b"", now))
    asked = [target.partition("?")[0] for _, target in servers.asked]
    assert asked == [
        "/api/jobs",
        "/queue",
        "/history",
        "/queue",
        "/history",
        "/api/jobs",
        "/queue",
        "/history",
    ]


def test_a_server_that_fails_is_not_taken_for_an_old_one() -> None:
    servers = Answers({(A, "/api/jobs"): reply(A, status=500), (B, "/api/jobs"): silence(B)})
    assert ids(servers.json(views().jobs([A, B], b"", NOW))) == []
    assert len(servers.asked) == 2


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        (b"status=pending", ["/queue"]),
        (b"status=failed", ["/history"]),
        (b"sort_order=asc&limit=3", ["/queue", "/history"]),
        (b"sort_by=execution_duration&limit=3", ["/queue", "/history"]),
        (b"status=failed&limit=3", [f"/history?max_items={MIN_TAIL}"]),
        (b"status=failed&limit=300&offset=20", ["/history?max_items=640"]),
    ],
)
def test_a_server_without_jobs_is_asked_for_what_it_takes(query: bytes, asked: list[str]) -> None:
    servers = Answers(old(A))
    servers.json(views().jobs([A], query, NOW))
    assert [target for _, target in servers.asked[1:]] == asked


def test_more_of_a_history_is_asked_for_until_the_page_is_full() -> None:
    entries = [entry(f"f{place}", place, kind="error") for place in range(3)]
    entries += [entry(f"c{place}", place + 10) for place in range(MIN_TAIL)]
    servers = Answers(old(A, *entries))
    servers.answers[A, f"/history?max_items={MIN_TAIL}"] = history(*entries[-MIN_TAIL:])
    answer = servers.json(views().jobs([A], b"status=failed&limit=2", NOW))
    assert ids(answer) == ["f2", "f1"]
    assert answer["pagination"]["has_more"]
    assert [target for _, target in servers.asked[2:]] == [f"/history?max_items={4 * MIN_TAIL}"]


def test_a_full_page_is_enough() -> None:
    entries = [entry(f"c{place}", place) for place in range(MIN_TAIL)]
    servers = Answers(old(A, *entries))
    answer = servers.json(views().jobs([A], b"status=completed&limit=64", NOW))
    assert len(answer["jobs"]) == 64
    assert answer["pagination"]["has_more"]
    assert len(servers.asked) == 2


@pytest.mark.parametrize("silent", ["/queue", "/history"])
def test_half_of_a_server_without_jobs_is_better_than_nothing(silent: str) -> None:
    servers = Answers(old(A, entry("h"), running=[row("r")]) | {(A, silent): silence(A)})
    known = Known("p", Status.PENDING, 0, START, A)
    found = ids(servers.json(views(known).jobs([A], b"", NOW)))
    assert set(found) == {"p", "h" if silent == "/queue" else "r"}


def test_nothing_of_a_server_without_jobs() -> None:
    servers = Answers({(A, "/queue"): silence(A), (A, "/history"): silence(A), **old(C, entry("c"))})
    assert ids(servers.json(views().jobs([A, C], b"", NOW))) == ["c"]


def test_jobs_are_shown_as_one_server_would_show_them() -> None:
    def marked(outputs: Any, backend: Backend) -> Any:
        return {**outputs, "on": backend.address.host}

    picture = job("a", preview_output={"filename": "a.png"})
    servers = Answers({(A, "/api/jobs"): jobs(picture)})
    known: Iterable[Known] = ()
    shown = Views(lambda: known, Showing(mark=marked)).jobs([A], b"", NOW)
    assert servers.json(shown)["jobs"][0]["preview_output"] == {"filename": "a.png", "on": "server1"}


# Servers that say anything

WORDS = st.sampled_from(
    [
        "queue_running",
        "queue_pending",
        "jobs",
        "pagination",
        "total",
        "id",
        "status",
        "create_time",
        "prompt",
        "outputs",
        "status_str",
        "messages",
        "execution_start",
        "execution_error",
        "timestamp",
        "workflow",
        "extra_data",
        "extra_pnginfo",
        "images",
        "text",
        "filename",
        "type",
        "p",
        "1",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=3)
ANYTHING = st.recursive(
    SCALARS,
    lambda values: st.lists(values, max_size=6) | st.dictionaries(WORDS, values, max_size=6),
    max_leaves=12,
)
ROWS = st.tuples(SCALARS, st.just("p"), ANYTHING, ANYTHING, ANYTHING).map(list)
ENTRIES = st.fixed_dictionaries({"prompt": ROWS | ANYTHING, "outputs": ANYTHING, "status": ANYTHING})
JOBS = st.fixed_dictionaries(
    {
        "id": st.just("p"),
        "status": st.sampled_from(Status) | ANYTHING,
        "create_time": SCALARS,
        "outputs": ANYTHING,
    }
)
STRANGE = {
    "/queue": st.fixed_dictionaries({"queue_running": st.lists(ROWS) | ANYTHING, "queue_pending": ANYTHING}),
    "/history": st.dictionaries(st.just("p"), ENTRIES | ANYTHING),
    "/history/p": st.dictionaries(st.just("p"), ENTRIES | ANYTHING),
    "/api/jobs": st.fixed_dictionaries({"jobs": st.lists(JOBS | ANYTHING), "pagination": ANYTHING}),
    "/api/jobs/p": JOBS | ANYTHING,
    "/prompt": ANYTHING,
}


@given(st.fixed_dictionaries({}, optional=STRANGE), st.binary(max_size=40))
def test_whatever_a_server_says_the_answer_is_json_that_browsers_read(said: Any, query: bytes) -> None:
    servers = Answers({(A, path): document for path, document in said.items()})
    lists = views(Known("p", Status.PENDING, 0, START, A))
    for operation in (
        lists.queue([A], NOW),
        lists.remaining([A], NOW),
        lists.history([A], b"", NOW),
        lists.history([A], query, NOW),
        lists.history_of([A], "p"),
        lists.jobs([A], b"", NOW),
        lists.jobs([A], query, NOW),
        lists.jobs([A], b"limit=2&status=failed", NOW),
        lists.jobs([A], b"sort_by=execution_duration", NOW),
        lists.job([A], "p", NOW),
        lists.job([A], "\ud800/..", NOW),
    ):
        decision = servers.run(operation)
        assert decision.status in (200, 400, 404)
        json.loads(decision.body, parse_constant=pytest.fail)
