"""What one server says of one prompt."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.prompts.locating import Place, history_target, is_completed, look_up

Prompt = Callable[..., dict[str, Any]]


def test_a_prompt_is_where_its_server_says(rig: Any, seconds: Prompt) -> None:
    for server in rig.servers[:1]:
        ran, waits = (server.ask_directly(seconds(2, seed)) for seed in range(2))
    rig.clock.advance(0)
    backend = rig.servers[0].backend
    places = {one: rig.run(look_up(backend, one)).place for one in (ran, waits, "unknown")}
    assert places == {ran: Place.RUNNING, waits: Place.PENDING, "unknown": Place.ABSENT}
    rig.clock.pump([0.25] * 9)
    found = rig.run(look_up(backend, ran))
    assert found.place is Place.HISTORY
    assert is_completed(found.entry)


@pytest.mark.parametrize("path", ["/queue", "/history/x"])
@pytest.mark.parametrize("status", [0, 200, 500])
def test_what_is_no_answer_says_nothing(rig: Any, path: str, status: int) -> None:
    rig.servers[0].statuses["GET", path] = status
    found = rig.run(look_up(rig.servers[0].backend, "x"))
    assert found.place in (Place.UNKNOWN, Place.ABSENT)
    assert (found.place is Place.ABSENT) == (status == 200)


def test_any_id_can_be_asked_for() -> None:
    assert history_target("a/b c\udcff") == b"/history/a%2Fb%20c%3F"


@pytest.mark.parametrize("entry", [None, {}, {"status": 5}, {"status": {"completed": "yes"}}])
def test_what_does_not_say_that_it_completed_did_not(entry: Any) -> None:
    assert not is_completed(entry)
