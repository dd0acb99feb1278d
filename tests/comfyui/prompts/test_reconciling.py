"""What the ledger learns from the servers themselves."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.prompts.ledger import Phase
from comfyproxy.comfyui.prompts.reconciling import reconcile
from comfyproxy.core.balancing.backend import AdminState

Prompt = Callable[..., dict[str, Any]]
MakeRig = Callable[..., Any]


def test_a_restarted_proxy_finds_its_prompts_again(rig: Any, make_rig: MakeRig, seconds: Prompt) -> None:
    ids = [rig.submit(seconds(8, seed), client_id="me") for seed in range(4)]
    rig.turn(1)
    for line in tuple(rig.lines.values()):
        rig.disconnect(line)
    new = make_rig(beside=rig)
    new.turn(1)
    assert {prompt.prompt_id for prompt in new.dispatch.ledger} == set(ids)
    page = new.open("/ws?clientId=me")
    assert page.remaining == 4
    new.turn(20)
    assert all(page.told(one)[-2:] == ["execution_success", "end"] for one in ids)
    assert page.remaining == 0


def test_what_was_deleted_at_the_server_itself_is_gone(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    [rig.submit(seconds(20, seed), client_id="me") for seed in range(4)]
    rig.turn(1)
    deleted = rig.servers[0].pending[0]
    rig.servers[0].machine.queue.delete(deleted)
    rig.turn(3)
    assert rig.dispatch.ledger.get(deleted) is None
    assert rig.holder(deleted) is None
    assert page.remaining == 3


def test_what_somebody_else_submits_counts(rig: Any, seconds: Prompt) -> None:
    for server in rig.servers[:1]:
        for seed in range(3):
            server.ask_directly(seconds(30, seed))
    rig.turn(2)
    assert len(rig.dispatch.ledger) == 3
    one = rig.submit(seconds(2), client_id="me")
    assert rig.holder(one) is rig.servers[1]


def test_a_lost_connection_is_made_good_by_asking(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    one = rig.submit(seconds(2), client_id="me")
    rig.turn(0.5)
    rig.holder(one).machine.clients.leave("me")
    rig.turn(4)
    assert rig.dispatch.ledger.get(one) is None
    assert page.told(one)[-2:] == ["execution_success", "end"]


def test_two_proxies_answer_for_each_others_prompts(rig: Any, make_rig: MakeRig, seconds: Prompt) -> None:
    other = make_rig(beside=rig)
    other.turn(1)
    ids = [rig.submit(seconds(8, seed)) for seed in range(4)]
    for _ in range(8):
        rig.settle()
        other.turn(0.25)
    assert {prompt.prompt_id for prompt in other.dispatch.ledger} == set(ids)
    running = [one for one in ids if rig.holder(one).running == one]
    assert other.ask("POST", f"/api/jobs/{running[0]}/cancel") == (200, {"cancelled": True})
    for _ in range(60):
        rig.settle()
        other.turn(0.25)
    assert len(rig.dispatch.ledger) == len(other.dispatch.ledger) == 0
    assert {tuple(sorted(proxy.ask("GET", "/history")[1])) for proxy in (rig, other)} == {tuple(sorted(ids))}


def test_of_two_proxies_one_brings_a_prompt_to_another_server(
    rig: Any, make_rig: MakeRig, seconds: Prompt
) -> None:
    other = make_rig(beside=rig)
    other.turn(1)
    ids = [rig.submit(seconds(8, seed)) for seed in range(4)]
    for _ in range(8):
        rig.settle()
        other.turn(0.25)
    dead, alive = rig.servers
    waiting = dead.pending
    for proxy in (other, rig):
        for line in [line for line in proxy.lines.values() if line.server is dead]:
            proxy.disconnect(line)
    rig.kill(dead)
    for _ in range(240):
        rig.settle()
        other.turn(0.25)
    assert [body["prompt_id"] for body in alive.posts()].count(waiting[0]) == 1
    assert sorted(alive.history) == sorted(set(ids) - {next(iter(set(ids) - set(alive.history)))})


def test_a_prompt_that_ended_after_the_server_was_asked_is_not_taken_for_a_new_one(
    rig: Any, seconds: Prompt
) -> None:
    page = rig.open("/ws?clientId=me")
    one = rig.submit(seconds(2), client_id="me")
    rig.turn(0.5)
    server = rig.holder(one)
    looking = reconcile(rig.dispatch, server.backend)
    said_before = server.answer(next(looking))
    rig.turn(4)
    assert page.told(one)[-1] == "end"
    story = list(page.told(one))
    rig.run(looking, said_before)
    assert rig.dispatch.ledger.get(one) is None
    rig.turn(2)
    assert rig.dispatch.ledger.get(one) is None
    assert page.told(one) == story


def test_a_prompt_that_another_proxy_moves_is_followed(rig: Any, make_rig: MakeRig, seconds: Prompt) -> None:
    other = make_rig(beside=rig)
    other.turn(1)
    first = rig.servers[0]
    rig.admit(first, AdminState.DRAIN)
    [rig.submit(seconds(20, seed), client_id="me") for seed in range(3)]
    for _ in range(8):
        rig.settle()
        other.turn(0.25)
    page = other.open("/ws?clientId=me")
    rig.admit(first, AdminState.READY)
    for _ in range(12):
        rig.settle()
        other.turn(0.25)
    moved = first.running
    assert other.prompt(moved).backend.address.host == first.name
    for _ in range(400):
        rig.settle()
        other.turn(0.25)
    assert page.told(moved)[-2:] == ["execution_success", "end"]
    assert len(other.dispatch.ledger) == len(rig.dispatch.ledger) == 0


def test_a_row_of_somebody_without_a_client_is_nobodys(rig: Any, seconds: Prompt) -> None:
    one = rig.servers[0].ask_directly(seconds(20))
    rig.turn(2)
    prompt = rig.prompt(one)
    assert (prompt.client_id, prompt.is_found) == ("", True)
    assert b'"client_id"' not in prompt.submission


def test_a_history_that_cannot_be_had_is_asked_for_again(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(2), client_id="me")
    rig.turn(0.5)
    server = rig.holder(one)
    server.machine.clients.leave("me")
    server.statuses["GET", f"/history/{one}"] = 500
    rig.turn(5)
    assert rig.dispatch.ledger.get(one) is not None
    del server.statuses["GET", f"/history/{one}"]
    rig.turn(3)
    assert rig.dispatch.ledger.get(one) is None


def test_a_prompt_that_we_deleted_ourselves_is_not_lost(rig: Any, seconds: Prompt) -> None:
    ids = [rig.submit(seconds(20, seed), client_id="me") for seed in range(4)]
    rig.turn(1)
    server = rig.servers[0]
    waiting = server.pending[0]
    rig.prompt(waiting).is_taken_out = True
    server.machine.queue.delete(waiting)
    rig.turn(3)
    assert rig.holder(waiting) is not None
    assert {prompt.prompt_id for prompt in rig.dispatch.ledger} == set(ids)


def test_news_that_come_while_the_history_is_asked_for_count(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(20), client_id="me")
    rig.turn(0.5)
    server = rig.holder(one)
    backend = rig.prompt(one).backend
    server.machine.queue.running = None

    def end(ask: Any) -> None:
        if ask.target.startswith(b"/history/"):
            rig.dispatch.dropped(rig.prompt(one), rig.clock.seconds())

    rig.before = end
    rig.run(reconcile(rig.dispatch, backend))
    assert rig.dispatch.ledger.get(one) is None


@pytest.mark.parametrize(("fault", "is_reached"), [("is_silent", True), ("is_down", False)])
def test_a_server_that_does_not_answer_is_asked_again(rig: Any, fault: str, is_reached: bool) -> None:
    server, backend = rig.servers[0], rig.pool.backends[0]
    setattr(server, fault, True)
    rig.run(reconcile(rig.dispatch, backend))
    known = rig.dispatch.server(backend)
    assert (known.unreachable_since == float("inf")) is is_reached
    assert known.is_due(rig.clock.seconds() + 1)


def test_a_prompt_on_its_way_is_not_met_by_chance(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(20), client_id="me")
    prompt = rig.prompt(one)
    prompt.becomes(Phase.SENDING, rig.clock.seconds())
    rig.run(reconcile(rig.dispatch, prompt.backend))
    assert prompt.phase is Phase.SENDING
    assert rig.holder(one) is not None
