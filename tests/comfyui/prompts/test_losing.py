"""Prompts whose server is gone."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.prompts.ledger import Phase
from comfyproxy.comfyui.prompts.locating import Found, Place
from comfyproxy.comfyui.prompts.losing import conclude, give_up, lose
from comfyproxy.core.config import ComfyUIConfig

Prompt = Callable[..., dict[str, Any]]
MakeRig = Callable[..., Any]


def both_busy(rig: Any, seconds: Prompt, count: int = 4) -> list[str]:
    return [rig.submit(seconds(20, seed), client_id="me") for seed in range(count)]


def test_what_waits_on_a_server_that_dies_runs_elsewhere(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    ids = both_busy(rig, seconds)
    rig.turn(1)
    dead, other = rig.servers
    waiting = dead.pending
    assert len(waiting) == 1
    rig.kill(dead)
    rig.turn(10)
    assert set(waiting) <= set(other.pending)
    rig.turn(80)
    assert all(page.told(one)[-2:] == ["execution_success", "end"] for one in waiting)
    assert page.remaining == 0
    assert sorted(other.history) == sorted(one for one in ids if page.told(one)[-2] == "execution_success")


def test_what_ran_ends_with_an_error_that_names_the_server(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    both_busy(rig, seconds, 2)
    rig.turn(1)
    dead = rig.servers[0]
    ran = dead.running
    rig.kill(dead)
    rig.turn(10)
    assert page.told(ran)[-2:] == ["execution_error", "end"]
    (error,) = [event for event in page.events if event["type"] == "execution_error"]
    assert "number 1" in error["data"]["exception_message"]
    assert rig.dispatch.ledger.get(ran) is None


def test_an_error_without_a_server_is_in_the_lists(rig: Any, seconds: Prompt) -> None:
    rig.open("/ws?clientId=me")
    both_busy(rig, seconds, 2)
    rig.turn(1)
    ran = rig.servers[0].running
    rig.kill(rig.servers[0])
    rig.turn(10)
    _, history = rig.ask("GET", "/history")
    assert history[ran]["status"]["status_str"] == "error"
    assert rig.ask("GET", f"/history/{ran}")[1][ran]["status"]["completed"] is False
    _, jobs = rig.ask("GET", "/api/jobs")
    assert {job["id"]: job["status"] for job in jobs["jobs"]}[ran] == "failed"


@pytest.mark.parametrize("comes_back", [False, True])
def test_what_ran_is_run_again_if_that_is_wanted(
    make_rig: MakeRig, seconds: Prompt, comes_back: bool
) -> None:
    rig = make_rig(options=ComfyUIConfig(requeue=True))
    rig.turn(1)
    page = rig.open("/ws?clientId=me")
    both_busy(rig, seconds, 2)
    rig.turn(1)
    dead, other = rig.servers
    ran = dead.running
    if comes_back:
        rig.restart(dead)
    else:
        rig.kill(dead)
    rig.turn(60)
    assert page.told(ran).count("execution_start") > 1
    assert page.told(ran)[-2:] == ["execution_success", "end"]
    assert (ran in other.history) != (ran in dead.history)
    assert page.remaining == 0


def test_what_brought_down_two_servers_is_not_shown_to_a_third(make_rig: MakeRig, seconds: Prompt) -> None:
    rig = make_rig(3, options=ComfyUIConfig(requeue=True))
    rig.turn(1)
    page = rig.open("/ws?clientId=me")
    one = rig.submit(seconds(60), client_id="me")
    for _ in range(2):
        rig.turn(1)
        rig.kill(rig.holder(one))
        rig.turn(5)
    assert rig.holder(one) is None
    assert page.told(one)[-2:] == ["execution_error", "end"]


def test_a_server_that_was_restarted_has_lost_what_it_had(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    both_busy(rig, seconds)
    rig.turn(1)
    server = rig.servers[0]
    ran, waited = server.running, server.pending[0]
    rig.restart(server)
    rig.turn(3)
    assert page.told(ran)[-2:] == ["execution_error", "end"]
    assert rig.holder(waited) is not None
    rig.turn(80)
    assert page.told(waited)[-2:] == ["execution_success", "end"]


def test_where_no_server_is_left_prompts_wait(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    both_busy(rig, seconds)
    rig.turn(1)
    waiting = [server.pending[0] for server in rig.servers]
    for server in rig.servers:
        rig.kill(server)
    rig.turn(20)
    _, queue = rig.ask("GET", "/queue")
    assert sorted(row[1] for row in queue["queue_pending"]) == sorted(waiting)
    rig.restart(rig.servers[1])
    rig.turn(60)
    assert all(page.told(one)[-2:] == ["execution_success", "end"] for one in waiting)


def test_a_server_that_could_only_not_be_reached_gives_back_what_runs_elsewhere(
    rig: Any, seconds: Prompt
) -> None:
    rig.open("/ws?clientId=me")
    both_busy(rig, seconds)
    rig.turn(1)
    cut, other = rig.servers
    waited = cut.pending[0]
    cut.is_down = True
    for line in [line for line in rig.lines.values() if line.server is cut]:
        rig.disconnect(line)
    rig.turn(6)
    assert waited in other.pending
    ran = cut.running
    cut.is_down = False
    for _ in range(8):
        rig.turn(0.25)
    assert cut.running != ran
    # `holder` sees to it that it is in one queue only.
    assert rig.holder(waited) is not None
    rig.turn(60)
    assert [server.history.count(waited) for server in rig.servers] in ([0, 1], [1, 0])


def test_a_prompt_that_ended_while_its_server_could_not_be_reached_is_told_of(
    rig: Any, seconds: Prompt
) -> None:
    page = rig.open("/ws?clientId=me")
    one = rig.submit(seconds(2), client_id="me")
    rig.turn(1)
    server = rig.holder(one)
    server.is_down = True
    for line in [line for line in rig.lines.values() if line.server is server]:
        rig.disconnect(line)
    rig.turn(2)
    assert one in server.history
    server.is_down = False
    rig.turn(2)
    assert page.told(one)[-2:] == ["execution_success", "end"]
    assert "executed" in page.told(one)
    assert page.remaining == 0


def test_what_was_withdrawn_is_not_brought_elsewhere(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(20), client_id="me")
    prompt = rig.prompt(one)
    prompt.is_withdrawn = True
    lose(rig.dispatch, prompt, "was lost")
    assert rig.dispatch.ledger.get(one) is None
    assert rig.dispatch.stranded == {}


def test_a_prompt_of_which_nothing_was_kept_ends_with_an_error(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    both_busy(rig, seconds)
    rig.turn(1)
    server = rig.servers[0]
    waiting = server.pending[0]
    rig.prompt(waiting).body = b""
    rig.kill(server)
    rig.turn(5)
    assert page.told(waiting)[-2:] == ["execution_error", "end"]


def test_a_prompt_on_its_way_to_a_server_is_not_given_up_with_it(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(20), client_id="me")
    prompt = rig.prompt(one)
    prompt.becomes(Phase.SENDING, rig.clock.seconds())
    give_up(rig.dispatch, prompt.backend)
    assert rig.prompt(one) is prompt
    assert rig.dispatch.stranded == {}


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"outputs": [], "status": []},
        {"outputs": {"1": 5}, "status": {"messages": 5}},
        {"outputs": {}, "status": {"messages": [5, [], ["x"], ["x", 5], [5, {}]]}},
    ],
)
def test_a_history_that_says_nothing_still_says_that_it_is_over(
    rig: Any, seconds: Prompt, entry: dict[str, Any]
) -> None:
    page = rig.open("/ws?clientId=me")
    one = rig.submit(seconds(20), client_id="me")
    rig.turn(1)
    conclude(rig.dispatch, rig.prompt(one), Found(Place.HISTORY, entry))
    assert page.told(one)[-1] == "end"
    assert page.remaining == 0


def test_a_server_that_hung_may_not_run_what_runs_elsewhere_by_now(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    rig.servers[0].takes_and_is_silent = rig.servers[0].is_mute = True
    ids = [rig.submit(seconds(3, seed), client_id="me") for seed in range(2)]
    rig.turn(20)
    ended = {one: page.told(one).count("execution_success") for one in ids}
    assert ended == dict.fromkeys(ids, 1)
    rig.servers[0].takes_and_is_silent = rig.servers[0].is_silent = rig.servers[0].is_mute = False
    rig.turn(10)
    assert {one: page.told(one).count("execution_success") for one in ids} == ended
    assert {one: page.told(one).count("end") for one in ids} == ended


def test_what_begins_on_a_server_that_was_given_up_is_not_brought_elsewhere(
    rig: Any, seconds: Prompt
) -> None:
    one = rig.submit(seconds(4), client_id="me")
    prompt = rig.prompt(one)
    give_up(rig.dispatch, prompt.backend)
    rig.dispatch.stranded[one] = rig.clock.seconds() + 10
    rig.dispatch.started(prompt, rig.clock.seconds())
    assert one not in rig.dispatch.stranded


def test_what_a_server_may_have_by_mistake_is_taken_back_when_it_begins(rig: Any, seconds: Prompt) -> None:
    rig.servers[0].loses_answers = True
    rig.servers[0].statuses["GET", "/queue"] = 500
    page = rig.open("/ws?clientId=me")
    ids = [rig.submit(seconds(8, seed), client_id="me") for seed in range(2)]
    rig.servers[0].statuses.clear()
    rig.servers[0].loses_answers = False
    rig.turn(30)
    assert [page.told(one).count("execution_success") for one in ids] == [1, 1]
    assert [page.told(one).count("execution_start") for one in ids] == [1, 1]
    assert not any(one in rig.servers[0].history and one in rig.servers[1].history for one in ids) or any(
        path == "/interrupt" for _, path, _ in rig.servers[0].asked
    )
