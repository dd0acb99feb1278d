"""What is kept of a prompt's events."""

import json

import pytest

from comfyproxy.comfyui.fanin.frames import Frame, ProgressText, event
from comfyproxy.comfyui.fanin.story import MAX_EVENT, MAX_TEXTS, Story

LARGE = b"x" * (MAX_EVENT + 1)


@pytest.fixture
def story() -> Story:
    return Story("A", 1)


def payloads(frames: object) -> list[bytes]:
    assert hasattr(frames, "__iter__")
    return [frame.payload for frame in frames]


def test_it_opens_with_its_start_and_what_was_cached(story: Story) -> None:
    assert payloads(story.opening()) == []
    story.begin(b"start", 1.0)
    story.finds_cached(b"cached")
    assert payloads(story.opening()) == [b"start", b"cached"]


@pytest.mark.parametrize("payload", [None, LARGE])
def test_a_start_that_nobody_heard_or_could_keep_is_made(story: Story, payload: bytes | None) -> None:
    story.begin(payload, 1.5)
    made = event("execution_start", {"prompt_id": "A", "timestamp": 1500})
    assert payloads(story.opening()) == [made]


def test_the_present_is_the_node_at_work_and_the_newest_progress(story: Story) -> None:
    story.goes_to("4", b"executing 4")
    story.advances(Frame(b"1/2"), is_state=False)
    story.advances(Frame(b"state 1"), is_state=True)
    story.advances(Frame(b"2/2"), is_state=False)
    assert payloads(story.present()) == [b"executing 4", b"state 1", b"2/2"]


def test_results_are_told_once_to_each_client(story: Story) -> None:
    story.keep(Frame(b"1"))
    assert payloads(story.results()) == [b"1"]
    story.keep(Frame(b"2"))
    assert payloads(story.results()) == [b"2"]
    story.told = 0
    assert payloads(story.results()) == [b"1", b"2"]


def test_the_node_of_a_picture_is_said_before_it_once(story: Story) -> None:
    story.keep(Frame(b"picture 0", True))
    story.goes_to("2", b"executing 2")
    story.keep(Frame(b"picture 1", True))
    story.keep(Frame(b"picture 2", True))
    story.goes_to("3", b"executing 3")
    story.keep(Frame(b"picture 3", True))
    told = [b"picture 0", b"executing 2", b"picture 1", b"picture 2", b"executing 3", b"picture 3"]
    assert payloads(story.results()) == told


def test_pictures_are_forgotten_first_then_the_oldest_results(story: Story) -> None:
    for payload, is_binary in ((b"result 1", False), (b"picture", True), (b"result 22", False)):
        story.keep(Frame(payload, is_binary))
    assert (story.shed(), payloads(story.kept)) == (7, [b"result 1", b"result 22"])
    assert (story.shed(), payloads(story.kept)) == (8, [b"result 22"])
    assert story.size == len(b"result 22")


def test_forgetting_what_was_told_has_nothing_told_twice(story: Story) -> None:
    for payload in (b"1", b"2", b"3"):
        story.keep(Frame(payload))
    assert payloads(story.results()) == [b"1", b"2", b"3"]
    story.keep(Frame(b"4"))
    story.shed()
    assert payloads(story.results()) == [b"4"]


def test_forgetting_what_was_not_told_leaves_the_rest_to_tell(story: Story) -> None:
    story.keep(Frame(b"1"))
    assert payloads(story.results()) == [b"1"]
    story.keep(Frame(b"picture", True))
    story.keep(Frame(b"2"))
    story.shed()
    assert payloads(story.results()) == [b"2"]


def test_it_closes_with_its_ending_and_that_nothing_is_executed(story: Story) -> None:
    assert payloads(story.closing()) == []
    story.end(b"ending", "execution_success", {}, 3.0)
    assert payloads(story.closing()) == [b"ending"]
    story.is_over = True
    assert payloads(story.closing()) == [
        b"ending",
        b'{"type": "executing", "data": {"node": null, "prompt_id": "A"}}',
    ]


def test_an_ending_that_is_large_loses_what_makes_it_large(story: Story) -> None:
    data = {"prompt_id": "A", "exception_message": "why", "current_inputs": {"a": "x" * MAX_EVENT}}
    story.end(event("execution_error", data), "execution_error", data, 3.0)
    assert json.loads(story.ending)["data"] == {"prompt_id": "A", "exception_message": "why"}


@pytest.mark.parametrize("message", ["x" * MAX_EVENT, "deep"])
def test_an_ending_that_cannot_be_kept_is_told_all_the_same(story: Story, message: str) -> None:
    data = {"prompt_id": "A", "exception_message": message}
    if message == "deep":
        deep: list[object] = []
        for _ in range(100_000):
            deep = [deep]
        data["executed"] = deep  # type: ignore[assignment]
    story.end(LARGE, "execution_error", data, 3.0)
    assert json.loads(story.ending) == {
        "type": "execution_error",
        "data": {"prompt_id": "A", "timestamp": 3000},
    }


def test_what_is_too_large_to_keep_is_not_kept(story: Story) -> None:
    story.begin(b"start", 1.0)
    story.finds_cached(LARGE)
    story.goes_to("4", LARGE)
    story.advances(Frame(LARGE), is_state=False)
    story.advances(Frame(LARGE), is_state=True)
    assert payloads(story.opening()) == [b"start"]
    assert payloads(story.present()) == []


def test_the_newest_text_of_each_node_is_kept_in_bounds(story: Story) -> None:
    for number in range(MAX_TEXTS + 1):
        story.says(ProgressText(None, b"%d" % number, b"words"))
    story.says(ProgressText(None, b"large", b"x" * 20_000))
    assert len(story.texts) == MAX_TEXTS


def test_it_has_news_when_more_was_said_than_that_it_runs(story: Story) -> None:
    story.begin(b"start", 1.0)
    assert story.has_begun
    assert not story.has_news
    story.finds_cached(b"cached")
    assert story.has_news


def test_nothing_is_left_when_it_begins_anew(story: Story) -> None:
    story.begin(b"start", 1.0)
    story.goes_to("4", b"executing 4")
    story.keep(Frame(b"1"))
    story.says(ProgressText(None, b"4", b"words"))
    story.end(b"ending", "execution_success", {}, 3.0)
    story.restart()
    told = [*story.opening(), *story.results(), *story.present(), *story.closing()]
    assert (told, story.has_begun, story.has_news, story.size) == ([], False, False, 0)
    assert story.texts == {}
