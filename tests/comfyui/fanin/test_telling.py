"""Whose each message of a server is, and what becomes of it."""

import json

import pytest

from comfyproxy.comfyui.fanin import telling
from comfyproxy.comfyui.fanin.session import LINGER, NOTHING_LEFT
from comfyproxy.comfyui.fanin.telling import SILENCE, UNHEARD
from comfyproxy.comfyui.wire import MAX_ID
from tests.comfyui.fanin.page import Recording
from tests.comfyui.fanin.rig import PAGE_FLAGS, Script, SessionRig, picture, preview, spoken, text


@pytest.mark.parametrize("kind", ["progress", "progress_state", "execution_interrupted"])
def test_what_is_said_to_everybody_of_a_strangers_prompt_is_not_passed_on(
    rig: SessionRig, script: Script, kind: str
) -> None:
    rig.says(0, kind, {"prompt_id": "strange", "nodes": {}})
    assert spoken(script) == []


def test_a_prompt_of_which_only_its_client_is_told_is_the_clients(rig: SessionRig, script: Script) -> None:
    rig.says(1, "execution_cached", {"prompt_id": "A", "nodes": []})
    assert spoken(script) == ["execution_start A", "execution_cached A"]
    assert rig.backends[1] in rig.session.wanted
    rig.finishes(1, "A")
    assert spoken(script) == ["execution_success A", "executing None A"]
    rig.gives(1, "A")
    assert spoken(script) == []


def test_a_server_that_was_given_up_is_not_listened_to_any_more(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    rig.add(1, "A")
    rig.starts(1, "A")
    script.take()
    rig.executes(0, "A", "9")
    rig.gives(0, "A")
    rig.finishes(0, "A")
    rig.sends(0, preview("A"), True)
    assert spoken(script) == []


def test_a_prompt_that_begins_on_another_server_was_brought_there(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(1, "A")
    rig.finishes(1, "A")
    assert spoken(script)[-1] == "executing None A"


@pytest.mark.parametrize("prompt", ["", "x" * (MAX_ID + 1)])
def test_an_id_that_is_none_is_not_remembered(rig: SessionRig, script: Script, prompt: str) -> None:
    rig.starts(0, prompt)
    assert spoken(script) == []


def test_what_comes_first_of_a_running_prompt_begins_it(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.says(0, "progress_state", {"prompt_id": "A", "nodes": {}})
    start, state = script.take()
    assert start == {"type": "execution_start", "data": {"prompt_id": "A", "timestamp": int(rig.now * 1000)}}
    assert state["type"] == "progress_state"


def test_a_prompt_that_was_found_running_is_shown(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.session.runs("A", rig.now)
    rig.session.runs("A", rig.now)
    rig.session.runs("unknown", rig.now)
    assert spoken(script) == ["execution_start A"]
    rig.sends(0, picture(1, 1), True)
    assert spoken(script) == ["binary 1"]


def test_a_start_that_was_on_its_way_when_it_was_found_is_not_a_second_one(
    rig: SessionRig, script: Script
) -> None:
    rig.add(0, "A")
    rig.session.runs("A", rig.now)
    rig.starts(0, "A")
    assert spoken(script) == ["execution_start A", "execution_cached A", "executing 4 A"]


def test_a_second_start_on_the_same_server_is_a_second_run(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    rig.gives(0, "A")
    script.take()
    rig.starts(0, "A")
    assert spoken(script) == ["progress_state A", "execution_start A", "execution_cached A", "executing 4 A"]


def test_the_node_that_a_new_connection_names_is_the_prompts_that_runs_there(
    rig: SessionRig, script: Script
) -> None:
    rig.add(1, "A")
    rig.starts(1, "A")
    script.take()
    rig.says(1, "executing", {"node": 9})
    assert script.take()[-1]["data"] == {"node": "9", "display_node": "9", "prompt_id": "A"}
    rig.says(0, "executing", {"node": "9"})
    assert spoken(script) == []


@pytest.mark.parametrize("node", [["9"], {"a": 1}, 1.5])
def test_a_node_that_is_none_is_not_executed(rig: SessionRig, script: Script, node: object) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    script.take()
    rig.says(0, "executing", {"node": node, "prompt_id": "A"})
    assert spoken(script) == []


def test_a_prompt_that_is_submitted_again_under_its_id_runs_again(rig: SessionRig, script: Script) -> None:
    for _ in range(2):
        rig.add(0, "A")
        rig.starts(0, "A")
        rig.finishes(0, "A")
        assert spoken(script)[-2:] == ["execution_success A", "executing None A"]


def test_what_ended_unseen_gives_way_to_the_same_prompt_submitted_again(
    rig: SessionRig, script: Script
) -> None:
    rig.session.from_client(script, json.dumps(PAGE_FLAGS).encode(), False, rig.now)
    rig.session.detach(script, rig.now)
    rig.add(0, "A")
    rig.starts(0, "A")
    rig.finishes(0, "A")
    rig.add(1, "A")
    back: Script = rig.attach(Script())
    assert spoken(back) == []


def test_a_prompt_that_was_withdrawn_before_it_began_is_not_spoken_of(
    rig: SessionRig, script: Script
) -> None:
    rig.add(0, "A")
    rig.end("A")
    assert script.kinds() == []


def test_who_waits_for_a_prompt_that_the_ledger_ends_is_told(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    script.take()
    rig.end("A")
    assert spoken(script) == ["executing None A"]
    rig.end("A")
    assert spoken(script) == []


def test_the_last_event_is_waited_for_but_not_for_ever(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    rig.says(0, "execution_success", {"prompt_id": "A"})
    script.take()
    rig.end("A")
    rig.wait(SILENCE - 0.25)
    assert spoken(script) == []
    rig.wait(0.25)
    assert spoken(script) == ["executing None A"]
    rig.says(0, "executing", {"node": None, "prompt_id": "A"})
    assert spoken(script) == []


def test_many_ended_prompts_are_not_all_remembered(rig: SessionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "MAX_OVER", 1)
    script = rig.script()
    for prompt in "AB":
        rig.add(0, prompt)
        rig.starts(0, prompt)
        rig.finishes(0, prompt)
    script.take()
    rig.gives(0, "B")
    assert spoken(script) == []
    rig.gives(0, "A")
    assert spoken(script) == ["execution_start A", "executed A"]


def test_what_was_read_in_a_history_is_not_told_again_as_the_server_says_it(
    rig: SessionRig, script: Script
) -> None:
    rig.add(1, "A")
    ending = {"type": "execution_success", "data": {"prompt_id": "A"}}
    last = {"type": "executing", "data": {"prompt_id": "A", "node": None}}
    rig.session.synthesise([ending, last], rig.now)
    rig.end("A")
    assert spoken(script) == ["execution_start A", "execution_success A", "executing None A"]
    rig.starts(1, "A")
    rig.gives(1, "A")
    rig.finishes(1, "A")
    rig.gives(1, "A")
    assert spoken(script) == []
    rig.starts(1, "A")
    assert spoken(script) == ["execution_start A", "execution_cached A", "executing 4 A"], "another run"


def test_a_prompt_that_is_void_on_a_server_is_not_told_of(rig: SessionRig, script: Script) -> None:
    rig.add(1, "A")
    rig.void.add(("A", rig.backends[2]))
    rig.starts(2, "A")
    rig.starts(1, "A")
    rig.finishes(2, "A")
    assert spoken(script) == ["execution_start A", "execution_cached A", "executing 4 A"]


def test_a_server_with_nothing_left_has_no_prompt_that_nobody_knows_of(
    rig: SessionRig, script: Script
) -> None:
    rig.starts(1, "A")
    rig.add(1, "B")
    rig.says(2, "status", NOTHING_LEFT)
    rig.says(1, "status", {"status": {"exec_info": {"queue_remaining": 1}}})
    script.take()
    rig.says(1, "status", NOTHING_LEFT)
    assert spoken(script) == ["executing None A"]
    assert set(rig.queued) == {"B"}


def test_prompts_that_nobody_knows_of_are_few(
    rig: SessionRig, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "MAX_ADOPTED", 2)
    for prompt in "ABC":
        rig.starts(1, prompt)
    assert "executing None A" in spoken(script)


def test_a_prompt_that_nobody_knows_of_is_given_up_with_its_server(rig: SessionRig, script: Script) -> None:
    rig.starts(1, "A")
    rig.wait(2 * UNHEARD)
    rig.session.lost(rig.backends[1], "", rig.now)
    script.take()
    rig.wait(UNHEARD - 1)
    assert spoken(script) == []
    rig.wait(1)
    assert spoken(script) == ["executing None A"]
    rig.session.detach(script, rig.now)
    assert rig.session.is_over(rig.now + LINGER)


@pytest.mark.parametrize("ends", [False, True])
def test_a_prompt_that_the_ledger_knows_of_by_now_is_its_own_to_end(
    rig: SessionRig, script: Script, ends: bool
) -> None:
    rig.starts(1, "A")
    rig.add(1, "A")
    if ends:
        rig.end("A")
    rig.session.lost(rig.backends[1], "", rig.now)
    script.take()
    rig.wait(2 * UNHEARD)
    assert spoken(script) == []


STATE = b'{"type": "progress_state", "data": {"prompt_id": "A", "nodes": {"4": {"value": 1}}}}'


def test_the_progress_of_what_runs_is_passed_on_unread(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    script.take()
    rig.sends(0, STATE)
    assert script.keys == [("progress_state", "A")]
    assert script.take() == [json.loads(STATE)]
    assert rig.noted[-1][1]["type"] == "executing"


@pytest.mark.parametrize("payload", [STATE[:-2], STATE.replace(b'"A"', b'"strange"')])
def test_progress_that_is_cut_short_or_a_strangers_is_not_passed_on(
    rig: SessionRig, script: Script, payload: bytes
) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    script.take()
    rig.sends(0, payload)
    assert script.take() == []


# Files


def test_a_file_is_told_of_with_its_server(rig: SessionRig, script: Script) -> None:
    rig.add(1, "A")
    rig.starts(1, "A")
    script.take()
    rig.says(1, "executed", {"prompt_id": "A", "node": "9", "output": {"file": "a.png"}})
    rig.says(1, "executed", {"prompt_id": "A", "node": "9", "output": {"text": "a"}})
    assert [one["data"]["output"] for one in script.take()] == [{"file": "server2/a.png"}, {"text": "a"}]
    noted = [document["data"]["output"] for _, document in rig.noted if document["type"] == "executed"]
    assert noted == [{"file": "a.png"}, {"text": "a"}]


def test_a_result_that_is_too_deep_to_be_written_anew_is_passed_on_as_it_came(
    rig: SessionRig, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def event(kind: str, data: object) -> bytes:
        raise RecursionError

    rig.add(1, "A")
    rig.starts(1, "A")
    script.take()
    monkeypatch.setattr(telling, "event", event)
    rig.says(1, "executed", {"prompt_id": "A", "node": "9", "output": {"file": "a.png"}})
    assert script.take()[0]["data"]["output"] == {"file": "a.png"}


# What no server has said


def dies(prompt: str) -> list[dict[str, object]]:
    """How the ledger ends a prompt whose server is gone."""
    return [
        {
            "type": "execution_error",
            "data": {"prompt_id": prompt, "node_id": "", "exception_message": "gone"},
        },
        {"type": "executing", "data": {"node": None, "prompt_id": prompt}},
    ]


def test_a_prompt_that_dies_with_its_server_ends_with_an_error(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    script.take()
    rig.session.synthesise(dies("A"), rig.now)
    rig.end("A")
    assert spoken(script) == ["execution_error A", "executing None A"]
    assert rig.session.wanted == {rig.backends[0]}


def test_one_that_had_not_begun_begins_and_ends(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.session.synthesise(dies("A"), rig.now)
    assert spoken(script) == ["execution_start A", "execution_error A", "executing None A"]


def test_what_the_client_was_told_already_it_is_not_told_again(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.starts(0, "A")
    rig.says(0, "execution_success", {"prompt_id": "A"})
    script.take()
    found = [
        {"type": "executed", "data": {"prompt_id": "A", "node": "9", "output": {}}},
        {"type": "execution_success", "data": {"prompt_id": "A"}},
        {"type": "executing", "data": {"node": None, "prompt_id": "A"}},
    ]
    rig.session.synthesise(found, rig.now)
    assert spoken(script) == ["executing None A"]
    rig.session.synthesise(found, rig.now)
    assert spoken(script) == []


def test_a_result_that_is_too_deep_to_be_said_does_not_keep_the_end_from_being_said(
    rig: SessionRig, script: Script
) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    rig.add(0, "A")
    rig.session.synthesise([{"type": "executed", "data": {"prompt_id": "A", "output": deep}}], rig.now)
    rig.session.synthesise(dies("A"), rig.now)
    assert spoken(script)[-2:] == ["execution_error A", "executing None A"]


# What node packs and servers say beside


def test_what_is_said_to_everybody_comes_from_the_home_alone(rig: SessionRig, script: Script) -> None:
    for server in range(3):
        rig.says(server, "pack.monitor", {"load": server})
        rig.says(server, "logs", {"entries": [], "size": server})
        rig.sends(server, b"\0\0\0\x63" + bytes([server]), True)
    assert script.take() == [
        {"type": "pack.monitor", "data": {"load": 0}},
        {"type": "logs", "data": {"entries": [], "size": 0}},
        b"\0\0\0\x63\0",
    ]


@pytest.mark.parametrize("data", [{"node_id": "4"}, {"node": 4}, {"id": "4"}, {"prompt_id": "A"}])
def test_what_a_node_pack_says_of_the_node_at_work_comes_with_its_prompt(
    rig: SessionRig, script: Script, data: dict[str, object]
) -> None:
    rig.add(1, "A")
    rig.add(0, "B")
    rig.starts(1, "A")
    script.take()
    rig.says(1, "pack.step", data)
    assert script.take() == [{"type": "pack.step", "data": data}]
    rig.finishes(1, "A")
    rig.starts(0, "B")
    rig.add(1, "A")
    rig.starts(1, "A")
    script.take()
    rig.says(1, "pack.step", data)
    assert script.take() == []
    rig.finishes(1, "A")
    assert {"type": "pack.step", "data": data} in script.take()


@pytest.mark.parametrize("data", [{"node_id": "5"}, {}, {"prompt_id": "strange"}, {"prompt_id": 7}])
def test_what_a_node_pack_says_to_everybody_elsewhere_is_not_passed_on(
    rig: SessionRig, script: Script, data: dict[str, object]
) -> None:
    rig.add(1, "A")
    rig.starts(1, "A")
    script.take()
    rig.says(1, "pack.step", data)
    rig.says(1, "logs", {"node": "4"})
    rig.says(1, "progress", {"node": "4"})
    assert script.take() == []


def test_a_server_that_executes_nothing_yet_has_no_node_to_speak_of(rig: SessionRig, script: Script) -> None:
    rig.add(1, "A")
    rig.says(1, "execution_start", {"prompt_id": "A"})
    script.take()
    rig.says(1, "pack.step", {"node": "4"})
    assert script.take() == []


def test_binary_messages_of_node_packs_are_of_the_shown_prompt(rig: SessionRig, script: Script) -> None:
    rig.begin("A", "B")
    script.take()
    rig.sends(1, b"\0\0\0\x63B", True)
    rig.sends(0, b"\0\0\0\x63A", True)
    assert script.take() == [b"\0\0\0\x63A"]


def test_previews_and_texts_of_strangers_are_not_passed_on(rig: SessionRig, script: Script) -> None:
    rig.add(0, "pending")
    for payload in (picture(1, 1), preview("strange"), preview("pending"), text("4", "step")):
        rig.sends(0, payload, True)
    assert script.take() == []


def test_pictures_over_the_websocket_are_all_there_however_servers_interleave() -> None:
    recording = Recording("script")
    rig = SessionRig()
    script = rig.script()
    rig.open(0, 1, 2)
    prompts = [f"{number:036d}" for number in range(3)]
    told = [recording.prompt("pictures", prompt) for prompt in prompts]
    for server, prompt in enumerate(prompts):
        rig.add(server, prompt)
    for messages in zip(*told, strict=True):
        for server, message in enumerate(messages):
            rig.sends(server, *message)
    found: dict[str, list[bytes]] = {prompt: [] for prompt in prompts}
    current = None
    for one in script.take():
        if isinstance(one, bytes):
            found[current or ""].append(one)
        elif one["type"] == "executing":
            current = one["data"]["prompt_id"] if one["data"]["node"] == "2" else None
    assert found == {
        prompt: [payload for payload, is_binary in messages if is_binary]
        for prompt, messages in zip(prompts, told, strict=True)
    }
