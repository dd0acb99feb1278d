"""One prompt is shown at a time, and nothing that happens once is lost."""

from collections.abc import Hashable

import pytest

from tests.comfyui.fanin.rig import Script, SessionRig, begun, picture, preview, text, whole


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
    rig.begin("A", "B")
    rig.says(0, "execution_success", {"prompt_id": "A"})
    script.take()
    rig.finishes(1, "B")
    assert script.kinds() == []
    rig.says(0, "executing", {"node": None, "prompt_id": "A"})
    assert [kind for kind in script.kinds() if kind != "status"] == ["executing None A", *whole("B")]


def test_of_those_that_ended_meanwhile_the_first_to_end_is_told_of_first(
    rig: SessionRig, script: Script
) -> None:
    rig.begin("A", "B", "C")
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
    rig.begin("A", "B")
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
    rig.begin("A", "B")
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
    rig.begin("A", "B")
    rig.gives(1, "B")
    script.take()
    rig.add(2, "B")
    assert script.kinds() == []
    rig.starts(2, "B")
    rig.finishes(2, "B")
    assert script.kinds()[:5] == [*whole("B"), "execution_start A"]
