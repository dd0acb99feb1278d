"""The history of the pool."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.merging.documents import BadQuery
from comfyproxy.comfyui.merging.history import (
    HistoryQuery,
    ended_status,
    ending_time,
    history_of,
    merge_history,
    messages_of,
    read_history,
)
from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.merging.numbering import EndNumbers
from comfyproxy.comfyui.merging.showing import Showing
from comfyproxy.core.balancing.operations import Reply
from tests.comfyui.merging.servers import START, A, B, C, entry, history, reply, row, silence, vector

ALL = HistoryQuery()


def merged(*replies: Reply, query: HistoryQuery = ALL, known: Any = ()) -> list[str]:
    return list(json.loads(merge_history(replies, query, known)))


def unnumbered(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value | {"prompt": value["prompt"][1:]} for key, value in document.items()}


def died(prompt_id: str, ended: int, status: Status = Status.FAILED) -> Known:
    """A prompt that ended together with its server."""
    messages = (
        ("execution_start", {"prompt_id": prompt_id, "timestamp": START}),
        ("execution_error", {"prompt_id": prompt_id, "timestamp": START + ended}),
    )
    return Known(prompt_id, status, 3, START, messages=messages)


def test_the_history_of_one_server_is_that_history() -> None:
    real = vector("history.json")
    merged = json.loads(merge_history([reply(A, real)], ALL))
    assert unnumbered(merged) == unnumbered(real)
    assert list(merged) == list(real)


def test_numbers_grow_with_the_order_in_which_prompts_ended() -> None:
    """A page takes over only what has a greater number than all that it has."""
    one, other = history(entry("a", 4, number=7), entry("b", 9, number=0)), history(entry("c", 6, number=30))
    found = json.loads(merge_history([reply(A, one), reply(B, other)], ALL))
    numbers = [one["prompt"][0] for one in found.values()]
    assert list(found) == ["a", "c", "b"]
    assert numbers == sorted(set(numbers))


def test_what_another_server_had_ended_earlier_and_is_seen_later_has_a_greater_number() -> None:
    numbers = EndNumbers()

    def listed(a: bytes | Any, b: bytes | Any, query: HistoryQuery = ALL) -> dict[str, int]:
        answer = merge_history([reply(A, a), reply(B, b)], query, numbers=numbers)
        return {prompt_id: found["prompt"][0] for prompt_id, found in json.loads(answer).items()}

    first = listed(history(entry("a", 4)), history(entry("b", 9)))
    late = history(entry("a", 4), entry("c", 6))
    second = listed(late, history(entry("b", 9)))
    assert list(second) == ["a", "c", "b"]
    assert second["c"] > max(first.values())
    assert {one: second[one] for one in first} == first
    assert listed(late, history(entry("b", 9), entry("d", 50)))["c"] == second["c"]
    assert list(listed(late, history(), HistoryQuery(1, 0))) == ["a"]


@pytest.mark.parametrize(("query", "ids"), list(vector("history-slices.json").items()))
def test_of_one_server_the_same_entries_are_cut_as_by_it(query: str, ids: list[str]) -> None:
    assert merged(reply(A, vector("history.json")), query=HistoryQuery.parse(query.encode())) == ids


def test_histories_are_joined_in_the_order_in_which_prompts_ended() -> None:
    one, other = history(entry("a", 1), entry("c", 3)), history(entry("b", 2), entry("d", 4))
    assert merged(reply(A, one), reply(B, other)) == ["a", "b", "c", "d"]


def test_no_server_changes_the_order_of_its_own_entries() -> None:
    timeless = entry("b", 2)
    del timeless["status"]
    one = history(entry("a", 3), timeless, entry("c", 1))
    assert merged(reply(A, one), reply(B, history(entry("d", 4)))) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("query", "ids", "target"),
    [
        (b"", ["a", "b", "c", "d"], b"/history"),
        (b"max_items=3", ["b", "c", "d"], b"/history?max_items=3"),
        (b"max_items=2&offset=1", ["b", "c"], b"/history?max_items=3&offset=0"),
        (b"max_items=9&offset=3", ["d"], b"/history?max_items=12&offset=0"),
        (b"max_items=0&offset=1", ["b"], b"/history?max_items=2&offset=0"),
        (b"max_items=0", [], b"/history?max_items=0"),
        (b"max_items=-4", [], b"/history?max_items=0"),
        (b"offset=2", ["c", "d"], b"/history"),
        (b"offset=-1&max_items=1", ["d"], b"/history?max_items=1"),
    ],
)
def test_a_part_of_it_is_cut_from_the_whole(query: bytes, ids: list[str], target: bytes) -> None:
    one, other = history(entry("a", 1), entry("c", 3)), history(entry("b", 2), entry("d", 4))
    parsed = HistoryQuery.parse(query)
    assert merged(reply(A, one), reply(B, other), query=parsed) == ids
    assert parsed.target == target


def cut_by_server(listed: list[str], query: HistoryQuery) -> list[str]:
    """As ComfyUI counts."""
    offset = query.offset
    if offset < 0 and query.max_items is not None:
        offset = len(listed) - query.max_items
    found: list[str] = []
    for place, one in enumerate(listed):
        if place >= offset:
            found.append(one)
            if query.max_items is not None and len(found) >= query.max_items:
                break
    return found


@given(
    st.lists(st.lists(st.integers(0, 40), max_size=6), max_size=3),
    st.none() | st.integers(-2, 8),
    st.integers(-3, 8),
)
def test_what_the_servers_are_asked_for_is_enough(
    times: list[list[int]], max_items: int | None, offset: int
) -> None:
    query = HistoryQuery(max_items, offset)
    asked = HistoryQuery.parse(query.target.partition(b"?")[2])
    whole, parts = [], []
    for backend, ends in zip((A, B, C), times, strict=False):
        entries = {f"{backend.index}-{place}": end for place, end in enumerate(sorted(ends))}
        whole.append(reply(backend, history(*(entry(one, end) for one, end in entries.items()))))
        kept = cut_by_server(list(entries), asked)
        parts.append(reply(backend, history(*(entry(one, entries[one]) for one in kept))))
    assert merged(*parts, query=query) == cut_by_server(merged(*whole), query)


@pytest.mark.parametrize("query", [b"max_items=x", b"offset=", b"max_items=1.5"])
def test_what_is_no_number_is_refused(query: bytes) -> None:
    with pytest.raises(BadQuery, match="must be an integer"):
        HistoryQuery.parse(query)


def test_what_died_with_its_server_is_in_the_history() -> None:
    found = json.loads(merge_history([reply(A, history(entry("a", 1), entry("c", 3)))], ALL, [died("b", 2)]))
    assert list(found) == ["a", "b", "c"]
    assert found["b"]["prompt"] == [START + 2, "b", {}, {"create_time": START}, []]
    assert found["b"]["outputs"] == {}
    assert found["b"]["status"]["status_str"] == "error"
    assert found["b"]["status"]["completed"] is False
    assert [kind for kind, _ in found["b"]["status"]["messages"]] == ["execution_start", "execution_error"]


def test_what_ended_without_a_word_ended_when_it_was_created() -> None:
    silent = Known("b", Status.COMPLETED, 3, START + 2)
    assert merged(reply(A, history(entry("a", 1), entry("c", 3))), known=[silent]) == ["a", "b", "c"]


def test_what_waits_is_not_in_the_history() -> None:
    assert merged(silence(A), known=[Known("p", Status.PENDING, 0, START)]) == []


def test_servers_that_do_not_answer_cost_nothing_but_their_entries() -> None:
    assert merged(reply(A, history(entry("a"))), silence(B), reply(C, status=500)) == ["a"]


def test_a_prompt_that_ended_on_two_servers_is_listed_once() -> None:
    one, other = history(entry("a", 1, kind="error")), history(entry("a", 2))
    found = json.loads(merge_history([reply(A, one), reply(B, other)], ALL))
    assert unnumbered(found) == unnumbered(other)


def test_a_moved_prompt_keeps_the_time_of_its_creation() -> None:
    showing = Showing(created=lambda _prompt_id: START - 7000)
    found = json.loads(merge_history([reply(A, history(entry("a")))], ALL, showing=showing))
    assert found["a"]["prompt"][3]["create_time"] == START - 7000


@pytest.mark.parametrize(
    "strange",
    [
        None,
        [],
        {},
        {"prompt": [], "outputs": {}},
        {"prompt": row("x"), "outputs": []},
        {"prompt": row("x")},
        {"prompt": [*row("x")[:3], [], []], "outputs": {}},
        {"prompt": ["1", *row("x")[1:]], "outputs": {}},
    ],
)
def test_what_is_no_entry_is_left_out(strange: object) -> None:
    assert merged(reply(A, {"x": strange, **history(entry("a"))})) == ["a"]


@pytest.mark.parametrize("strange", [[], "x", 3])
def test_what_is_no_history_is_none(strange: object) -> None:
    assert read_history(reply(A, strange)) is None
    assert merged(reply(A, strange)) == []


@pytest.mark.parametrize(
    "status",
    [
        None,
        [],
        {},
        {"messages": 3},
        {
            "messages": [
                None,
                [],
                ["execution_start"],
                [1, {}],
                ["execution_start", None],
                ["execution_start", {}],
            ]
        },
        {"messages": [["execution_success", {"timestamp": "x"}], ["execution_start", {"timestamp": True}]]},
    ],
)
def test_an_entry_that_does_not_say_when_it_ended_is_kept(status: object) -> None:
    strange = entry("a") | {"status": status}
    assert ending_time(strange) == 0
    assert merged(reply(A, {"a": strange})) == ["a"]


def test_the_events_of_an_entry() -> None:
    assert [kind for kind, _ in messages_of(entry("a"))] == ["execution_start", "execution_success"]
    assert ending_time(entry("a", 5)) == START + 5


@pytest.mark.parametrize(
    ("kind", "status"),
    [("success", Status.COMPLETED), ("error", Status.FAILED), ("interrupted", Status.CANCELLED)],
)
def test_what_became_of_a_prompt(kind: str, status: Status) -> None:
    assert ended_status(entry("a", kind=kind)) is status


@pytest.mark.parametrize("status", [None, {"status_str": None}, "error"])
def test_what_does_not_say_how_it_ended_was_completed(status: object) -> None:
    assert ended_status(entry("a") | {"status": status}) is Status.COMPLETED


def test_one_entry_is_found_where_it_is() -> None:
    replies = reply(A, {}), silence(B), reply(C, history(entry("c")))
    assert json.loads(history_of("c", replies, {})) == history(entry("c"))


def test_an_unknown_prompt_is_no_error() -> None:
    assert history_of("x", [reply(A, {}), reply(B, history(entry("b"))), silence(C)], {}) == b"{}"


def test_of_a_prompt_on_two_servers_the_better_end_counts() -> None:
    replies = reply(A, history(entry("a", kind="error"))), reply(B, history(entry("a")))
    assert json.loads(history_of("a", replies, {})) == history(entry("a"))
    known = {"a": Known("a", Status.FAILED, 0, 0, A)}
    assert json.loads(history_of("a", replies, known)) == history(entry("a", kind="error"))


def test_an_entry_that_the_proxy_alone_knows_is_found() -> None:
    found = json.loads(history_of("b", [silence(A)], {"b": died("b", 2)}))
    assert found["b"]["status"]["messages"][1][0] == "execution_error"


def test_a_prompt_that_waits_has_no_entry_yet() -> None:
    assert history_of("p", [reply(A, {})], {"p": Known("p", Status.PENDING, 0, START)}) == b"{}"
