"""What clients see of what servers say."""

import json
from typing import Any

import pytest

from comfyproxy.comfyui.callers import CALLER_KEY
from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.merging.showing import PLAIN, Showing
from comfyproxy.core.balancing.backend import Backend
from tests.comfyui.merging.servers import START, A, entry, job, row


def mark(outputs: Any, backend: Backend) -> Any:
    return {"marked": outputs, "as": backend.address.host}


SHOWING = Showing(lambda name: name == "SaveImage", mark, lambda client: client == "ours")
KNOWING = Showing(mark=mark, created=lambda prompt_id: START - 5000 if prompt_id == "p" else 0)


def test_what_is_not_ours_stays_as_it_is() -> None:
    given = row("p", client_id="theirs")
    assert SHOWING.row(given) == given
    assert PLAIN.entry(entry("p"), A) == entry("p")
    assert PLAIN.job(job("p"), A) == job("p")


def test_the_proxys_own_client_is_not_shown() -> None:
    assert SHOWING.row(row("p", client_id="ours"))[3] == {"create_time": START}
    assert SHOWING.row(row("p", client_id=3))[3] == {"client_id": 3, "create_time": START}


def test_whose_a_prompt_is_is_not_shown() -> None:
    given = row("p", client_id="ours", **{CALLER_KEY: "0123456789ab"})
    assert SHOWING.row(given)[3] == {"create_time": START}
    assert CALLER_KEY in given[3]


def test_a_prompt_was_created_when_the_proxy_got_it() -> None:
    assert KNOWING.row(row("p"))[3]["create_time"] == START - 5000
    assert KNOWING.entry(entry("p"), A)["prompt"][3]["create_time"] == START - 5000
    assert KNOWING.job(job("p"), A)["create_time"] == START - 5000


def test_where_the_proxy_does_not_know_when_the_server_is_believed() -> None:
    assert KNOWING.row(row("q"))[3]["create_time"] == START
    assert KNOWING.job(job("q"), A)["create_time"] == START


def test_what_differs_by_a_moment_is_as_the_server_says() -> None:
    showing = Showing(created=lambda _prompt_id: START - 500)
    assert showing.row(row("p"))[3]["create_time"] == START
    assert showing.job(job("p"), A)["create_time"] == START


def test_a_time_that_the_server_does_not_say_is_the_proxys() -> None:
    assert KNOWING.row(row("p", created=None))[3]["create_time"] == START - 5000
    assert "create_time" not in KNOWING.row(row("q", created=None))[3]


def test_outputs_are_marked() -> None:
    outputs = entry("p")["outputs"]
    marked = {"marked": outputs, "as": "server1"}
    assert SHOWING.entry(entry("p"), A)["outputs"] == marked
    assert SHOWING.job(job("p", outputs=outputs), A)["outputs"] == marked
    preview = SHOWING.job(job("p", preview_output={"filename": "a"}), A)["preview_output"]
    assert preview == {"marked": {"filename": "a"}, "as": "server1"}


@pytest.mark.parametrize("workflow", [None, [], {"prompt": {}}, {"extra_data": 3}])
def test_a_strange_workflow_stays_as_it_is(workflow: object) -> None:
    assert KNOWING.job(job("p", workflow=workflow), A)["workflow"] == workflow


def test_the_workflow_of_a_job_says_the_same_as_a_row() -> None:
    given = job("p", workflow={"prompt": {}, "extra_data": {"client_id": "ours", "create_time": START}})
    showing = Showing(is_nobody=lambda client: client == "ours", created=lambda _prompt_id: START - 5000)
    workflow = showing.job(given, A)["workflow"]
    assert workflow == {"prompt": {}, "extra_data": {"create_time": START - 5000}}


def test_a_row_of_our_own_is_shown_alike() -> None:
    body = json.dumps({"prompt": {"1": {"class_type": "SaveImage"}}, "client_id": "ours"}).encode()
    known = Known("p", Status.PENDING, 2, START, submission=lambda: body)
    assert SHOWING.known_row(known) == [
        2,
        "p",
        {"1": {"class_type": "SaveImage"}},
        {"create_time": START},
        ["1"],
    ]


@pytest.mark.parametrize(("status", "text"), [(Status.COMPLETED, "success"), (Status.FAILED, "error")])
def test_an_entry_of_our_own_says_how_it_ended(status: Status, text: str) -> None:
    shown = SHOWING.known_entry(Known("p", status, 2, START))
    assert shown["status"] == {"status_str": text, "completed": status is Status.COMPLETED, "messages": []}


@pytest.mark.parametrize("messages", [(), (("execution_interrupted", {"prompt_id": "p"}),)])
def test_an_entry_of_our_own_that_was_cancelled_says_so_once(messages: Any) -> None:
    shown = SHOWING.known_entry(Known("p", Status.CANCELLED, 2, START, messages=messages))
    assert shown["status"]["status_str"] == "error"
    assert shown["status"]["messages"] == [["execution_interrupted", {"prompt_id": "p"}]]
