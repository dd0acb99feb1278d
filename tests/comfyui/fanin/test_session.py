"""What a client is told, what the ledger is told, and when a session is over."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.fanin.session import LINGER, LINGER_UNTOLD, ClientSession
from tests.comfyui.fanin.rig import PAGE_FLAGS, Script, SessionRig

# Clients


def test_a_client_is_greeted_at_once_with_its_id_and_what_is_left() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    script: Script = rig.attach(Script())
    assert script.take() == [
        {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}, "sid": "cid"}}
    ]


def test_the_greetings_of_servers_are_for_the_session_alone(rig: SessionRig, script: Script) -> None:
    rig.session.lost(rig.backends[1], "", rig.now)
    rig.open(1)
    rig.wait(1)
    assert script.kinds() == []


def test_what_servers_say_of_their_queues_is_told_in_one_voice(rig: SessionRig, script: Script) -> None:
    rig.wait(1)
    rig.add(1, "A")
    for server in (0, 1, 2):
        rig.says(server, "status", {"status": {"exec_info": {"queue_remaining": 40 + server}}})
    rig.wait(1)
    said = [one["data"] for one in script.take()]
    assert said[0] == {"status": {"exec_info": {"queue_remaining": 1}}}
    assert len(said) == 2


def test_a_new_connection_takes_the_place_of_the_one_before(rig: SessionRig, script: Script) -> None:
    other = rig.script()
    rig.session.detach(script, rig.now)
    assert rig.session.is_attached
    rig.add(0, "A")
    rig.starts(0, "A")
    assert script.messages == []
    assert other.messages != []
    assert script.closed is None


def test_nobody_is_told_anything_after_the_client_has_gone(rig: SessionRig, script: Script) -> None:
    rig.session.detach(script, rig.now)
    rig.add(0, "A")
    rig.starts(0, "A")
    rig.says(0, "status", {})
    rig.wait(1)
    assert script.messages == []
    assert not rig.session.is_attached


def test_every_event_is_noted_whoever_it_is_for(rig: SessionRig) -> None:
    rig.says(1, "execution_start", {"prompt_id": "strange"})
    rig.says(1, "progress", {"prompt_id": "strange"})
    rig.says(2, "status", {})
    rig.says(2, "other", "no object")
    rig.sends(2, b"no JSON")
    rig.sends(2, b"\0\0\0\1", True)
    assert [document["type"] for _, document in rig.noted[3:]] == [
        "execution_start",
        "progress",
        "status",
        "other",
    ]


def test_that_nothing_is_left_is_said_after_the_last_event(rig: SessionRig, script: Script) -> None:
    rig.add(0, "A")
    rig.says(0, "status", {})
    rig.starts(0, "A")
    rig.wait(1)
    script.take()
    rig.says(0, "execution_success", {"prompt_id": "A"})
    rig.says(0, "status", {})
    rig.says(0, "executing", {"node": None, "prompt_id": "A"})
    said = script.take()
    assert [one["type"] for one in said] == ["execution_success", "status", "executing", "status"]
    assert said[-1]["data"]["status"]["exec_info"]["queue_remaining"] == 0


def test_files_need_no_server_where_nobody_tells_them_apart() -> None:
    backend = SessionRig(1).backends[0]
    script = Script()
    session = ClientSession(
        "cid", backend, 1.0, note=lambda *_: None, unsure=lambda _: None, queued=lambda: 0
    )
    session.attach(script, 1.0)
    payload = b'{"type": "executed", "data": {"prompt_id": "A", "node": "9", "output": {"file": "a.png"}}}'
    session.from_backend(backend, payload, False, 1.0)
    assert script.messages[-1] == (payload, False)


# Its end


def test_a_session_is_over_when_its_client_has_been_gone_for_a_while(rig: SessionRig, script: Script) -> None:
    rig.now += 1000
    assert not rig.session.is_over(rig.now)
    rig.session.detach(script, rig.now)
    assert not rig.session.is_over(rig.now + LINGER - 1)
    assert rig.session.is_over(rig.now + LINGER)


def test_a_session_that_is_new_is_not_over(rig: SessionRig) -> None:
    assert not rig.session.is_over(rig.now + LINGER - 1)
    assert rig.session.is_over(rig.now + LINGER)


def test_a_session_with_prompts_is_not_over(rig: SessionRig) -> None:
    rig.add(0, "A")
    assert not rig.session.is_over(rig.now + 100_000)
    rig.starts(0, "A")
    rig.finishes(0, "A")
    assert rig.session.is_over(rig.now + LINGER)


def test_a_session_is_kept_longer_for_a_page_that_has_missed_something(
    rig: SessionRig, script: Script
) -> None:
    rig.session.from_client(script, json.dumps(PAGE_FLAGS).encode(), False, rig.now)
    rig.add(0, "A")
    rig.session.detach(script, rig.now)
    rig.starts(0, "A")
    rig.finishes(0, "A")
    assert not rig.session.is_over(rig.now + LINGER_UNTOLD - 1)
    assert rig.session.is_over(rig.now + LINGER_UNTOLD)


# Whatever comes

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["A", "B", "4", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["node", "a"]), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = st.sampled_from(["prompt_id", "node", "display_node", "nodes", "output", "status", "sid"])
KINDS = st.sampled_from(
    [
        *("status", "feature_flags", "logs", "pack.step"),
        *("execution_start", "execution_cached", "executing", "executed", "progress", "progress_state"),
        *("execution_success", "execution_error", "execution_interrupted"),
    ]
)
EVENTS = st.tuples(KINDS | VALUES, st.dictionaries(NAMES, VALUES) | VALUES)


@given(st.lists(st.tuples(st.integers(0, 2), EVENTS | st.binary(max_size=40)), max_size=40))
def test_whatever_servers_say_is_taken_without_an_error(
    said: list[tuple[int, tuple[object, object] | bytes]],
) -> None:
    rig = SessionRig()
    script = rig.script()
    rig.open(0, 1, 2)
    rig.add(0, "A")
    for server, one in said:
        if isinstance(one, bytes):
            rig.sends(server, one, True)
            rig.sends(server, one)
        else:
            kind, data = one
            payload = json.dumps({"type": kind, "data": data}).encode()
            rig.session.from_backend(rig.backends[server], payload, False, rig.now)
        rig.wait(0.5)
    rig.session.detach(script, rig.now)
    rig.script()


@pytest.mark.parametrize("payload", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"\xff", b'"text"'])
def test_messages_that_are_no_objects_are_passed_over(
    rig: SessionRig, script: Script, payload: bytes
) -> None:
    rig.sends(0, payload)
    assert script.messages == []
