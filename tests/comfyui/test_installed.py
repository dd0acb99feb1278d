"""What a pool can run, has and is, asked of its servers."""

import gzip
import json
from typing import Any

import pytest

from comfyproxy.comfyui.installed import AT_ONCE, LIFETIME, Installed
from comfyproxy.core.balancing.operations import Operation, Reply, Wait
from comfyproxy.core.balancing.routing import Default, Respond
from tests.comfyui.merging.servers import A, Answers, B, C, reply, servers, silence, vector

NOW = 1000.0
PATH = "/object_info"


def info(*files: str, **more: Any) -> Any:
    return {"Loader": {"input": {"required": {"name": [list(files)]}}}, **more}


def files(document: Any) -> Any:
    return document["Loader"]["input"]["required"]["name"][0]


def shown(installed: Installed, now: float = NOW, *backends: Any) -> Operation:
    return installed.object_info(backends or (A, B), None, now)


def test_what_any_server_can_run_is_shown() -> None:
    asked = Answers({(A, PATH): info("a", X={}), (B, PATH): info("b", Y={})})
    found = asked.json(shown(Installed()))
    assert list(found) == ["Loader", "X", "Y"]
    assert files(found) == ["a", "b"]


def test_a_server_that_does_not_answer_cannot_be_shown() -> None:
    asked = Answers({(A, PATH): silence(A), (B, PATH): info("b"), (C, PATH): reply(C, [])})
    assert files(asked.json(shown(Installed(), NOW, A, B, C))) == ["b"]


@pytest.mark.parametrize("answer", [silence(A), reply(A, status=500), reply(A, body=b"no json")])
def test_where_nobody_says_anything_the_pool_answers_as_ever(answer: Reply) -> None:
    asked = Answers({(A, PATH): answer})
    assert asked.run(shown(Installed(), NOW, A)) == Default()
    assert asked.run(Installed().object_info_of([A], "X", NOW)) == Default()
    assert asked.run(Installed().system_stats([])) == Default()


def test_only_some_servers_are_asked_at_once() -> None:
    pool = servers("http://server[1-10]:8188")
    asked = Answers({(backend, PATH): info(backend.address.host) for backend in pool})
    found = asked.json(shown(Installed(), NOW, *pool))
    assert files(found) == [backend.address.host for backend in pool]
    assert asked.rounds == [AT_ONCE, AT_ONCE, 10 - 2 * AT_ONCE]


def test_for_a_while_nobody_is_asked_again() -> None:
    asked = Answers({(A, PATH): info("a"), (B, PATH): info("b")})
    installed = Installed()
    asked.json(shown(installed))
    asked.answers[A, PATH] = info("new")
    assert files(asked.json(shown(installed, NOW + LIFETIME - 1))) == ["a", "b"]
    assert len(asked.asked) == 2
    assert files(asked.json(shown(installed, NOW + LIFETIME))) == ["new", "b"]
    assert len(asked.asked) == 4


def test_two_that_ask_at_once_ask_the_servers_once() -> None:
    installed = Installed()
    first, second = shown(installed, NOW, A), shown(installed, NOW, A)
    next(first)
    waiting = next(second)
    assert isinstance(waiting, Wait)
    with pytest.raises(StopIteration) as end:
        first.send((reply(A, info("a")),))
    assert waiting.latch.is_open
    with pytest.raises(StopIteration) as other:
        second.send(None)
    assert other.value.value == end.value.value


def test_where_the_first_left_the_next_asks() -> None:
    installed = Installed()
    first, second = shown(installed, NOW, A), shown(installed, NOW, A)
    next(first)
    next(second)
    first.close()
    assert isinstance(second.send(None), tuple)


def test_who_has_changed_is_asked_again() -> None:
    asked = Answers({(A, PATH): info("a"), (B, PATH): info("b")})
    installed = Installed()
    asked.json(shown(installed))
    asked.answers[B, PATH] = info("new")
    installed.changed(B)
    installed.changed(C)
    assert files(asked.json(shown(installed))) == ["a", "new"]
    assert asked.asked == [(A, PATH), (B, PATH), (B, PATH)]
    installed.changed()
    asked.json(shown(installed))
    assert asked.asked[3:] == [(A, PATH), (B, PATH)]


def test_what_was_known_of_a_server_stays_known_while_it_does_not_answer() -> None:
    asked = Answers({(A, PATH): info("a"), (B, PATH): info("b")})
    installed = Installed()
    asked.json(shown(installed))
    asked.answers[B, PATH] = silence(B)
    assert files(asked.json(shown(installed, NOW + LIFETIME))) == ["a", "b"]


def test_a_server_that_left_the_pool_is_forgotten() -> None:
    asked = Answers({(A, PATH): info("a"), (B, PATH): info("b")})
    installed = Installed()
    asked.json(shown(installed))
    assert files(asked.json(shown(installed, NOW, A))) == ["a"]
    assert files(asked.json(shown(installed))) == ["a", "b"]
    assert asked.asked == [(A, PATH), (B, PATH), (B, PATH)]


def test_what_somebody_else_asked_for_is_not_asked_for_again() -> None:
    installed = Installed()
    installed.note(reply(A, info("a")), NOW)
    installed.note(reply(B, body=b"no json"), NOW)
    installed.note(reply(B, {"error": {}}, status=500), NOW)
    asked = Answers({(B, PATH): info("b")})
    assert files(asked.json(shown(installed))) == ["a", "b"]
    assert asked.asked == [(B, PATH)]


def test_who_wants_to_know_hears_each_answer() -> None:
    heard: list[Reply] = []
    asked = Answers({(A, PATH): info("a"), (B, PATH): reply(B, status=500)})
    asked.json(shown(Installed(heard.append)))
    assert [one.backend for one in heard] == [A]


@pytest.mark.parametrize(
    ("accepted", "is_small"),
    [
        (b"gzip, deflate, br", True),
        (b"br;q=1.0, GZIP;q=0.5", True),
        (b"x-gzip", True),
        (b"gzip;q=0.001", True),
        (b"gzip; q=0", False),
        (b"gzip;q=0.000", False),
        (b"br, deflate", False),
        (b"", False),
        (None, False),
    ],
)
def test_it_is_compressed_for_those_who_take_that(accepted: bytes | None, is_small: bool) -> None:
    asked = Answers({(A, PATH): vector("object_info.json")})
    decision = asked.run(Installed().object_info([A], accepted, NOW))
    assert isinstance(decision, Respond)
    assert (b"Content-Encoding: gzip\r\n" in decision.fields) is is_small
    assert b"Vary: Accept-Encoding\r\n" in decision.fields
    body = gzip.decompress(decision.body) if is_small else decision.body
    assert json.loads(body) == vector("object_info.json")


def test_what_is_the_same_is_not_compressed_again() -> None:
    asked = Answers({(A, PATH): info("a"), (B, PATH): info("b")})
    installed = Installed()
    first = asked.run(installed.object_info([A, B], b"gzip", NOW))
    assert asked.run(installed.object_info([A, B], b"gzip", NOW + LIFETIME)).body is first.body
    asked.answers[A, PATH] = info("c")
    third = asked.run(installed.object_info([A, B], b"gzip", NOW + 2 * LIFETIME))
    assert files(json.loads(gzip.decompress(third.body))) == ["c", "b"]


def test_one_class() -> None:
    asked = Answers({(A, PATH): info("a"), (B, PATH): info("b")})
    installed = Installed()
    assert asked.json(installed.object_info_of([A, B], "Loader", NOW)) == info("a", "b")
    assert asked.json(installed.object_info_of([A, B], "Unknown", NOW)) == {}


def test_classes_that_make_outputs() -> None:
    installed = Installed()
    installed.note(reply(A, vector("object_info.json")), NOW)
    assert installed.is_output("SaveImage")
    assert not installed.is_output("LoadImage")


def test_the_machines_of_all_servers() -> None:
    stats = vector("system_stats.json")
    asked = Answers(
        {(A, "/system_stats"): stats, (B, "/system_stats"): silence(B), (C, "/system_stats"): stats}
    )
    found = asked.json(Installed().system_stats([A, B, C]))
    assert [device["name"] for device in found["devices"]] == ["server 1: cpu", "server 3: cpu"]
    assert asked.rounds == [3]


def test_what_all_servers_can_do() -> None:
    asked = Answers({(A, "/features"): {"a": True, "b": True}, (B, "/features"): {"a": True}})
    assert asked.json(Installed().features([A, B])) == {"a": True, "b": False}


@pytest.mark.parametrize("answer", [silence(A), reply(A, []), reply(A, status=404)])
def test_nobody_says_what_it_can_do(answer: Reply) -> None:
    assert Answers({(A, "/features"): answer}).run(Installed().features([A])) == Default()
