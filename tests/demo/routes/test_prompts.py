"""/prompt, /queue, /history, /interrupt and /free."""

import json
from typing import Any

import pytest

PROMPT_ID = "0f8fad3c-93f1-4a0e-8d1f-24f6c0ffee12"
OTHER_ID = "1f8fad3c-93f1-4a0e-8d1f-24f6c0ffee12"


def test_a_prompt_is_taken_with_the_next_number(bench: Any, flat_picture: dict[str, Any]) -> None:
    replies = [bench.post("/api/prompt", {"prompt": flat_picture}) for _ in range(2)]
    assert [reply["number"] for reply in replies] == [0, 1]
    assert replies[0]["prompt_id"] != replies[1]["prompt_id"]
    assert replies[0]["node_errors"] == {}


def test_the_front_of_the_queue_is_a_negative_number(bench: Any, flat_picture: dict[str, Any]) -> None:
    bench.prompt(flat_picture)
    bench.prompt(flat_picture, prompt_id=PROMPT_ID)
    assert bench.post("/prompt", {"prompt": flat_picture, "front": True})["number"] == -2
    assert bench.post("/prompt", {"prompt": flat_picture, "number": 20.25, "front": True})["number"] == 20.25
    bench.run()
    assert list(bench.get("/history"))[2] == PROMPT_ID


def test_the_callers_prompt_id_is_kept_even_twice(bench: Any, flat_picture: dict[str, Any]) -> None:
    for _ in range(2):
        reply = bench.post("/prompt", {"prompt": flat_picture, "prompt_id": PROMPT_ID})
        assert reply["prompt_id"] == PROMPT_ID
    assert [row[1] for row in bench.get("/queue")["queue_pending"]] == [PROMPT_ID, PROMPT_ID]


@pytest.mark.parametrize("prompt_id", ["abc", PROMPT_ID.upper(), "", 7])
def test_a_prompt_id_that_is_no_canonical_uuid_is_refused(
    bench: Any, flat_picture: dict[str, Any], prompt_id: object
) -> None:
    answer = bench.ask("POST", "/prompt", {"prompt": flat_picture, "prompt_id": prompt_id})
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (400, "invalid_prompt_id")
    assert bench.post("/prompt", {"prompt": flat_picture, "prompt_id": None})["prompt_id"]


def test_an_older_server_takes_any_prompt_id(make_bench: Any, flat_picture: dict[str, Any]) -> None:
    bench = make_bench(uuid_check=False)
    replies = [bench.post("/prompt", {"prompt": flat_picture, "prompt_id": given}) for given in ("abc", None)]
    assert [reply["prompt_id"] for reply in replies] == ["abc", "None"]


def test_an_invalid_prompt_is_refused_with_the_errors_of_its_nodes(
    bench: Any, flat_picture: dict[str, Any]
) -> None:
    del flat_picture["2"]["inputs"]["images"]
    answer = bench.ask("POST", "/prompt", {"prompt": flat_picture})
    refusal = json.loads(answer.body)
    assert (answer.status, refusal["error"]["type"]) == (400, "prompt_outputs_failed_validation")
    assert refusal["node_errors"]["2"]["class_type"] == "SaveImage"
    assert bench.get("/prompt") == {"exec_info": {"queue_remaining": 0}}


def test_a_body_without_a_prompt_is_refused(bench: Any) -> None:
    answer = bench.ask("POST", "/prompt", {})
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (400, "no_prompt")


@pytest.mark.parametrize(
    "body",
    [b"", [], {"prompt": []}, {"prompt": {"1": "x"}}, {"prompt": {}, "number": "x"}],
)
def test_a_body_that_comfyui_does_not_expect_makes_it_stumble(bench: Any, body: Any) -> None:
    assert bench.ask("POST", "/prompt", body).status == 500


def test_extra_data_that_is_no_object_makes_it_stumble(bench: Any, flat_picture: dict[str, Any]) -> None:
    assert bench.ask("POST", "/prompt", {"prompt": flat_picture, "extra_data": 3}).status == 500


def test_the_queue_shows_prompts_without_their_secrets(bench: Any, flat_picture: dict[str, Any]) -> None:
    bench.clock.advance(5)
    fields = {"comfy-usage-source": "script"}
    extra = {"auth_token_comfy_org": "secret", "mine": 1}
    body = {"prompt": flat_picture, "client_id": "me", "extra_data": extra, "prompt_id": PROMPT_ID}
    assert bench.ask("POST", "/prompt", body, fields).status == 200
    queue = bench.get("/queue")
    assert queue["queue_running"] == []
    number, prompt_id, graph, extra_data, outputs = queue["queue_pending"][0]
    assert (number, prompt_id, graph, outputs) == (0, PROMPT_ID, flat_picture, ["2"])
    assert extra_data == {"mine": 1, "client_id": "me", "comfy_usage_source": "script", "create_time": 5000}


def test_what_runs_is_shown_apart_and_counted(bench: Any, sampled_picture: dict[str, Any]) -> None:
    bench.prompt(sampled_picture, prompt_id=PROMPT_ID)
    bench.prompt(sampled_picture, prompt_id=OTHER_ID)
    bench.clock.advance(0)
    queue = bench.get("/queue")
    assert [row[1] for row in queue["queue_running"]] == [PROMPT_ID]
    assert [row[1] for row in queue["queue_pending"]] == [OTHER_ID]
    assert bench.get("/prompt") == {"exec_info": {"queue_remaining": 2}}


def test_prompts_that_wait_can_be_deleted_and_cleared(bench: Any, sampled_picture: dict[str, Any]) -> None:
    ids = [bench.prompt(sampled_picture) for _ in range(3)]
    bench.clock.advance(0)
    bench.post("/queue", {"delete": [ids[1], ids[0], "unknown", 7]})
    queue = bench.get("/queue")
    assert [row[1] for row in queue["queue_running"] + queue["queue_pending"]] == [ids[0], ids[2]]
    bench.post("/queue", {"clear": True})
    assert bench.get("/prompt") == {"exec_info": {"queue_remaining": 1}}
    assert bench.ask("POST", "/queue", {"delete": "x"}).status == 500


def test_the_history_is_given_whole_in_part_or_by_id(bench: Any, flat_picture: dict[str, Any]) -> None:
    ids = [bench.prompt(flat_picture) for _ in range(3)]
    bench.run()
    assert list(bench.get("/history")) == ids
    assert list(bench.get("/history?max_items=2")) == ids[1:]
    assert list(bench.get("/history?max_items=2&offset=0")) == ids[:2]
    assert list(bench.get(f"/history/{ids[1]}")) == [ids[1]]
    assert bench.ask("GET", "/history?max_items=x").status == 500


def test_an_unknown_id_is_an_empty_history(bench: Any) -> None:
    assert bench.get("/history/unknown") == {}


def test_a_history_entry_has_all_that_clients_read(bench: Any, flat_picture: dict[str, Any]) -> None:
    prompt_id = bench.prompt(flat_picture)
    bench.run()
    entry = bench.get(f"/history/{prompt_id}")[prompt_id]
    picture = {"filename": "flat_00001_.png", "subfolder": "", "type": "output"}
    assert entry["outputs"] == {"2": {"images": [picture]}}
    assert entry["prompt"][1:3] == [prompt_id, flat_picture]
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("success", True)
    assert [name for name, _ in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]
    assert entry["meta"]["2"]["display_node"] == "2"


def test_the_history_can_be_deleted_and_cleared(bench: Any, flat_picture: dict[str, Any]) -> None:
    ids = [bench.prompt(flat_picture) for _ in range(3)]
    bench.run()
    bench.post("/history", {"delete": [ids[0], "unknown"]})
    assert list(bench.get("/history")) == ids[1:]
    bench.post("/history", {"clear": True})
    assert bench.get("/history") == {}


def interrupted(bench: Any, graph: dict[str, Any], body: Any) -> bool:
    """Whether this body stops a prompt that runs."""
    bench.prompt(graph, prompt_id=PROMPT_ID)
    bench.clock.pump([0, 0])
    bench.post("/interrupt", body)
    bench.run()
    return bench.get("/history")[PROMPT_ID]["status"]["status_str"] == "error"


@pytest.mark.parametrize(
    ("body", "stopped"),
    [
        (b"", True),
        (b"not json", True),
        ({}, True),
        ({"prompt_id": PROMPT_ID}, True),
        ({"prompt_id": OTHER_ID}, False),
    ],
)
def test_an_interrupt_stops_the_prompt_it_names_or_whatever_runs(
    bench: Any, sampled_picture: dict[str, Any], body: Any, stopped: bool
) -> None:
    assert interrupted(bench, sampled_picture, body) is stopped


def test_an_older_server_stops_whatever_runs(make_bench: Any, sampled_picture: dict[str, Any]) -> None:
    assert interrupted(make_bench(interrupt_by_id=False), sampled_picture, {"prompt_id": OTHER_ID})


def test_an_interrupt_that_hits_nothing_is_no_error(bench: Any, flat_picture: dict[str, Any]) -> None:
    bench.post("/interrupt", {"prompt_id": PROMPT_ID})
    bench.post("/interrupt")
    prompt_id = bench.prompt(flat_picture)
    bench.run()
    assert bench.get("/history")[prompt_id]["status"]["completed"] is True


def test_free_is_heard_without_anything_running(bench: Any) -> None:
    bench.post("/free", {"unload_models": True, "free_memory": True})
    bench.run()
    assert bench.machine.queue.flags == {}
    assert bench.ask("POST", "/free").status == 500
