"""The proxy's own answers: their form, and that nothing in them is taken for more than it is."""

import json
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.http.answers import (
    REASONS,
    Answer,
    choose_request_id,
    make_answer,
    reason_of,
    wants_json,
)
from comfyproxy.core.http.http1 import RequestHead, parse_request_head


def request(target: str = "/", *fields: str) -> RequestHead:
    lines = [f"GET {target} HTTP/1.1", "Host: a", *fields, "", ""]
    return parse_request_head("\r\n".join(lines).encode("latin-1"))


def answer(status: int = 503, message: str = "Nobody is there.", **how: Any) -> Answer:
    return make_answer(status, message, **{"head": request(), "request_id": "id-1", **how})


def field(made: Answer, name: bytes) -> list[bytes]:
    return [line.partition(b": ")[2] for line in made.fields.splitlines() if line.startswith(name + b": ")]


def test_answer_is_plain_text_that_says_what_happened_and_what_to_do() -> None:
    made = answer()
    assert made.body == b"Nobody is there. Try again in a moment.\n"
    assert tuple(made.fields.splitlines()) == (
        b"Server: comfyproxy",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: 40",
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"X-Request-ID: id-1",
    )


def test_answer_without_advice_is_the_message_alone() -> None:
    assert answer(400, "It is malformed.").body == b"It is malformed.\n"


def test_request_that_was_not_understood_gets_text() -> None:
    made = answer(400, head=None, comfyui=True)
    assert field(made, b"Content-Type") == [b"text/plain; charset=utf-8"]


def test_further_lines_come_last() -> None:
    assert answer(extra=b"Date: x\r\n").fields.endswith(b"\r\nDate: x\r\n")


@pytest.mark.parametrize("status", REASONS)
def test_reason_goes_with_the_status(status: int) -> None:
    assert answer(status).reason.decode() == REASONS[status]


def test_status_without_a_reason_phrase_has_an_empty_one() -> None:
    assert answer(599).reason == b""


@pytest.mark.parametrize(
    "fields", [["Accept: application/json"], ["Accept: text/html;q=0.5", "Accept: application/json"]]
)
def test_client_that_prefers_json_gets_json(fields: list[str]) -> None:
    made = answer(head=request("/", *fields))
    assert field(made, b"Content-Type") == [b"application/json"]
    assert json.loads(made.body) == {
        "error": "Nobody is there.",
        "advice": "Try again in a moment.",
        "status": 503,
        "request_id": "id-1",
    }


@pytest.mark.parametrize(
    "target",
    ["/prompt", "/api/prompt?x=1", "/prompt?x=1", "/history/abc", "/internal/logs", "/v2/userdata", "/api"],
)
def test_comfyui_api_path_gets_the_error_shape_of_comfyui(target: str) -> None:
    made = answer(head=request(target), comfyui=True)
    assert field(made, b"Content-Type") == [b"application/json"]
    assert json.loads(made.body) == {
        "error": {
            "type": "comfyproxy_service_unavailable",
            "message": "Nobody is there.",
            "details": "Try again in a moment.",
            "extra_info": {"request_id": "id-1"},
        },
        "node_errors": {},
    }


@pytest.mark.parametrize(
    "target", ["/", "/promptx", "/view?filename=a.png", "/assets/api/x.js", "/x?y=/api/"]
)
def test_other_paths_of_comfyui_get_text(target: str) -> None:
    assert field(answer(head=request(target), comfyui=True), b"Content-Type") == [
        b"text/plain; charset=utf-8"
    ]


def test_api_paths_mean_nothing_without_comfyui() -> None:
    assert field(answer(head=request("/api/prompt")), b"Content-Type") == [b"text/plain; charset=utf-8"]


def test_status_unknown_to_comfyui_has_an_error_type_too() -> None:
    made = answer(599, head=request("/prompt"), comfyui=True)
    assert json.loads(made.body)["error"]["type"] == "comfyproxy_error"


@pytest.mark.parametrize(
    "accept",
    [
        b"application/json",
        b"APPLICATION/JSON",
        b"application/json, text/plain, */*",
        b"text/html;q=0.8,application/json",
        b"text/html;q=0.8,application/json;q=0.9",
        b"application/problem+json",
        b"application/*",
        b"application/json;charset=utf-8",
        b"application/json; q=1.0",
        b"application/json;freq=0, text/html;q=0.5",
        b"text/html;q=0, application/json;q=0.001",
    ],
)
def test_json_is_wanted(accept: bytes) -> None:
    assert wants_json(accept)


@pytest.mark.parametrize(
    "accept",
    [
        b"",
        b"*/*",
        b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        b"text/html, application/json",
        b"application/json;q=0.5, text/html",
        b"application/json;q=0",
        b"application/json;q=0.5, */*",
        b"text/json-not",
        b"application/jsonp",
        b", ,",
    ],
)
def test_json_is_not_wanted(accept: bytes) -> None:
    assert not wants_json(accept)


@given(st.binary())
def test_any_accept_value_can_be_read(accept: bytes) -> None:
    assert wants_json(accept) in (True, False)


INJECTIONS = [
    "\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    'x", "node_errors": {"1": 2}, "y": "',
    "</script><script>alert(1)</script>",
    "caf\u00e9 \U0001f600 \udcff \x00",
]


@pytest.mark.parametrize("message", INJECTIONS)
@pytest.mark.parametrize("accept", ["text/plain", "application/json"])
@pytest.mark.parametrize("comfyui", [False, True])
def test_message_is_nothing_but_a_message(message: str, accept: str, comfyui: bool) -> None:
    made = answer(502, message, head=request("/prompt", f"Accept: {accept}"), comfyui=comfyui)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 502 Bad Gateway\r\n" + made.fields + b"\r\n" + made.body)
    response, data, end = client.next_event(), client.next_event(), client.next_event()
    assert isinstance(response, h11.Response)
    assert isinstance(end, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    assert bytes(data.data) == made.body
    assert dict(response.headers)[b"x-content-type-options"] == b"nosniff"
    if field(made, b"Content-Type") == [b"application/json"]:
        error = json.loads(made.body)["error"]
        assert (error["message"] if comfyui else error) == message
    else:
        assert made.body.decode().startswith(message.encode(errors="replace").decode())


def with_id(value: bytes) -> RequestHead:
    return parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: " + value + b"\r\n\r\n")


def test_a_plain_request_id_is_kept() -> None:
    assert choose_request_id(with_id(b"abc-1.2:3")) == "abc-1.2:3"


def test_one_that_is_not_believed_is_replaced_too() -> None:
    assert len(choose_request_id(with_id(b"abc-1.2:3"), believed=False)) == 32


@pytest.mark.parametrize("value", [b"", b"a b", b"\xff", b"<script>", b"x" * 129])
def test_another_one_is_replaced(value: bytes) -> None:
    made = choose_request_id(with_id(value))
    assert len(made) == 32
    assert made != choose_request_id(with_id(value))


def test_a_status_has_the_reason_that_its_specification_gives_it() -> None:
    assert (reason_of(413), reason_of(201), reason_of(299)) == (b"Content Too Large", b"Created", b"")
