"""What a client hears again: one that comes back, and programs that wait for one prompt after the other."""

from collections.abc import Hashable

import pytest

from comfyproxy.comfyui.fanin import stage as stage_module
from comfyproxy.comfyui.fanin.stage import REPEAT_AFTER
from tests.comfyui.fanin.rig import Script, SessionRig, begun, whole


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
    rig.begin("A", "B")
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
    rig.begin("A", "B")
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
    rig.begin("A", "B")
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
