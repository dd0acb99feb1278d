"""One prompt is shown at a time, and nothing that happens once is lost."""

import json
from collections.abc import Hashable

import pytest

from comfyproxy.comfyui.fanin import stage as stage_module
from comfyproxy.comfyui.fanin.stage import REPEAT_AFTER
from tests.comfyui.fanin.rig import PAGE_FLAGS, Script, SessionRig, picture, preview, text


@pytest.fixture
def rig() -> SessionRig:
    """A session whose servers have greeted the client."""
    rig = SessionRig()
    rig.open(0, 1, 2)
    return rig


@pytest.fixture
def script(rig: SessionRig) -> Script:
    """A client that does not say what it supports."""
    return rig.script()


@pytest.fixture
def page(rig: SessionRig) -> Script:
    """A client that does."""
    page = rig.script()
    rig.session.from_client(page, json.dumps(PAGE_FLAGS).encode(), False, rig.now)
    return page


def whole(prompt: str, *middle: str, ending: str = "execution_success") -> list[str]:
    """The kinds of the messages by which a prompt is told of after the fact."""
    return [
        f"execution_start {prompt}",
        f"execution_cached {prompt}",
        *middle,
        f"{ending} {prompt}",
        f"executing None {prompt}",
    ]


def begun(prompt: str, node: str = "4") -> list[str]:
    return [f"execution_start {prompt}", f"execution_cached {prompt}", f"executing {node} {prompt}"]


def test_a_prompt_alone_is_shown_as_it_happens(rig: SessionRig, script: Script) -> None:
    rig.add(1, "A")
    rig.starts(1, "A")
    assert script.kinds() == begun("A")
    rig.says(1, "progress", {"value": 1, "max": 2, "node": "4", "prompt_id": "A"})
    assert script.keys == [("progress", "A", "4")]
    rig.gives(1, "A")
    rig.says(1, "execution_success", {"prompt_id": "A"})
    assert script.kinds() == ["progress A", "executed A", "execution_success A"]
    rig.says(1, "executing", {"node": None, "prompt_id": "A"})
    assert script.kinds()[0] == "executing None A"


def test_the_first_that_began_is_shown_and_the_other_after_it(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(1, "B")
    rig.starts(0, "A")
    rig.says(0, "progress_state", {"prompt_id": "A", "nodes": {}})
    assert script.kinds() == begun("B")
    rig.finishes(1, "B")
    assert script.kinds() == ["execution_success B", "executing None B", *begun("A"), "progress_state A"]


def test_another_that_ends_is_told_as_a_whole_and_the_shown_one_is_taken_up(
    rig: SessionRig, page: Script
) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.gives(0, "A")
    rig.starts(1, "B")
    rig.gives(1, "B")
    page.take()
    rig.finishes(1, "B", "execution_error")
    told = whole("B", "executed B", ending="execution_error")
    assert page.kinds() == [*told, "execution_start A", "execution_cached A", "executed A", "executing 4 A"]


def test_a_script_is_not_given_a_result_twice(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.gives(0, "A")
    rig.starts(1, "B")
    rig.finishes(1, "B")
    assert script.kinds().count("executed A") == 1


def test_nothing_comes_between_an_ending_and_the_last_event_of_what_is_shown(
    rig: SessionRig, script: Script
) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.starts(1, "B")
    rig.says(0, "execution_success", {"prompt_id": "A"})
    script.take()
    rig.finishes(1, "B")
    assert script.kinds() == []
    rig.says(0, "executing", {"node": None, "prompt_id": "A"})
    assert [kind for kind in script.kinds() if kind != "status"] == ["executing None A", *whole("B")]


def test_of_those_that_ended_meanwhile_the_first_to_end_is_told_of_first(
    rig: SessionRig, script: Script
) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.add(2, "C")
    for server, prompt in enumerate("ABC"):
        rig.starts(server, prompt)
    rig.says(0, "execution_success", {"prompt_id": "A"})
    rig.now += 0.1
    rig.finishes(2, "C")
    rig.now += 0.1
    rig.finishes(1, "B")
    script.take()
    rig.says(0, "executing", {"node": None, "prompt_id": "A"})
    assert [kind for kind in script.kinds() if kind.startswith("executing None")] == [
        "executing None A",
        "executing None C",
        "executing None B",
    ]


def test_previews_are_of_the_shown_prompt_alone(rig: SessionRig, page: Script) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.starts(1, "B")
    page.take()
    for payload in (preview("B"), picture(1, 1), preview("B", "image/png")):
        rig.sends(1, payload, True)
    assert page.take() == []
    rig.sends(0, preview("A"), True)
    keys: list[Hashable | None] = list(page.keys)
    assert keys[0] is not None
    assert page.take() == [preview("A")]


def test_a_script_gets_all_pictures_of_a_prompt_that_was_not_shown(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.starts(1, "B", "ws")
    script.take()
    pictures = [picture(1, 2, mark) for mark in (b"1", b"2", b"3")]
    for payload in pictures:
        rig.sends(1, payload, True)
        rig.sends(1, picture(1, 1), True)
    rig.finishes(1, "B")
    told = script.take()
    assert [one for one in told if isinstance(one, bytes)] == pictures
    assert told[2]["data"] == {"node": "ws", "display_node": "ws", "prompt_id": "B"}


def test_pictures_of_the_shown_prompt_all_reach_a_slow_script(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    script.take()
    rig.sends(0, picture(1, 2), True)
    rig.sends(0, picture(1, 1), True)
    assert script.keys == [None, "preview"]


def test_texts_of_another_prompt_are_shown_with_it(rig: SessionRig, page: Script) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.starts(1, "B")
    page.take()
    rig.sends(1, text("4", "half"), True)
    rig.sends(1, text("4", "done"), True)
    assert page.take() == []
    rig.sends(0, text("4", "here"), True)
    assert page.take() == [text("4", "here")]
    rig.finishes(1, "B")
    texts = [one for one in page.take() if isinstance(one, bytes)]
    assert texts == [text("4", "done"), text("4", "here")]


@pytest.mark.parametrize("named", [False, True])
def test_texts_come_in_the_form_that_was_agreed_on(rig: SessionRig, page: Script, named: bool) -> None:
    rig.says(0, "feature_flags", {"supports_progress_text_metadata": named})
    rig.says(1, "feature_flags", {"supports_progress_text_metadata": not named})
    rig.add(1, "A")
    rig.starts(1, "A")
    page.take()
    rig.sends(1, text("4", "step", "A"), True)
    rig.sends(1, text("4", "step"), True)
    assert page.take() == [text("4", "step", "A" if named else None)] * 2


def test_texts_come_as_they_are_to_who_said_nothing(rig: SessionRig, script: Script) -> None:
    rig.add(1, "A")
    rig.starts(1, "A")
    script.take()
    for payload in (text("4", "step", "A"), text("4", "step")):
        rig.sends(1, payload, True)
        assert script.take() == [payload]


def test_texts_where_nothing_of_the_client_runs_are_a_strangers(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    script.take()
    rig.sends(1, text("4", "step"), True)
    rig.sends(0, text("4", "step", "11111111-1111-4111-8111-111111111111"), True)
    assert script.take() == [text("4", "step", "11111111-1111-4111-8111-111111111111")]
    rig.says(0, "feature_flags", {"supports_progress_text_metadata": True})
    rig.sends(0, text("4", "step", "11111111-1111-4111-8111-111111111111"), True)
    assert script.take() == []


def test_a_prompt_that_begins_again_elsewhere_is_no_longer_shown_as_running(
    rig: SessionRig, script: Script
) -> None:
    rig.add(0, "A")
    rig.add(2, "C")
    rig.starts(0, "A")
    rig.starts(2, "C")
    script.take()
    rig.add(1, "A")
    (reset, *rest) = script.take()
    assert reset == {"type": "progress_state", "data": {"prompt_id": "A", "nodes": {}}}
    assert [one["data"]["prompt_id"] for one in rest] == ["C"] * 3
    rig.starts(1, "A")
    rig.finishes(2, "C")
    assert [kind for kind in script.kinds() if kind.endswith("A")] == begun("A")


def test_one_that_was_not_shown_begins_again_in_silence(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.starts(1, "B")
    rig.gives(1, "B")
    script.take()
    rig.add(2, "B")
    assert script.kinds() == []
    rig.starts(2, "B")
    rig.finishes(2, "B")
    assert script.kinds()[:5] == [*whole("B"), "execution_start A"]


# Coming back


def test_a_page_that_comes_back_is_told_what_ended_and_shown_what_runs(rig: SessionRig, page: Script) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.gives(0, "A")
    rig.starts(1, "B")
    rig.session.detach(page, rig.now)
    rig.gives(0, "A", "10")
    rig.finishes(1, "B")
    rig.says(0, "progress_state", {"prompt_id": "A", "nodes": {}})
    back: Script = rig.attach(Script())
    greeting, *rest = back.kinds()
    assert greeting == "status"
    assert rest == [
        *whole("B"),
        *("execution_start A", "execution_cached A", "executed A", "executed A", "executing 4 A"),
        "progress_state A",
    ]


def test_what_was_shown_goes_on_being_shown_to_who_comes_back(rig: SessionRig, page: Script) -> None:
    for server, prompt in ((0, "A"), (1, "B"), (2, "C")):
        rig.add(server, prompt)
    for server, prompt in ((1, "B"), (2, "C"), (0, "A")):
        rig.starts(server, prompt)
    rig.session.detach(page, rig.now)
    back = Script()
    rig.attach(back)
    assert back.kinds() == ["status", *begun("B")]


@pytest.mark.parametrize("is_away", [False, True])
def test_an_ending_is_told_once_though_the_client_came_back_before_the_last_event(
    rig: SessionRig, page: Script, is_away: bool
) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.starts(1, "B")
    rig.says(0, "execution_error", {"prompt_id": "A"})
    rig.session.detach(page, rig.now)
    back = Script()
    if not is_away:
        rig.attach(back)
    rig.says(0, "executing", {"node": None, "prompt_id": "A"})
    if is_away:
        rig.attach(back)
    assert [kind for kind in back.kinds() if kind != "status"] == ["executing None A", *begun("B")]


def test_an_ending_that_came_while_nobody_was_there_is_told_with_what_came_after(
    rig: SessionRig, page: Script
) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    rig.session.detach(page, rig.now)
    rig.says(0, "execution_error", {"prompt_id": "A"})
    back: Script = rig.attach(Script())
    assert back.kinds() == ["status", *begun("A"), "execution_error A"]
    rig.says(0, "executing", {"node": None, "prompt_id": "A"})
    assert back.kinds() == ["executing None A", "status"]


def test_what_ended_unseen_is_kept_in_bounds(
    rig: SessionRig, page: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "MAX_UNTOLD", 2)
    rig.session.detach(page, rig.now)
    for prompt in "ABC":
        rig.add(0, prompt)
        rig.starts(0, prompt)
        rig.finishes(0, prompt)
        rig.now += 1
    back: Script = rig.attach(Script())
    ended = [kind for kind in back.kinds() if kind.startswith("executing None")]
    assert ended == ["executing None B", "executing None C"]


def test_a_page_that_is_cut_off_while_it_is_told_hears_the_rest_when_it_is_back(
    rig: SessionRig, page: Script
) -> None:
    class Slow(Script):
        """Its connection breaks at the first ending."""

        def send(self, payload: bytes, is_binary: bool, key: Hashable | None = None) -> None:
            super().send(payload, is_binary, key)
            if b"execution_success" in payload:
                rig.session.detach(self, rig.now)

    rig.session.detach(page, rig.now)
    for prompt in "AB":
        rig.add(0, prompt)
        rig.starts(0, prompt)
        rig.finishes(0, prompt)
    rig.attach(Slow())
    back: Script = rig.attach(Script())
    assert [kind for kind in back.kinds() if "success" in kind] == [
        "execution_success A",
        "execution_success B",
    ]


def test_results_for_later_are_kept_in_bounds(
    rig: SessionRig, page: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "MAX_KEPT", 300)
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.starts(1, "B")
    page.take()
    for number in range(10):
        rig.gives(1, "B", str(number))
    rig.finishes(1, "B")
    results = [one["data"]["node"] for one in page.take() if one["type"] == "executed"]
    assert results == ["7", "8", "9"]


def test_a_program_that_comes_back_is_told_of_what_runs_alone_and_of_its_results_once(
    rig: SessionRig, script: Script
) -> None:
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.gives(0, "A")
    rig.starts(1, "B")
    rig.session.detach(script, rig.now)
    rig.gives(0, "A", "10")
    rig.finishes(1, "B")
    back: Script = rig.attach(Script())
    told = back.take()
    assert [one["data"].get("prompt_id") for one in told] == [None, "A", "A", "A", "A"]
    assert [one["data"]["node"] for one in told if one["type"] == "executed"] == ["10"]


def test_a_program_that_queued_before_it_listened_is_told_all_of_what_runs(rig: SessionRig) -> None:
    rig.add(0, "A", "B")
    rig.starts(0, "A")
    rig.finishes(0, "A")
    rig.starts(0, "B")
    rig.gives(0, "B")
    script: Script = rig.attach(Script())
    assert script.kinds() == ["status", *begun("B")[:2], "executed B", "executing 4 B"]


# Programs that wait for one prompt after the other


def queue_two(rig: SessionRig) -> None:
    """Two prompts of which the second ends first."""
    rig.add(0, "A")
    rig.add(1, "B")
    rig.starts(0, "A")
    rig.starts(1, "B")
    rig.gives(1, "B")
    rig.finishes(1, "B")


def test_early_endings_are_said_again_when_nothing_is_left(rig: SessionRig, script: Script) -> None:
    queue_two(rig)
    rig.add(2, "C")
    rig.finishes(0, "A")
    rig.starts(2, "C")
    rig.finishes(2, "C")
    rig.wait(REPEAT_AFTER - 0.5)
    script.take()
    rig.wait(0.75)
    assert script.kinds() == [*whole("A"), *whole("B", "executed B"), *whole("C")]
    rig.wait(5)
    assert script.kinds() == []


def test_nothing_is_said_again_while_something_is_left(rig: SessionRig, script: Script) -> None:
    queue_two(rig)
    script.take()
    rig.wait(10)
    assert script.kinds() == ["status"]


def test_nothing_is_said_again_when_all_ended_in_their_order(rig: SessionRig, script: Script) -> None:
    for server, prompt in enumerate("AB"):
        rig.add(server, prompt)
    for server, prompt in enumerate("AB"):
        rig.starts(server, prompt)
        rig.finishes(server, prompt)
    script.take()
    rig.wait(10)
    assert script.kinds() == []


def test_nothing_is_said_again_to_a_page(rig: SessionRig, page: Script) -> None:
    queue_two(rig)
    rig.finishes(0, "A")
    page.take()
    rig.wait(10)
    assert page.kinds() == []


def test_nothing_is_said_again_to_who_comes_back(rig: SessionRig, script: Script) -> None:
    queue_two(rig)
    rig.finishes(0, "A")
    rig.session.detach(script, rig.now)
    back = rig.script()
    rig.wait(10)
    assert back.kinds() == []


def test_no_more_is_said_again_than_may_be_kept(
    rig: SessionRig, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "MAX_REPEATED", 1)
    queue_two(rig)
    rig.finishes(0, "A")
    script.take()
    rig.wait(10)
    assert [kind for kind in script.kinds() if "None" in kind] == ["executing None A"]


@pytest.mark.parametrize("order", ["ABCD", "DCBA", "CADB", "BADC"])
def test_a_program_that_waits_in_the_order_of_submission_finds_every_end(
    rig: SessionRig, script: Script, order: str
) -> None:
    for server, prompt in enumerate("ABCD"):
        rig.add(server % 3, prompt)
    for prompt in order:
        server = "ABCD".index(prompt) % 3
        rig.starts(server, prompt)
        rig.finishes(server, prompt)
        rig.now += 0.1
    rig.wait(REPEAT_AFTER + 1)
    heard = iter(script.kinds())
    for prompt in "ABCD":
        assert f"executing None {prompt}" in heard
