"""What is remembered of prompts, and for how long."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.prompts.ledger import Ledger, Phase, Prompt
from comfyproxy.core.balancing.backend import Backend

Make = Callable[..., Prompt]


@pytest.fixture
def backends(make_pool: Any) -> tuple[Backend, ...]:
    found: tuple[Backend, ...] = make_pool().backends
    return found


@pytest.fixture
def make(backends: tuple[Backend, ...]) -> Make:
    def one(name: str, client: str = "me", backend: int = 0) -> Prompt:
        return Prompt(name, client, "owner", backends[backend], 1.0, phase=Phase.PENDING)

    return one


def test_a_prompt_is_found_by_its_id_its_server_and_its_client(make: Make, backends: Any) -> None:
    ledger = Ledger()
    one, two = make("a"), make("b", "you", 1)
    ledger.add(one, b"x")
    ledger.add(two, b"y")
    assert list(ledger) == [one, two]
    assert (ledger.get("a"), ledger.get("c")) == (one, None)
    assert (ledger.on(backends[0]), ledger.on(backends[2])) == ((one,), ())
    assert (ledger.of("you"), ledger.of("nobody"), ledger.count("me")) == ((two,), (), 1)
    assert ledger.backend_of("b") is backends[1]
    assert ledger.backend_of("c") is None


def test_it_goes_with_its_prompt_from_server_to_server(make: Make, backends: Any) -> None:
    ledger = Ledger()
    one = make("a")
    ledger.add(one, b"x")
    for backend in (backends[0], backends[1]):
        ledger.assign(one, backend)
    assert (ledger.on(backends[0]), ledger.on(backends[1])) == ((), (one,))


def test_only_what_is_queued_counts(make: Make, backends: Any) -> None:
    ledger = Ledger()
    for name, phase in (("a", Phase.PENDING), ("b", Phase.RUNNING), ("c", Phase.SENDING)):
        prompt = make(name)
        ledger.add(prompt, b"x")
        prompt.becomes(phase, 5.0)
    assert ledger.queued_on(backends[0]) == 2
    assert ledger.queued_on(backends[1]) == 0


def test_what_has_ended_is_still_known_for_whose_it_was(make: Make, backends: Any) -> None:
    ledger = Ledger(max_ended=1)
    for name in ("a", "b"):
        prompt = make(name)
        ledger.add(prompt, b"x")
        ledger.end(prompt, 7.0)
        ledger.end(prompt, 8.0)
        assert (prompt.phase, prompt.submission) == (Phase.ENDED, b"")
    assert len(ledger) == 0
    assert ledger.ended("a") is None
    ended = ledger.ended("b")
    assert ended is not None
    assert (ended.backend, ended.client_id, ended.at) == (backends[0], "me", 7.0)
    assert ledger.backend_of("b") is backends[0]
    again = make("b")
    ledger.add(again, b"x")
    assert ledger.ended("b") is None


def test_an_id_that_comes_again_is_another_prompt(make: Make, backends: Any) -> None:
    ledger = Ledger()
    first, second = make("a"), make("a", "you", 1)
    ledger.add(first, b"x")
    ledger.add(second, b"y")
    assert list(ledger) == [second]
    assert ledger.on(backends[0]) == ledger.of("me") == ()
    assert not ledger.drop(first)


def test_submissions_are_kept_as_long_as_there_is_room(make: Make) -> None:
    ledger = Ledger(max_bodies=60)
    one, two, three = make("a"), make("b"), make("c")
    for prompt, letters in ((one, b"abcdefghijklmnopqrstuvwxyz"), (two, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")):
        ledger.add(prompt, letters)
        ledger.settle(prompt)
    assert two.submission == b""
    assert one.submission == b"abcdefghijklmnopqrstuvwxyz"
    ledger.end(one, 1.0)
    ledger.add(three, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    ledger.settle(three)
    assert three.submission == b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_a_server_is_doubted_until_the_prompt_is_to_run_there(
    make: Make, backends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfyproxy.comfyui.prompts.ledger.MAX_DOUBTS", 2)
    ledger, one = Ledger(), make("a")
    ledger.add(one, b"x")
    for backend in backends:
        ledger.doubt(one, backend)
    assert [ledger.is_doubted("a", backend) for backend in backends[:3]] == [False, True, True]
    ledger.assign(one, backends[1])
    assert not ledger.is_doubted("a", backends[1])
