"""The queue of the pool."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.merging.queue import QueuePage, merge_queue, read_page, read_queue
from comfyproxy.comfyui.merging.showing import PLAIN, Showing
from tests.comfyui.merging.servers import START, A, B, C, queue, reply, row, silence, vector


def pages(*replies: Any, asked: float = 0.0, showing: Showing = PLAIN) -> list[QueuePage]:
    return [page for one in replies if (page := read_page(one, asked, showing)) is not None]


def merged(*replies: Any, known: Any = (), asked: float = 0.0) -> tuple[list[str], list[str]]:
    document = json.loads(merge_queue(pages(*replies, asked=asked), known))
    assert set(document) == {"queue_running", "queue_pending"}
    return [one[1] for one in document["queue_running"]], [one[1] for one in document["queue_pending"]]


def known(prompt_id: str, status: Status = Status.PENDING, backend: Any = None, **more: Any) -> Known:
    return Known(prompt_id, status, 0, START, backend, **more)


def test_the_queue_of_one_server_is_that_queue() -> None:
    real = vector("queue.json")
    assert json.loads(merge_queue(pages(reply(A, real)))) == real


def test_what_waits_anywhere_is_listed_by_number() -> None:
    one = queue([row("a", 1)], [row("b", 6), row("c", -2.5)])
    other = queue([], [row("e", 3)])
    assert merged(reply(A, one), reply(B, other)) == (["a"], ["c", "e", "b"])


def test_what_has_run_for_longest_runs_and_what_runs_beside_it_comes_next() -> None:
    replies = (
        reply(A, queue([row("a", 1)])),
        reply(B, queue([row("b", 2)], [row("d", 0)])),
        reply(C, queue([row("c", 3)])),
    )
    assert merged(*replies) == (["a"], ["b", "c", "d"])
    began = {"a": 9.0, "b": 8.0, "c": 7.0}
    records = [known(name, Status.IN_PROGRESS, B, since=began[name]) for name in "abc"]
    assert merged(*replies, known=records, asked=10.0) == (["c"], ["b", "a", "d"])
    assert merged(*replies, known=records[1:2], asked=10.0) == (["b"], ["a", "c", "d"])


def test_of_the_same_number_the_older_comes_first() -> None:
    one, other = queue([], [row("a", 1, START + 1)]), queue([], [row("b", 1, None), row("c", 1, START)])
    assert merged(reply(A, one), reply(B, other)) == ([], ["b", "c", "a"])


def test_servers_that_do_not_answer_cost_nothing_but_their_rows() -> None:
    replies = reply(A, queue([row("a")])), silence(B), reply(C, status=500)
    assert merged(*replies) == (["a"], [])
    assert merged(silence(A)) == ([], [])


def test_what_a_silent_server_has_is_listed_as_it_is_known() -> None:
    records = [known("p", backend=B), known("r", Status.IN_PROGRESS, B), known("x", Status.FAILED, B)]
    assert merged(reply(A, queue([row("a")])), silence(B), known=records) == (["r"], ["a", "p"])


def test_what_is_on_its_way_is_listed() -> None:
    assert merged(reply(A, queue()), known=[known("p")]) == ([], ["p"])


def test_what_its_server_does_not_list_any_more_is_not_listed() -> None:
    assert merged(reply(A, queue()), known=[known("p", backend=A, since=1.0)], asked=2.0) == ([], [])


def test_a_prompt_that_two_servers_tell_of_is_listed_once() -> None:
    before, after = reply(A, queue([], [row("p")])), reply(B, queue([row("p")]))
    assert merged(before, after) == (["p"], [])
    assert merged(before, after, known=[known("p", backend=A)]) == ([], ["p"])


def test_a_prompt_that_one_server_has_twice_is_listed_twice() -> None:
    assert merged(reply(A, queue([row("p")], [row("p")]))) == (["p"], ["p"])


def test_a_moved_prompt_keeps_the_time_of_its_creation() -> None:
    showing = Showing(created=lambda _prompt_id: START)
    replies = reply(A, queue([], [row("p", 0, START + 9999)]))
    document = json.loads(merge_queue(pages(replies, showing=showing)))
    assert document["queue_pending"][0][3]["create_time"] == START


@pytest.mark.parametrize(
    "strange",
    [
        None,
        [],
        "x",
        [1, "p", {}, {}],
        [True, "p", {}, {}, []],
        [float("nan"), "p", {}, {}, []],
        ["1", "p", {}, {}, []],
        [1, 2, {}, {}, []],
        [1, "p", [], {}, []],
        [1, "p", {}, None, []],
        [1, "p", {}, {}, None],
    ],
)
def test_what_is_no_row_is_left_out(strange: object) -> None:
    assert merged(reply(A, queue([strange], [strange, row("a")]))) == ([], ["a"])


@pytest.mark.parametrize("strange", [[], "x", {"queue_running": {}}, {"queue_pending": 3}, {}])
def test_what_is_no_queue_has_no_rows(strange: object) -> None:
    assert merged(reply(A, strange), reply(B, queue([row("b")]))) == (["b"], [])


def test_no_answer_is_no_queue() -> None:
    assert read_queue(silence(A)) is None
    assert read_queue(reply(A, [])) is None


def test_secrets_after_the_fifth_element_are_cut() -> None:
    document = json.loads(merge_queue(pages(reply(A, queue([[*row("a"), {"api_key_comfy_org": "x"}]])))))
    assert len(document["queue_running"][0]) == 5


@pytest.mark.parametrize("created", ["x", None, True, [1], 1e300])
def test_a_strange_time_does_not_disturb_the_order(created: object) -> None:
    strange = row("a")
    strange[3]["create_time"] = created
    assert merged(reply(A, queue([], [row("b"), strange]))) == ([], ["a", "b"])


ROWS = st.lists(
    st.builds(row, st.sampled_from("abcdef"), st.integers(-5, 5), st.sampled_from([START, START + 1, None])),
    max_size=4,
)


@given(st.lists(st.tuples(ROWS, ROWS), max_size=3))
def test_every_prompt_of_every_server_is_listed_and_no_other(
    queues: list[tuple[list[Any], list[Any]]],
) -> None:
    replies = [
        reply(backend, queue(running, pending))
        for backend, (running, pending) in zip((A, B, C), queues, strict=False)
    ]
    running, pending = merged(*replies)
    assert {*running, *pending} == {one[1] for pair in queues for rows in pair for one in rows}
    assert len(running) == any(rows for rows, _ in queues)


@given(st.lists(ROWS, max_size=3))
def test_what_waits_is_in_the_order_of_its_numbers(queues: list[list[Any]]) -> None:
    replies = [reply(backend, queue([], rows)) for backend, rows in zip((A, B, C), queues, strict=False)]
    numbers = [one[0] for one in json.loads(merge_queue(pages(*replies)))["queue_pending"]]
    assert numbers == sorted(numbers)


def test_an_answer_that_says_the_same_is_not_read_again() -> None:
    one, other = reply(A, queue([row("a")])), reply(A, queue([row("a")], [row("b")]))
    [page] = pages(one)
    again = read_page(one, 5.0, former=page)
    assert again is not None
    assert (again.listed, again.asked) == (page.listed, 5.0)
    assert again.listed is page.listed
    news = read_page(other, 5.0, former=page)
    assert news is not None
    assert [listed.prompt_id for listed in news.listed] == ["a", "b"]
    assert read_page(replace(one, head=None), former=page) is None


def test_a_page_has_the_size_of_its_rows() -> None:
    [empty], [page] = pages(reply(A, queue())), pages(reply(A, queue([row("a")])))
    assert empty.size == 1
    assert page.size == 1 + len(json.dumps(row("a"), separators=(",", ":")))


class Deep(Showing):
    """Shows a row that cannot be written for one prompt."""

    def row(self, row: Any) -> Any:
        deep: Any = []
        for _ in range(100_000 if row[1] == "deep" else 0):
            deep = [deep]
        return [*row[:2], deep, *row[3:]]


def test_a_row_that_is_too_deep_to_be_written_does_not_cost_the_others() -> None:
    read = pages(reply(A, queue([row("deep")], [row("b")])), showing=Deep())
    document = json.loads(merge_queue(read, [known("deep")], Deep()))
    assert [one[1] for one in document["queue_pending"]] == ["b"]
