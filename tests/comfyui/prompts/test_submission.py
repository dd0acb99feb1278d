"""A prompt that is submitted: where it goes, and what its client is told."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.identity import fingerprint_in
from comfyproxy.comfyui.prompts.submission import read_submission
from comfyproxy.core.balancing.backend import AdminState
from comfyproxy.core.balancing.pool import HealthRules
from comfyproxy.core.balancing.routing import Pin, Refuse
from tests.comfyui.prompts.rig import make_head

Prompt = Callable[..., dict[str, Any]]
MakeRig = Callable[..., Any]


def test_prompts_at_once_spread_over_the_servers(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    ids = [rig.submit(seconds(4, seed), client_id="me") for seed in range(2)]
    assert {rig.holder(one).name for one in ids} == {"gpu1", "gpu2"}
    rig.turn(6)
    for one in ids:
        assert page.told(one)[0] == "execution_start"
        assert page.told(one)[-2:] == ["execution_success", "end"]
    assert page.remaining == 0
    assert len(rig.dispatch.ledger) == 0


def test_a_prompt_without_an_id_gets_one_that_names_its_server(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(4), client_id="me")
    assert fingerprint_in(one) == rig.holder(one).backend.fingerprint
    assert rig.holder(one).posts()[0]["client_id"] == "me"


def test_an_id_of_the_clients_own_is_kept(rig: Any, seconds: Prompt) -> None:
    own = "11111111-2222-4333-8444-555555555555"
    assert rig.submit(seconds(4), client_id="me", prompt_id=own) == own
    assert rig.holder(own) is not None


def test_the_same_id_again_goes_where_the_first_one_is(rig: Any, seconds: Prompt) -> None:
    own = "11111111-2222-4333-8444-555555555555"
    rig.submit(seconds(4), prompt_id=own)
    where = rig.holder(own)
    assert rig.submit(seconds(4), prompt_id=own) == own
    assert len(where.posts()) == 2


def test_whoever_has_no_client_id_is_served_under_the_proxys_own(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(2), extra_data={"mine": 1})
    (sent,) = rig.holder(one).posts()
    assert sent["client_id"] == rig.dispatch.observer.client_id
    assert sent["extra_data"]["mine"] == 1
    _, queue = rig.ask("GET", "/queue")
    (row,) = queue["queue_running"]
    assert row[3].keys() == {"mine", "create_time"}
    rig.turn(4)
    assert len(rig.dispatch.ledger) == 0


@pytest.mark.parametrize("client_id", [None, 5, "", [], "x" * 300])
def test_a_client_id_that_is_none_is_as_good_as_none(rig: Any, seconds: Prompt, client_id: Any) -> None:
    one = rig.submit(seconds(2), client_id=client_id)
    assert rig.holder(one).posts()[0]["client_id"] == rig.dispatch.observer.client_id


@pytest.mark.parametrize("extra_data", [None, [], "x"])
def test_extra_data_that_is_none_gives_way(rig: Any, seconds: Prompt, extra_data: Any) -> None:
    assert rig.submit(seconds(2), extra_data=extra_data)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"prompt": 5}',
        b'{"prompt": {}}',
        b'{"prompt": {"1": 5}}',
        b'{"prompt": {"1": {"class_type": "X", "inputs": {}}}, "prompt_id": 5}',
        b'{"prompt": {"1": {"class_type": "X", "inputs": {}}}, "prompt_id": ""}',
    ],
)
def test_what_is_no_prompt_is_for_a_server_to_refuse(rig: Any, body: bytes) -> None:
    assert isinstance(rig.decide("POST", "/prompt", body=body), Pin)
    assert len(rig.dispatch.ledger) == 0


def test_what_is_too_deep_to_be_written_is_for_a_server_to_refuse(rig: Any) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    document = {"prompt": {"1": {"class_type": "EmptyImage", "inputs": {"a": deep}}}}
    head = make_head("POST", "/prompt")
    caller = rig.run(rig.dispatch.callers.identify(head, None))
    assert read_submission(rig.dispatch, head, b"{}", document, caller) is None


def test_a_prompt_that_nobody_can_run_is_refused_by_all(rig: Any) -> None:
    graph = {"1": {"class_type": "NoSuchNode", "inputs": {}}}
    status, told = rig.ask("POST", "/prompt", {"prompt": graph})
    assert status == 400
    assert "NoSuchNode" in json.dumps(told["error"])
    assert [server.posts() for server in rig.servers] == [[], []]


def test_a_mistake_is_told_as_the_server_tells_it(rig: Any, seconds: Prompt) -> None:
    graph = seconds(4)
    graph["2"]["inputs"] = {}
    status, told = rig.ask("POST", "/prompt", {"prompt": graph})
    assert status == 400
    assert told["node_errors"]
    assert sum(len(server.posts()) for server in rig.servers) == 2
    assert len(rig.dispatch.ledger) == 0


def test_who_refuses_alone_is_passed_over(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(1))
    refusing = rig.holder(one)
    rig.turn(3)
    refusing.statuses["POST", "/prompt"] = 400
    other = rig.submit(seconds(1))
    assert rig.holder(other) is not refusing


@pytest.mark.parametrize("fault", ["is_down", "is_silent", 502, 503, 504])
def test_a_server_that_cannot_take_it_is_passed_over(rig: Any, seconds: Prompt, fault: Any) -> None:
    one = rig.submit(seconds(1))
    faulty = rig.holder(one)
    rig.turn(3)
    if isinstance(fault, int):
        faulty.statuses["POST", "/prompt"] = fault
    else:
        setattr(faulty, fault, True)
    other = rig.submit(seconds(30))
    assert rig.holder(other) is not faulty
    assert rig.holder(other) is not None


@pytest.mark.parametrize("loses_answers", [False, True])
def test_the_number_that_a_client_is_told_is_an_integer(
    rig: Any, seconds: Prompt, loses_answers: bool
) -> None:
    """As it is for every prompt that came without one: a client in Go or Rust reads nothing else."""
    for server in rig.servers:
        server.loses_answers = loses_answers
    told = [rig.ask("POST", "/prompt", {"prompt": seconds(1.25, seed)}) for seed in range(5)]
    assert [(status, type(answer["number"])) for status, answer in told] == [(200, int)] * 5
    assert told[-1][1].keys() == {"prompt_id", "number", "node_errors"}


def test_who_gives_no_websocket_is_named(rig: Any, seconds: Prompt) -> None:
    rig.connect = lambda session, backend: None
    status, told = rig.ask("POST", "/prompt", {"prompt": seconds(1), "client_id": "me"})
    assert status == 502
    assert re.fullmatch(
        r"No .* given the prompt \(server number \d: GET /ws gives no WebSocket there\)\.", told
    )
    assert [server.posts() for server in rig.servers] == [[], []]


def test_where_nobody_takes_it_the_client_is_told(rig: Any, seconds: Prompt) -> None:
    for server in rig.servers:
        server.statuses["POST", "/prompt"] = 503
    assert rig.ask("POST", "/prompt", {"prompt": seconds(1)}) == (502, "No server could be given the prompt.")
    assert len(rig.dispatch.ledger) == 0


def test_where_no_server_is_in_use_the_client_is_told(rig: Any, seconds: Prompt) -> None:
    for server in rig.servers:
        rig.admit(server, AdminState.DRAIN)
    assert rig.ask("POST", "/prompt", {"prompt": seconds(1)})[0] == 503
    assert isinstance(rig.decide("POST", "/prompt", body=b"{}"), Refuse)


def test_an_answer_that_was_lost_does_not_lose_the_prompt(rig: Any, seconds: Prompt) -> None:
    for server in rig.servers:
        server.loses_answers = True
    one = rig.submit(seconds(4), client_id="me")
    assert rig.holder(one) is not None
    assert sum(len(server.posts()) for server in rig.servers) == 1
    rig.turn(6)
    assert len(rig.dispatch.ledger) == 0


def test_one_that_was_perhaps_taken_goes_on_under_the_same_id(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(1))
    silent = rig.holder(one)
    rig.turn(3)
    silent.takes_and_is_silent = True
    other = rig.submit(seconds(8), client_id="me")
    assert other in (silent.running, *silent.pending)
    assert fingerprint_in(other) == silent.backend.fingerprint
    silent.takes_and_is_silent = silent.is_silent = False
    rig.dispatch.server(silent.backend).check_soon(rig.clock.seconds())
    rig.turn(1)
    assert rig.holder(other) is not silent
    rig.turn(12)
    assert [server.history.count(other) for server in rig.servers if server is not silent] == [1]


def test_the_front_is_before_the_clients_own_prompts(make_rig: MakeRig, seconds: Prompt) -> None:
    rig = make_rig(1)
    rig.turn(1)
    for seed in range(4):
        rig.submit(seconds(20, seed), client_id="me")
    front = rig.submit(seconds(20, 9), client_id="me", front=True)
    assert rig.servers[0].pending[0] == front
    first = rig.submit(seconds(20, 10), client_id="me", number=-1)
    assert rig.servers[0].pending.index(first) < 2


def test_a_server_without_the_node_is_no_candidate(make_rig: MakeRig, seconds: Prompt) -> None:
    rig = make_rig()
    lacking, able = rig.servers
    # It answers that it has no node at all.
    lacking.statuses["GET", "/object_info"] = 200
    rig.turn(1)
    assert rig.holder(rig.submit(seconds(4))) is able
    assert rig.holder(rig.submit(seconds(4))) is able


def lists_models(rig: Any, *names: str) -> None:
    """Every server has a loader of models, for which it has these."""
    for server in rig.servers:
        server.replies["GET", "/object_info"] = {
            "Loader": {"input": {"required": {"model": [list(names), {}]}}, "output_node": True}
        }


def loads(model: str) -> dict[str, Any]:
    return {"1": {"class_type": "Loader", "inputs": {"model": model}}}


def test_a_server_that_lacks_a_model_is_asked_before_the_prompt_is_refused(make_rig: MakeRig) -> None:
    rig = make_rig()
    lists_models(rig, "a.safetensors")
    rig.turn(1)
    asked = []
    rig.before = lambda ask: asked.append(ask.target)
    status, told = rig.ask("POST", "/prompt", {"prompt": loads("b.safetensors"), "client_id": "me"})
    assert status == 400
    assert asked.count(b"/prompt") == 2
    assert "b.safetensors" in json.dumps(told)


def test_a_prompt_that_its_server_takes_for_all_that_is_not_refused(make_rig: MakeRig) -> None:
    rig = make_rig(1)
    lists_models(rig, "a.safetensors")
    rig.turn(1)
    rig.servers[0].replies["POST", "/prompt"] = {"prompt_id": "x", "number": 1, "node_errors": {"1": {}}}
    status, told = rig.ask("POST", "/prompt", {"prompt": loads("b.safetensors"), "client_id": "me"})
    assert (status, told["node_errors"]) == (200, {"1": {}})


def test_a_prompt_that_is_withdrawn_before_its_server_answers_is_taken_back(
    rig: Any, seconds: Prompt
) -> None:
    own = "11111111-2222-4333-8444-555555555555"

    def cancel(ask: Any) -> None:
        if ask.target == b"/prompt":
            rig.before = lambda ask: None
            assert rig.ask("POST", f"/api/jobs/{own}/cancel") == (200, {"cancelled": True})

    rig.before = cancel
    rig.submit(seconds(20), client_id="me", prompt_id=own)
    rig.turn(1)
    assert rig.holder(own) is None
    assert len(rig.dispatch.ledger) == 0


def test_of_two_that_come_with_one_id_at_once_both_go_to_the_same_server(rig: Any, seconds: Prompt) -> None:
    one = "11111111-1111-4111-8111-111111111111"
    catalogs = rig.dispatch.catalogs
    sort_out = catalogs.sort_out

    def slowly(*arguments: Any) -> Any:
        catalogs.sort_out = sort_out
        rig.submit(seconds(4), client_id="first", prompt_id=one)
        return (yield from sort_out(*arguments))

    catalogs.sort_out = slowly
    rig.submit(seconds(4), client_id="second", prompt_id=one)
    server = rig.holder(one)
    assert (server.running, server.pending) == (one, [one])


def test_a_server_that_nobody_has_spoken_to_yet_may_be_the_one_that_can(
    make_rig: MakeRig, seconds: Prompt
) -> None:
    rig = make_rig(2)
    first, second = rig.servers
    rig.connect(rig.dispatch.observer, first.backend)
    first.statuses["POST", "/prompt"] = 400
    assert rig.holder(rig.submit(seconds(20))) is second


@pytest.fixture
def checked_rig(make_rig: MakeRig) -> Any:
    """A pool of two whose first server has been seen at work, and whose second nobody has checked yet."""
    rig = make_rig(2)
    rig.pool.follow(HealthRules(probed=True), rig.clock.seconds())
    for server in rig.servers:
        rig.admit(server, AdminState.MAINT)
        rig.admit(server, AdminState.READY)
    rig.pool.observed(rig.servers[0].backend, True, rig.clock.seconds())
    assert not rig.servers[1].backend.usable
    return rig


@pytest.mark.parametrize("says", ["400 to the prompt", "what it has"])
def test_a_server_that_was_not_checked_yet_may_have_what_no_other_has(
    checked_rig: Any, seconds: Prompt, says: str
) -> None:
    lacking, able = checked_rig.servers
    if says == "what it has":
        lacking.statuses["GET", "/object_info"] = 200
    lacking.statuses["POST", "/prompt"] = 400
    if says == "what it has":
        checked_rig.run(checked_rig.dispatch.catalogs.fetch([lacking.backend], checked_rig.clock.seconds()))
    assert checked_rig.holder(checked_rig.submit(seconds(20))) is able


def test_a_server_that_was_not_checked_yet_is_tried_where_no_other_can_be_reached(
    checked_rig: Any, seconds: Prompt
) -> None:
    gone, able = checked_rig.servers
    gone.is_down = True
    assert checked_rig.holder(checked_rig.submit(seconds(20))) is able


def test_one_that_was_perhaps_taken_goes_to_an_unchecked_server_under_the_same_id(
    checked_rig: Any, seconds: Prompt
) -> None:
    silent, able = checked_rig.servers
    silent.statuses["POST", "/prompt"] = 0
    one = checked_rig.submit(seconds(20))
    assert checked_rig.holder(one) is able
    assert [body["prompt_id"] for body in silent.posts()] == [one]


def test_a_refusal_counts_where_a_server_that_was_not_checked_yet_is_not_there(
    checked_rig: Any, seconds: Prompt
) -> None:
    lacking, gone = checked_rig.servers
    lacking.statuses["POST", "/prompt"] = 400
    gone.is_down = True
    assert checked_rig.ask("POST", "/prompt", {"prompt": seconds(4)}) == (400, {})


def test_a_server_that_does_its_work_is_preferred_to_one_that_was_not_checked_yet(
    checked_rig: Any, seconds: Prompt
) -> None:
    known, unchecked = checked_rig.servers
    for seed in range(3):
        checked_rig.submit(seconds(4, seed))
    assert (len(known.posts()), len(unchecked.posts())) == (3, 0)
