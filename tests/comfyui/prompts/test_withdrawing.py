"""Taking prompts back, against servers that do not do what they are asked to (see also `test_editing`)."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.prompts.withdrawing import cancel, delete, take_back

Prompt = Callable[..., dict[str, Any]]


def test_what_has_begun_before_it_could_be_deleted_is_interrupted(rig: Any, seconds: Prompt) -> None:
    server = rig.servers[0]
    one = server.ask_directly(seconds(20))
    rig.clock.advance(0)
    assert server.running == one
    rig.run(take_back(server.backend, one))
    rig.clock.advance(0)
    assert (server.running, server.history) == (None, [one])


@pytest.mark.parametrize("status", [0, 404, 500])
def test_a_server_that_cannot_cancel_leaves_the_prompt_in_the_ledger(
    rig: Any, seconds: Prompt, status: int
) -> None:
    one = rig.submit(seconds(20), client_id="me")
    server = rig.holder(one)
    server.statuses["POST", f"/api/jobs/{one}/cancel"] = status
    server.statuses["GET", "/queue"] = 500
    assert rig.run(cancel(rig.dispatch, (one,))) is False
    assert rig.dispatch.ledger.get(one) is not None


def test_nothing_to_delete_asks_nobody(rig: Any) -> None:
    for server in rig.servers:
        server.asked.clear()
    rig.run(delete(rig.dispatch, ()))
    assert [server.asked for server in rig.servers] == [[], []]


def test_one_that_has_begun_while_it_was_deleted_stays_known(rig: Any, seconds: Prompt) -> None:
    first = rig.submit(seconds(20), client_id="me")
    server = rig.holder(first)

    def begin(ask: Any) -> None:
        if ask.target == b"/queue" and ask.method == b"POST":
            rig.dispatch.started(rig.prompt(one), rig.clock.seconds())

    ids = [rig.submit(seconds(20, seed), client_id="me") for seed in range(1, 4)]
    rig.turn(1)
    one = next(one for one in ids if one in server.pending)
    rig.before = begin
    rig.run(delete(rig.dispatch, (one,)))
    assert rig.dispatch.ledger.get(one) is not None
