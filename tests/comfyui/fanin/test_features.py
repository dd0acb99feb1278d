"""Who is told what the other supports."""

from typing import Any

import pytest

from comfyproxy.comfyui.fanin.features import ANSWER_AFTER, MAX_FLAGS, Features, read_answer
from comfyproxy.comfyui.fanin.upstreams import Upstream
from tests.comfyui.fanin.rig import PAGE_FLAGS, SessionRig

TEXTS = "supports_progress_text_metadata"


def asked(**flags: object) -> Features:
    """Features of a client that has said that it supports these."""
    features = Features()
    features.ask(b"flags", {"type": "feature_flags", "data": flags}, 10.0)
    return features


def upstream(payload: bytes = b"", **features: object) -> Upstream:
    """A connection whose server has answered so; with no ``payload`` it has not."""
    opened = Upstream(lambda payload, is_binary: None)
    if payload:
        opened.features = read_answer(payload, features)
    return opened


def test_nobody_is_answered_who_has_not_asked() -> None:
    rig = SessionRig(1)
    features = Features()
    assert features.answer(rig.backends[0], {rig.backends[0]: upstream(b"home")}, 10.0) is None
    assert features.texts_name_prompts is None


def test_the_answer_is_the_homes_and_comes_once() -> None:
    home, other = SessionRig(2).backends
    features, upstreams = asked(), {other: upstream(b"other"), home: upstream(b"home")}
    assert features.answer(home, upstreams, 10.0) == b"home"
    assert features.answer(home, upstreams, 99.0) is None


@pytest.mark.parametrize("has_home", [False, True])
def test_another_servers_answer_will_do_where_the_homes_does_not_come(has_home: bool) -> None:
    home, other = SessionRig(2).backends
    features, upstreams = asked(), {home: upstream(), other: upstream(b"other")}
    assert features.answer(home if has_home else None, upstreams, 10.0) is None
    assert features.answer(home if has_home else None, upstreams, 10.0 + ANSWER_AFTER) == b"other"


def test_there_is_no_answer_where_no_server_knows_any() -> None:
    home, _ = SessionRig(2).backends
    assert asked().answer(home, {home: upstream()}, 99.0) is None


@pytest.mark.parametrize(
    ("client", "server", "named"),
    [
        ({TEXTS: True}, {TEXTS: True}, True),
        ({TEXTS: True}, {}, False),
        ({}, {TEXTS: True}, False),
        ({TEXTS: "yes"}, {TEXTS: True}, False),
        ({TEXTS: True}, {TEXTS: 1}, False),
    ],
)
def test_texts_name_prompts_where_both_sides_know_that_form(
    client: dict[str, Any], server: dict[str, Any], named: bool
) -> None:
    home, _ = SessionRig(2).backends
    features = asked(**client)
    assert features.answer(home, {home: upstream(b"home", **server)}, 10.0)
    assert features.texts_name_prompts is named
    features.begin()
    assert features.texts_name_prompts is None


def test_flags_that_are_no_object_support_nothing() -> None:
    features = Features()
    features.ask(b"flags", {"type": "feature_flags", "data": [TEXTS]}, 10.0)
    home, _ = SessionRig(2).backends
    features.answer(home, {home: upstream(b"home", **{TEXTS: True})}, 10.0)
    assert features.texts_name_prompts is False


# Together with the session


def flags(rig: SessionRig, client: Any, payload: bytes) -> None:
    rig.session.from_client(client, payload, False, rig.now)


FLAGS = b'{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'


def test_servers_are_told_first_of_all_when_they_are_there_and_at_once_when_they_come() -> None:
    rig = SessionRig()
    script = rig.script()
    rig.open(0)
    assert rig.told[rig.backends[0]] == []
    flags(rig, script, FLAGS)
    rig.open(1)
    assert rig.told[rig.backends[0]] == rig.told[rig.backends[1]] == [FLAGS]
    assert PAGE_FLAGS["type"] == "feature_flags"


def test_the_client_is_answered_once_whatever_other_servers_say() -> None:
    rig = SessionRig()
    script = rig.script()
    rig.open(0, 1)
    flags(rig, script, FLAGS)
    rig.says(1, "feature_flags", {"of": "another"})
    rig.says(0, "feature_flags", {"of": "home"})
    rig.says(0, "feature_flags", {"of": "home"})
    assert [one["data"] for one in script.take()] == [{"of": "home"}]


def test_a_page_that_reconnects_is_answered_again_from_what_is_known() -> None:
    rig = SessionRig()
    first = rig.script()
    rig.open(0)
    flags(rig, first, FLAGS)
    rig.says(0, "feature_flags", {"of": "home"})
    rig.session.detach(first, rig.now)
    second = rig.script()
    flags(rig, second, FLAGS)
    assert second.kinds() == ["feature_flags"]
    assert rig.told[rig.backends[0]] == [FLAGS]


def test_answers_of_a_connection_that_is_no_more_are_not_taken() -> None:
    rig = SessionRig()
    script = rig.script()
    flags(rig, script, FLAGS)
    rig.says(0, "feature_flags", {"of": "home"})
    assert script.kinds() == []


@pytest.mark.parametrize(
    "first",
    [
        b'{"type": "hello"}',
        b"{}",
        b'{"type": "feature_flags", "data": "%b"}' % (b"x" * MAX_FLAGS),
    ],
)
def test_only_what_is_said_first_counts(first: bytes) -> None:
    rig = SessionRig()
    script = rig.script()
    rig.open(0)
    flags(rig, script, first)
    flags(rig, script, FLAGS)
    assert rig.told[rig.backends[0]] == []


@pytest.mark.parametrize("first", [b"", b"[]", b"no JSON", b'"text"', b"[" * 100_000])
def test_what_is_no_object_is_not_what_is_said_first(first: bytes) -> None:
    rig = SessionRig()
    script = rig.script()
    rig.open(0)
    flags(rig, script, first)
    rig.session.from_client(script, FLAGS, True, rig.now)
    flags(rig, script, FLAGS)
    assert rig.told[rig.backends[0]] == [FLAGS]


def test_a_client_that_was_displaced_is_not_heard() -> None:
    rig = SessionRig()
    displaced, present = rig.script(), rig.script()
    rig.open(0)
    flags(rig, displaced, FLAGS)
    assert rig.told[rig.backends[0]] == []
    flags(rig, present, FLAGS)
    assert rig.told[rig.backends[0]] == [FLAGS]


def test_a_client_that_comes_back_with_other_flags_gets_new_connections_where_it_has_nothing() -> None:
    rig = SessionRig()
    first = rig.script()
    rig.open(0, 1)
    flags(rig, first, FLAGS)
    rig.add(1, "A")
    rig.session.detach(first, rig.now)
    flags(rig, rig.script(), b'{"type": "feature_flags", "data": {}}')
    rig.wait(0.25)
    assert rig.session.wanted == {rig.backends[1]}
    rig.session.lost(rig.backends[0], "it was closed", rig.now)
    assert rig.session.wanted == set(rig.backends[:2])
    rig.end("A")
    rig.wait(0.25)
    assert rig.session.wanted == {rig.backends[0]}
