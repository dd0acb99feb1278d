"""Deleting, clearing, interrupting and cancelling: what a client may do to its own prompts and to others'."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.prompts.ledger import Phase
from comfyproxy.core.balancing.routing import Default

Prompt = Callable[..., dict[str, Any]]
MakeRig = Callable[..., Any]


@pytest.fixture(params=[True, False], ids=["with /api/jobs", "without"])
def pool(request: pytest.FixtureRequest, make_rig: MakeRig) -> Any:
    rig = make_rig(jobs_api=request.param, interrupt_by_id=request.param)
    rig.turn(1)
    return rig


def two_clients(rig: Any, seconds: Prompt) -> tuple[list[str], list[str]]:
    """One whose prompts run on both servers and wait, and another one whose prompts wait."""
    rig.address = b"10.0.0.1"
    mine = [rig.submit(seconds(20, seed), client_id="me") for seed in range(4)]
    rig.turn(1)
    rig.address = b"10.0.0.2"
    others = [rig.submit(seconds(20, seed), client_id="them") for seed in range(10, 12)]
    rig.turn(1)
    rig.address = b"10.0.0.1"
    return mine, others


def everything(rig: Any) -> set[str]:
    return {one for server in rig.servers for one in (server.running, *server.pending) if one}


def test_a_waiting_prompt_is_deleted_where_it_is(pool: Any, seconds: Prompt) -> None:
    page = pool.open("/ws?clientId=me")
    mine, _ = two_clients(pool, seconds)
    waiting = [one for server in pool.servers for one in server.pending if one in mine]
    assert pool.ask("POST", "/queue", {"delete": [waiting[0]]}) == (200, None)
    assert waiting[0] not in everything(pool)
    assert pool.dispatch.ledger.get(waiting[0]) is None
    pool.turn(1)
    assert page.remaining == 3


def test_what_runs_is_not_deleted(pool: Any, seconds: Prompt) -> None:
    two_clients(pool, seconds)
    ran = pool.servers[0].running
    assert pool.ask("POST", "/queue", {"delete": [ran]}) == (200, None)
    assert pool.servers[0].running == ran
    assert pool.dispatch.ledger.get(ran) is not None


def test_what_runs_beside_it_and_is_listed_as_waiting_is_interrupted(pool: Any, seconds: Prompt) -> None:
    two_clients(pool, seconds)
    _, queue = pool.ask("GET", "/queue")
    shown = [row[1] for row in queue["queue_running"]]
    beside = [server.running for server in pool.servers if server.running not in shown]
    assert len(shown) == 1
    assert [row[1] for row in queue["queue_pending"][: len(beside)]] == beside
    assert pool.ask("POST", "/queue", {"delete": beside}) == (200, None)
    pool.turn(0)
    assert [server.running in shown for server in pool.servers].count(True) == 1
    assert not {server.running for server in pool.servers} & set(beside)


def test_an_unknown_prompt_is_deleted_everywhere(pool: Any, seconds: Prompt) -> None:
    assert pool.ask("POST", "/queue", {"delete": ["nobody-knows"]}) == (200, None)
    assert all({"delete": ["nobody-knows"]} in server.posts("/queue") for server in pool.servers)


def test_clearing_takes_the_callers_own_waiting_prompts_only(pool: Any, seconds: Prompt) -> None:
    mine, others = two_clients(pool, seconds)
    running = {server.running for server in pool.servers}
    assert pool.ask("POST", "/api/queue", {"clear": True}) == (200, None)
    assert everything(pool) == running | set(others)
    assert running <= set(mine)


def test_a_server_that_does_not_answer_keeps_its_prompts(pool: Any, seconds: Prompt) -> None:
    two_clients(pool, seconds)
    waiting = pool.servers[0].pending[0]
    pool.servers[0].statuses["POST", "/queue"] = 500
    assert pool.ask("POST", "/queue", {"delete": [waiting]}) == (200, None)
    assert pool.dispatch.ledger.get(waiting) is not None


def test_an_interrupt_without_an_id_stops_what_the_caller_runs(pool: Any, seconds: Prompt) -> None:
    page = pool.open("/ws?clientId=me")
    _, others = two_clients(pool, seconds)
    ran = [server.running for server in pool.servers]
    pool.address = b"10.0.0.2"
    assert pool.ask("POST", "/interrupt") == (200, None)
    assert [server.running for server in pool.servers] == ran
    pool.address = b"10.0.0.1"
    assert pool.ask("POST", "/interrupt") == (200, None)
    pool.turn(1)
    assert all(page.told(one)[-2:] == ["execution_interrupted", "end"] for one in ran)
    assert not set(ran) & everything(pool)
    assert set(others) <= everything(pool)


def test_an_interrupt_by_id_stops_that_prompt_alone(pool: Any, seconds: Prompt) -> None:
    two_clients(pool, seconds)
    first, second = (server.running for server in pool.servers)
    assert pool.ask("POST", "/api/interrupt", {"prompt_id": second}) == (200, None)
    pool.turn(1)
    assert pool.servers[0].running == first
    assert second not in everything(pool)


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"'])
def test_a_body_that_says_nothing_interrupts_nobody_else(pool: Any, seconds: Prompt, body: bytes) -> None:
    two_clients(pool, seconds)
    ran = [server.running for server in pool.servers]
    pool.address = b"10.0.0.9"
    assert pool.decide("POST", "/interrupt", body=body).status == 200
    pool.turn(1)
    assert [server.running for server in pool.servers] == ran


@pytest.mark.parametrize("what", ["waiting", "unknown", "number"])
def test_an_interrupt_of_what_does_not_run_stops_nothing(pool: Any, seconds: Prompt, what: str) -> None:
    two_clients(pool, seconds)
    ran = [server.running for server in pool.servers]
    named = {"waiting": pool.servers[0].pending[0], "unknown": "nobody-knows", "number": 5}[what]
    assert pool.ask("POST", "/interrupt", {"prompt_id": named}) == (200, None)
    pool.turn(1)
    assert [server.running for server in pool.servers] == ran


def test_a_prompt_that_has_begun_unheard_is_interrupted_all_the_same(pool: Any, seconds: Prompt) -> None:
    two_clients(pool, seconds)
    server = pool.servers[0]
    waiting = server.pending[0]
    server.is_mute = True
    server.machine.worker.interrupt()
    pool.clock.advance(0)
    pool.clock.advance(0)
    assert server.running == waiting
    pool.ask("POST", "/interrupt", {"prompt_id": waiting})
    pool.clock.advance(0)
    assert server.running != waiting


def test_an_unknown_prompt_is_interrupted_where_it_runs(pool: Any, seconds: Prompt) -> None:
    direct = pool.servers[1].ask_directly(seconds(20))
    pool.clock.advance(0)
    assert pool.servers[1].running == direct
    pool.ask("POST", "/interrupt", {"prompt_id": direct})
    pool.turn(0.25)
    assert pool.servers[1].running is None
    assert pool.servers[0].posts("/interrupt") == []


@pytest.mark.parametrize("way", ["interrupt", "cancel", "delete"])
def test_a_client_is_told_of_the_end_of_what_a_proxy_that_has_just_begun_has_not_found_yet(
    pool: Any, make_rig: MakeRig, seconds: Prompt, way: str
) -> None:
    two_clients(pool, seconds)
    for line in tuple(pool.lines.values()):
        pool.disconnect(line)
    new = make_rig(beside=pool)
    page = new.open("/ws?clientId=me")
    assert len(new.dispatch.ledger) == 0
    running = [server.running for server in new.servers]
    if way == "delete":
        waiting = new.servers[0].pending[0]
        assert new.ask("POST", "/queue", {"delete": [waiting]}) == (200, None)
        assert new.holder(waiting) is None
    elif way == "cancel":
        assert new.ask("POST", f"/api/jobs/{running[0]}/cancel") == (200, {"cancelled": True})
    else:
        assert new.ask("POST", "/interrupt", {"prompt_id": running[0]}) == (200, None)
    new.turn(4)
    ended = page.told(running[0])
    if way == "delete":
        assert "end" not in ended
        assert page.remaining == 3
    else:
        assert (ended.count("execution_interrupted"), ended.count("end")) == (1, 1)


@pytest.mark.parametrize("place", ["pending", "running"])
def test_a_prompt_is_cancelled_wherever_it_is(pool: Any, seconds: Prompt, place: str) -> None:
    two_clients(pool, seconds)
    server = pool.servers[1]
    one = server.running if place == "running" else server.pending[0]
    assert pool.ask("POST", f"/api/jobs/{one}/cancel") == (200, {"cancelled": True})
    pool.turn(1)
    assert one not in everything(pool)
    assert pool.dispatch.ledger.get(one) is None
    assert pool.ask("POST", f"/api/jobs/{one}/cancel") == (200, {"cancelled": False})


def test_several_are_cancelled_at_once(pool: Any, seconds: Prompt) -> None:
    mine, others = two_clients(pool, seconds)
    assert pool.ask("POST", "/api/jobs/cancel", {"job_ids": mine}) == (200, {"cancelled": True})
    pool.turn(1)
    assert everything(pool) == set(others)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", {"error": "Request body must be valid JSON"}),
        (b"[]", {"error": "job_ids must be a list"}),
        (b'{"job_ids": 5}', {"error": "job_ids must be a list"}),
        (b'{"job_ids": ["A", 5]}', {"error": "job_ids contains invalid id(s)", "invalid_ids": ["A", "5"]}),
    ],
)
def test_a_list_that_is_none_cancels_nothing(pool: Any, body: bytes, error: dict[str, Any]) -> None:
    decision = pool.decide("POST", "/api/jobs/cancel", body=body)
    assert (decision.status, json.loads(decision.body)) == (400, error)


def test_an_entry_is_deleted_from_the_history_of_its_server(pool: Any, seconds: Prompt) -> None:
    ids = [pool.submit(seconds(1, seed), client_id="me") for seed in range(3)]
    pool.turn(5)
    assert pool.ask("POST", "/history", {"delete": [ids[0], "unknown"]}) == (200, None)
    assert set(pool.ask("GET", "/history")[1]) == set(ids[1:])


def test_clearing_the_history_takes_the_callers_own_entries_only(pool: Any, seconds: Prompt) -> None:
    for client, address in (("me", b"10.0.0.1"), ("them", b"10.0.0.2")):
        pool.address = address
        pool.submit(seconds(1), client_id=client)
    pool.submit(seconds(1))
    pool.turn(5)
    assert len(pool.ask("GET", "/history")[1]) == 3
    pool.address = b"10.0.0.1"
    assert pool.ask("POST", "/history", {"clear": True}) == (200, None)
    left = pool.ask("GET", "/history")[1].values()
    assert [entry["prompt"][3].get("client_id") for entry in left] in (["them", None], [None, "them"])


def test_what_ended_with_its_server_is_cleared_too(pool: Any, seconds: Prompt) -> None:
    two_clients(pool, seconds)
    lost = pool.servers[0].running
    pool.kill(pool.servers[0])
    pool.turn(5)
    assert lost in pool.ask("GET", "/history")[1]
    pool.address = b"10.0.0.2"
    pool.ask("POST", "/history", {"clear": True})
    assert lost in pool.ask("GET", "/history")[1]
    pool.address = b"10.0.0.1"
    pool.ask("POST", "/history", {"clear": True})
    assert lost not in pool.ask("GET", "/history")[1]


def test_a_prompt_that_waits_for_a_server_is_withdrawn_at_once(pool: Any, seconds: Prompt) -> None:
    two_clients(pool, seconds)
    waiting = [one for server in pool.servers for one in server.pending]
    for server in pool.servers:
        pool.kill(server)
    pool.turn(5)
    assert pool.dispatch.stranded.keys() == set(waiting)
    assert pool.ask("POST", f"/api/jobs/{waiting[0]}/cancel") == (200, {"cancelled": True})
    pool.ask("POST", "/queue", {"delete": [waiting[1]]})
    assert pool.dispatch.stranded.keys() == set(waiting[2:])


@pytest.mark.parametrize("path", ["/queue", "/history"])
def test_what_is_no_object_is_for_a_server_to_refuse(pool: Any, path: str) -> None:
    decision = pool.decide("POST", path, "Accept: */*", body=b"[1]")
    assert isinstance(decision, Default)


def test_an_edit_that_names_nothing_asks_nobody(pool: Any) -> None:
    for server in pool.servers:
        server.asked.clear()
    assert pool.ask("POST", "/queue", {}) == (200, None)
    assert pool.ask("POST", "/history", {}) == (200, None)
    assert [server.asked for server in pool.servers] == [[], []]


def test_a_prompt_on_its_way_is_not_interrupted(pool: Any, seconds: Prompt) -> None:
    two_clients(pool, seconds)
    waiting = pool.prompt(pool.servers[0].pending[0])
    waiting.becomes(Phase.SENDING, pool.clock.seconds())
    ran = [server.running for server in pool.servers]
    assert pool.ask("POST", "/interrupt", {"prompt_id": waiting.prompt_id}) == (200, None)
    assert [server.running for server in pool.servers] == ran
