"""What the proxy knows of prompts, as rows of ComfyUI's lists."""

import json
from typing import Any

import pytest

from comfyproxy.comfyui.merging.known import Known, Status, known_row
from tests.comfyui.merging.servers import START, A, B

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "SaveImage", "inputs": {}},
    "3": {"class_type": "PreviewImage", "inputs": {}},
}


def submitted(**more: Any) -> Known:
    body = json.dumps({"prompt": GRAPH, **more}).encode()
    return Known("p", Status.PENDING, 7.5, START, submission=lambda: body)


def is_output(name: str) -> bool:
    return name != "EmptyImage"


def test_a_row_is_what_comfyui_makes_of_the_submission() -> None:
    known = submitted(client_id="c", extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    extra = {"extra_pnginfo": {"workflow": {"id": "w"}}, "client_id": "c", "create_time": START}
    assert known_row(known, is_output) == [7.5, "p", GRAPH, extra, ["2", "3"]]


def test_only_the_nodes_that_were_asked_for_are_outputs() -> None:
    assert known_row(submitted(partial_execution_targets=["3", "1"]), is_output)[4] == ["3"]


def test_secrets_are_never_repeated() -> None:
    extra = {"auth_token_comfy_org": "a", "api_key_comfy_org": "b", "kept": 1}
    assert known_row(submitted(extra_data=extra), is_output)[3] == {"kept": 1, "create_time": START}


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b"{}", b'{"prompt": [], "extra_data": "x", "client_id": null}']
)
def test_a_submission_that_says_nothing_makes_an_empty_row(body: bytes) -> None:
    row = known_row(Known("p", Status.PENDING, 0, START, submission=lambda: body), is_output)
    assert row[:3] == [0, "p", {}]
    assert row[3].pop("client_id", None) is None
    assert row[3:] == [{"create_time": START}, []]


@pytest.mark.parametrize("node", [None, [], "x", {}, {"class_type": 1}])
def test_what_is_no_node_is_no_output(node: object) -> None:
    body = json.dumps({"prompt": {"1": node, "2": GRAPH["2"]}}).encode()
    assert known_row(Known("p", Status.PENDING, 0, START, submission=lambda: body), is_output)[4] == ["2"]


@pytest.mark.parametrize("status", list(Status))
def test_what_has_ended_is_neither_pending_nor_running(status: Status) -> None:
    assert status.is_ended == (status not in ("pending", "in_progress"))


@pytest.mark.parametrize(
    ("backend", "answered", "since", "is_missing"),
    [
        (None, [A, B], 0.0, True),  # on its way
        (A, [B], 0.0, True),  # its server does not answer
        (A, [A, B], 0.0, False),  # its server says that it has it not
        (A, [A, B], 10.0, True),  # its server may have said so before it got it
        (A, [A, B], 11.0, True),
    ],
)
def test_a_prompt_that_no_answer_names_is_listed_unless_its_server_knows_better(
    backend: Any, answered: list[Any], since: float, is_missing: bool
) -> None:
    known = Known("p", Status.PENDING, 0, START, backend, since)
    assert known.is_missing(answered, 10.0) is is_missing


def test_what_has_ended_is_for_its_server_to_tell() -> None:
    known = Known("p", Status.FAILED, 0, START, A, 11.0)
    assert not known.is_missing([A], 10.0)
    assert known.is_missing([B], 10.0)
