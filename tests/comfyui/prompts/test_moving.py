"""A server that has nothing to do takes over what waits elsewhere."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.prompts.ledger import Phase
from comfyproxy.comfyui.prompts.moving import plan_moves
from comfyproxy.core.balancing.backend import AdminState
from tests.comfyui.prompts.rig import Page

Prompt = Callable[..., dict[str, Any]]


def unequal(rig: Any, seconds: Prompt) -> tuple[Any, Any, list[str]]:
    """One server with one long prompt, another with three, which it gets while the first looks fuller."""
    rig.open("/ws?clientId=me")
    first, second = rig.servers
    rig.admit(first, AdminState.DRAIN)
    ids = [rig.submit(seconds(20, seed), client_id="me") for seed in range(3)]
    rig.turn(1)
    assert len(second.pending) == 2
    return first, second, ids


def test_an_idle_server_takes_over_what_waits_elsewhere(rig: Any, seconds: Prompt) -> None:
    idle, busy, ids = unequal(rig, seconds)
    page = rig.open("/ws?clientId=me")
    rig.admit(idle, AdminState.READY)
    rig.turn(1)
    assert idle.running in ids
    assert len(busy.pending) == 1
    moved = idle.running
    assert idle.posts()[-1]["prompt_id"] == moved
    rig.turn(60)
    assert all(page.told(one)[-2:] == ["execution_success", "end"] for one in ids)
    assert page.told(moved).count("execution_start") == 1
    assert sorted(idle.history + busy.history) == sorted(ids)


def test_one_that_has_begun_meanwhile_stays(rig: Any, seconds: Prompt) -> None:
    idle, busy, ids = unequal(rig, seconds)
    tried = []

    def begin(ask: Any) -> None:
        if ask.target == b"/queue" and ask.method == b"POST":
            tried.extend(busy.pending)
            rig.before = lambda ask: None
            busy.machine.worker.interrupt()
            rig.clock.advance(0)
            rig.clock.advance(0)

    rig.before = begin
    rig.admit(idle, AdminState.READY)
    rig.turn(1)
    begun = busy.running
    assert begun in tried
    assert begun not in (idle.running, *idle.pending)
    rig.turn(80)
    assert sorted(one for server in rig.servers for one in server.history) == sorted(ids)


def test_what_waits_leaves_a_server_that_is_to_be_out_of_use(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    ids = [rig.submit(seconds(20, seed), client_id="me") for seed in range(4)]
    rig.turn(1)
    leaving, other = rig.servers
    ran = leaving.running
    rig.admit(leaving, AdminState.DRAIN)
    rig.turn(1)
    assert not leaving.pending
    assert leaving.running == ran
    assert len(other.pending) == 2
    rig.turn(100)
    assert all(page.told(one)[-2:] == ["execution_success", "end"] for one in ids)


def test_a_prompt_on_its_way_is_in_the_lists(rig: Any, seconds: Prompt) -> None:
    idle, _, ids = unequal(rig, seconds)
    lists = []

    def look(ask: Any) -> None:
        if ask.target == b"/prompt" and ask.method == b"POST":
            rig.before = lambda ask: None
            rig.dispatch.views.changed()
            lists.append(rig.ask("GET", "/queue")[1])

    rig.before = look
    rig.admit(idle, AdminState.READY)
    rig.turn(1)
    (seen,) = lists
    assert sorted(row[1] for row in seen["queue_running"] + seen["queue_pending"]) == sorted(ids)


def test_a_prompt_that_is_cancelled_on_its_way_runs_nowhere(rig: Any, seconds: Prompt) -> None:
    idle, _, ids = unequal(rig, seconds)
    cancelled = []

    def cancel(ask: Any) -> None:
        if ask.target == b"/prompt" and ask.method == b"POST":
            rig.before = lambda ask: None
            (on_its_way,) = [one for one in ids if rig.holder(one) is None]
            cancelled.append((on_its_way, rig.ask("POST", f"/api/jobs/{on_its_way}/cancel")))

    rig.before = cancel
    rig.admit(idle, AdminState.READY)
    rig.turn(60)
    ((prompt_id, answer),) = cancelled
    assert answer == (200, {"cancelled": True})
    assert rig.dispatch.ledger.get(prompt_id) is None
    assert all(
        prompt_id not in server.history or _was_interrupted(server, prompt_id) for server in rig.servers
    )


def _was_interrupted(server: Any, prompt_id: str) -> bool:
    messages = server.machine.queue.history[prompt_id]["status"]["messages"]
    return messages[-1][0] == "execution_interrupted"


def test_a_prompt_that_its_new_server_does_not_take_goes_on_to_another(rig: Any, seconds: Prompt) -> None:
    idle, busy, ids = unequal(rig, seconds)
    idle.statuses["POST", "/prompt"] = 503
    rig.admit(idle, AdminState.READY)
    rig.turn(1)
    del idle.statuses["POST", "/prompt"]
    rig.turn(70)
    assert sorted(idle.history + busy.history) == sorted(ids)


def planned(rig: Any, seconds: Prompt) -> tuple[Any, Any, Any, Any]:
    """A move of which nothing is done yet: the servers, the prompt, and the operation."""
    idle, busy, _ = unequal(rig, seconds)
    rig.admit(idle, AdminState.READY)
    rig.connect(rig.dispatch.observer, idle.backend)
    rig.run(rig.dispatch.catalogs.fetch([idle.backend], rig.clock.seconds()))
    rig.clock.advance(1.0)
    rig.dispatch.now = rig.clock.seconds()
    moves = list(plan_moves(rig.dispatch))
    assert len(moves) == 1
    (prompt,) = [one for one in rig.dispatch.ledger if one.phase is Phase.SENDING]
    return idle, busy, prompt, moves[0]


def test_one_that_runs_when_its_server_is_asked_stays(rig: Any, seconds: Prompt) -> None:
    idle, busy, prompt, move = planned(rig, seconds)
    # Its server is slow to say so, and the deletion comes too late.
    for line in rig.lines.values():
        line.is_open = False
    while busy.running != prompt.prompt_id:
        busy.machine.worker.interrupt()
        rig.clock.advance(0)
    rig.run(move)
    assert (prompt.phase, prompt.backend, idle.posts()) == (Phase.RUNNING, busy.backend, [])


def test_one_that_has_ended_when_its_server_is_asked_has_ended(rig: Any, seconds: Prompt) -> None:
    idle, busy, prompt, move = planned(rig, seconds)
    for line in rig.lines.values():
        line.is_open = False
    while prompt.prompt_id not in busy.history:
        busy.machine.worker.interrupt()
        rig.clock.advance(0)
    rig.run(move)
    assert (prompt.phase, idle.posts()) == (Phase.ENDED, [])


@pytest.mark.parametrize(("path", "method"), [("/queue", "POST"), ("/queue", "GET")])
def test_one_of_which_its_server_does_not_say_anything_stays(
    rig: Any, seconds: Prompt, path: str, method: str
) -> None:
    idle, busy, prompt, move = planned(rig, seconds)
    busy.statuses[method, path] = 500
    rig.run(move)
    assert (prompt.phase, prompt.backend, idle.posts()) == (Phase.PENDING, busy.backend, [])
    del busy.statuses[method, path]
    rig.turn(80)
    assert sum(server.history.count(prompt.prompt_id) for server in rig.servers) == 1


def test_one_that_its_new_server_refuses_goes_on_to_another(rig: Any, seconds: Prompt) -> None:
    idle, busy, prompt, move = planned(rig, seconds)
    idle.statuses["POST", "/prompt"] = 400
    rig.run(move)
    rig.turn(80)
    assert busy.history.count(prompt.prompt_id) == 1


@pytest.mark.parametrize("coding", ["", "gzip", "odd"])
def test_one_that_every_server_refuses_ends_with_an_error(rig: Any, seconds: Prompt, coding: str) -> None:
    _, _, prompt, move = planned(rig, seconds)
    page = Page(rig.dispatch.session("me"))
    page.session.attach(page, rig.clock.seconds())
    for server in rig.servers:
        server.statuses["POST", "/prompt"] = 400
        server.coding = coding
    rig.run(move)
    rig.turn(3)
    assert page.told(prompt.prompt_id)[-2:] == ["execution_error", "end"]
    error = next(event for event in page.events if event["type"] == "execution_error")
    assert "refused this prompt" in error["data"]["exception_message"]


def test_a_server_that_lacks_its_models_does_not_get_it(rig: Any, seconds: Prompt) -> None:
    idle, busy, _ = unequal(rig, seconds)
    idle.statuses["GET", "/object_info"] = 200
    rig.admit(idle, AdminState.READY)
    rig.turn(5)
    assert (len(busy.pending), idle.posts()) == (2, [])


def test_what_others_submitted_is_theirs_to_move(rig: Any, seconds: Prompt) -> None:
    for seed in range(3):
        rig.servers[0].ask_directly(seconds(20, seed))
    rig.turn(5)
    assert len(rig.dispatch.ledger) == 3
    assert rig.servers[1].posts() == []


def test_one_whose_submission_could_not_be_kept_stays(rig: Any, seconds: Prompt) -> None:
    idle, busy, _ = unequal(rig, seconds)
    for prompt in rig.dispatch.ledger:
        prompt.body = b""
    rig.admit(idle, AdminState.READY)
    rig.turn(5)
    assert len(busy.pending) == 2


def test_one_that_cannot_be_sent_and_is_not_wanted_any_more_is_forgotten(rig: Any, seconds: Prompt) -> None:
    idle, _, prompt, move = planned(rig, seconds)
    idle.statuses["POST", "/prompt"] = 503

    def cancel(ask: Any) -> None:
        if ask.target == b"/prompt":
            prompt.is_withdrawn = True

    rig.before = cancel
    rig.run(move)
    assert rig.dispatch.ledger.get(prompt.prompt_id) is None
