"""Where requests name clients and prompts, by path, query and body, and what is written into them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.wire import (
    MAX_ID,
    OTHER,
    SOCKET,
    SUBMISSION,
    Route,
    client_named,
    find_endpoint,
    find_route,
    is_of_a_page,
    names_nothing,
    prompts_named,
    read_object,
    with_client,
    with_prompt_id,
)
from comfyproxy.core.http.http1 import RequestHead

MakeHead = Callable[..., RequestHead]
MIB = 1024 * 1024

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("method", "target", "limit"),
    [
        ("POST", "/prompt", 100 * MIB),
        ("POST", "/api/prompt", 100 * MIB),
        ("POST", "/prompt?token=1", 100 * MIB),
        ("POST", "/%70rompt", 100 * MIB),
        ("POST", "/interrupt", MIB),
        ("POST", "/api/interrupt", MIB),
        ("POST", "/queue", MIB),
        ("POST", "/api/queue", MIB),
        ("POST", "/history", MIB),
        ("POST", "/api/history", MIB),
        ("POST", "/api/jobs/cancel", MIB),
        ("POST", "/api/api/jobs/cancel", MIB),
        ("PATCH", "/internal/logs/subscribe", MIB),
        # Not these: another method, or no such route.
        ("GET", "/prompt", 0),
        ("GET", "/queue", 0),
        ("DELETE", "/history", 0),
        ("POST", "/internal/logs/subscribe", 0),
        ("PATCH", "/api/internal/logs/subscribe", 0),
        ("POST", "/jobs/cancel", 0),
        ("POST", "/api/api/prompt", 0),
        ("POST", "/prompt/", 0),
        ("POST", "/api%2Fprompt", 0),
        ("POST", "/upload/image", 0),
        ("POST", "/free", 0),
        ("PUT", "/", 0),
    ],
)
def test_bodies_are_wanted_of_these_endpoints_only(
    make_head: MakeHead, method: str, target: str, limit: int
) -> None:
    assert find_endpoint(make_head(method, target)).body_limit == limit


@pytest.mark.parametrize(
    ("target", "client"),
    [
        ("/ws?clientId=abc", "abc"),
        ("/api/ws?clientId=abc", "abc"),
        ("/%77s?clientId=abc", "abc"),
        ("/ws?x=1&clientId=a%2Db%20c+d&y", "a-b c d"),
        ("/ws?client%49d=abc", "abc"),
        ("/ws?clientId=abc&clientId=def", "abc"),
        ("/ws", None),
        ("/ws?", None),
        ("/ws?clientId=", None),
        ("/ws?clientId", None),
        ("/ws?clientId=&clientId=def", None),
        ("/ws?clientid=abc", None),
        ("/ws?clientId=" + MAX_ID * "x", MAX_ID * "x"),
        ("/ws?clientId=x" + MAX_ID * "x", None),
        ("/view?clientId=abc", None),
    ],
)
def test_the_websocket_names_its_client_in_the_query(
    make_head: MakeHead, target: str, client: str | None
) -> None:
    head = make_head("GET", target)
    assert client_named(find_endpoint(head), head, None) == client


@pytest.mark.parametrize(
    ("method", "target", "document", "client"),
    [
        ("POST", "/prompt", {"client_id": "abc"}, "abc"),
        ("PATCH", "/internal/logs/subscribe", {"clientId": "abc", "enabled": True}, "abc"),
        ("POST", "/prompt", {"clientId": "abc"}, None),
        ("POST", "/prompt", {"client_id": None}, None),
        ("POST", "/prompt", {"client_id": 5}, None),
        ("POST", "/prompt", {"client_id": ["abc"]}, None),
        ("POST", "/prompt", {"client_id": ""}, None),
        ("POST", "/prompt", {"client_id": "x" * (MAX_ID + 1)}, None),
        ("POST", "/prompt", None, None),
        ("POST", "/interrupt", {"client_id": "abc"}, None),
        ("POST", "/free", {"client_id": "abc"}, None),
    ],
)
def test_bodies_name_their_client(
    make_head: MakeHead, method: str, target: str, document: dict[str, Any] | None, client: str | None
) -> None:
    head = make_head(method, target)
    assert client_named(find_endpoint(head), head, document) == client


@pytest.mark.parametrize(
    ("target", "prompts"),
    [
        ("/history/abc", ["abc"]),
        ("/api/history/abc?max_items=1", ["abc"]),
        ("/history/a%2Db", ["a-b"]),
        ("/history/a%2fb%25", ["a/b%"]),
        ("/history/%C3%A9", ["é"]),
        ("/history/%ff", ["\ufffd"]),
        ("/%68istory/abc", ["abc"]),
        ("/api/jobs/abc", ["abc"]),
        ("/api/api/jobs/abc", ["abc"]),
        ("/api/jobs/abc/cancel", ["abc"]),
        ("/history/" + "x" * (MAX_ID + 1), []),
        ("/history", []),
        ("/history/", []),
        ("/history/abc/def", []),
        ("/jobs/abc", []),
        ("/api/jobs", []),
        ("/api/jobs?status=pending", []),
        ("/api/api/history/abc", []),
        ("/userdata/history/abc", []),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_paths_name_a_prompt(make_head: MakeHead, method: str, target: str, prompts: list[str]) -> None:
    head = make_head(method, target)
    assert list(prompts_named(find_endpoint(head), head, None)) == prompts


@pytest.mark.parametrize(
    ("target", "document", "prompts"),
    [
        ("/prompt", {"prompt_id": "abc"}, ["abc"]),
        ("/interrupt", {"prompt_id": "abc"}, ["abc"]),
        ("/queue", {"delete": ["abc", "def"]}, ["abc", "def"]),
        ("/history", {"delete": ["abc"]}, ["abc"]),
        ("/api/jobs/cancel", {"job_ids": ["abc", "def"]}, ["abc", "def"]),
        ("/queue", {"clear": True}, []),
        ("/queue", {"delete": [None, 1, {}, [], "", "abc"]}, ["abc"]),
        ("/queue", {"delete": {"abc": 1}}, []),
        ("/interrupt", {}, []),
        ("/interrupt", None, []),
        ("/free", {"prompt_id": "abc"}, []),
    ],
)
def test_bodies_name_prompts(
    make_head: MakeHead, target: str, document: dict[str, Any] | None, prompts: list[str]
) -> None:
    head = make_head("POST", target)
    assert list(prompts_named(find_endpoint(head), head, document)) == prompts


def test_a_subscription_names_no_prompt(make_head: MakeHead) -> None:
    head = make_head("PATCH", "/internal/logs/subscribe")
    assert list(prompts_named(find_endpoint(head), head, {"clientId": "abc"})) == []


def test_the_named_endpoints_are_found(make_head: MakeHead) -> None:
    assert find_endpoint(make_head("GET", "/api/ws")) is SOCKET
    assert find_endpoint(make_head("POST", "/api/prompt")) is SUBMISSION
    assert find_endpoint(make_head("GET", "/view?filename=a.png")) is OTHER


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/ws", b"/ws?clientId=abc"),
        (b"/ws?", b"/ws?clientId=abc"),
        (b"/api/ws?token=a%20b", b"/api/ws?clientId=abc&token=a%20b"),
        (b"/ws?clientId=", b"/ws?clientId=abc&clientId="),
    ],
)
def test_a_client_is_written_into_the_query(make_head: MakeHead, target: bytes, expected: bytes) -> None:
    assert with_client(target, "abc") == expected
    head = make_head("GET", expected.decode())
    assert client_named(SOCKET, head, None) == "abc"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"{",
        b"{'a': 1}",
        b"prompt=1&client_id=2",
        b'{"a": 1} {"b": 2}',
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
        b"\x1f\x8b\x08\x00",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_json_object_is_nothing(body: bytes) -> None:
    assert read_object(body) is None


def test_lone_surrogates_and_a_byte_order_mark_are_read() -> None:
    assert read_object(b'\xef\xbb\xbf {"client_id": "\\ud800"}') == {"client_id": "\ud800"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", b'{"prompt_id": "abc"}'),
        (b" \r\n\t{ \n}\n", b' \r\n\t{"prompt_id": "abc" \n}\n'),
        (b'{"a":1e0}', b'{"prompt_id": "abc", "a":1e0}'),
        (b'\n{\n  "a" : "\\u00e9{" }\n', b'\n{"prompt_id": "abc", \n  "a" : "\\u00e9{" }\n'),
        (b'\xef\xbb\xbf{"a": 1}', b'\xef\xbb\xbf{"prompt_id": "abc", "a": 1}'),
        (b'{"a": {"prompt_id": "no"}}', b'{"prompt_id": "abc", "a": {"prompt_id": "no"}}'),
        (b'{"a": "\xc3\xa9"}', b'{"prompt_id": "abc", "a": "\xc3\xa9"}'),
    ],
)
def test_a_prompt_id_is_written_after_the_opening_brace(body: bytes, expected: bytes) -> None:
    document = read_object(body)
    assert document is not None
    assert with_prompt_id(body, document, "abc") == expected


@pytest.mark.parametrize(
    "body", [b'{"prompt_id": null, "a": [1, NaN]}', b'{"prompt\\u005fid":null,"a":[1,NaN]}']
)
def test_a_null_gives_way_to_the_prompt_id(body: bytes) -> None:
    document = read_object(body)
    assert document is not None
    assert with_prompt_id(body, document, "abc") == b'{"prompt_id": "abc", "a": [1, NaN]}'


def test_a_document_too_deep_to_be_written_again_stays_as_it_is() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert with_prompt_id(b"", {"prompt_id": None, "a": deep}, "abc") is None


@given(st.dictionaries(st.text(), json_values, max_size=5), st.integers(0, 2), st.booleans())
def test_writing_a_prompt_id_changes_nothing_else(
    document: dict[str, Any], indent: int, ascii_only: bool
) -> None:
    document.pop("prompt_id", None)
    body = json.dumps(document, indent=indent or None, ensure_ascii=ascii_only).encode()
    read = read_object(body)
    assert read is not None
    written = with_prompt_id(body, read, "abc")
    assert written is not None
    again = read_object(written)
    assert again is not None
    assert again.pop("prompt_id") == "abc"
    assert repr(again) == repr(read)
    assert written.endswith(body[body.index(b"{") + 1 :])


@given(st.binary(max_size=60))
def test_no_body_is_too_strange_to_read(body: bytes) -> None:
    document = read_object(body)
    assert document is None or isinstance(document, dict)


@pytest.mark.parametrize(
    ("method", "target", "route", "named"),
    [
        ("GET", "/ws?clientId=x", Route.SOCKET, ""),
        ("POST", "/prompt", Route.SUBMIT, ""),
        ("GET", "/api/prompt", Route.QUEUE_LENGTH, ""),
        ("GET", "/api/queue?x=1", Route.QUEUE, ""),
        ("HEAD", "/queue", Route.QUEUE, ""),
        ("POST", "/api/queue", Route.EDIT_QUEUE, ""),
        ("GET", "/history?max_items=3", Route.HISTORY, ""),
        ("GET", "/api/history/a%20b", Route.HISTORY_ENTRY, "a b"),
        ("GET", "/history/%FF", Route.HISTORY_ENTRY, "\ufffd"),
        ("POST", "/history", Route.EDIT_HISTORY, ""),
        ("POST", "/interrupt", Route.INTERRUPT, ""),
        ("POST", "/api/free", Route.FREE, ""),
        ("GET", "/api/jobs?limit=3", Route.JOBS, ""),
        ("GET", "/api/api/jobs", Route.JOBS, ""),
        ("GET", "/jobs", Route.OTHER, ""),
        ("GET", "/api/jobs/abc", Route.JOB, "abc"),
        ("POST", "/api/jobs/abc", Route.OTHER, ""),
        ("POST", "/api/jobs/abc/cancel", Route.CANCEL_JOB, "abc"),
        ("POST", "/api/jobs/cancel", Route.CANCEL_JOBS, ""),
        ("GET", "/api/object_info", Route.OBJECT_INFO, ""),
        ("GET", "/object_info/Load%20It", Route.OBJECT_INFO_CLASS, "Load It"),
        ("GET", "/system_stats", Route.SYSTEM_STATS, ""),
        ("GET", "/api/features", Route.FEATURES, ""),
        ("GET", "/view?filename=a.png", Route.VIEW, ""),
        ("HEAD", "/api/viewvideo?filename=a.mp4", Route.VIEW, ""),
        ("GET", "/v%69ew?filename=a.png", Route.VIEW, ""),
        ("GET", "/view_metadata/loras?filename=a", Route.MODEL_VIEW, "loras"),
        ("GET", "/experiment/models/preview/loras/0/a/b.png", Route.MODEL_VIEW, "loras/0/a/b.png"),
        ("GET", "/internal/files/output", Route.FOLDER, "output"),
        ("GET", "/api/internal/files/output", Route.OTHER, ""),
        ("POST", "/upload/image", Route.UPLOAD, ""),
        ("POST", "/api/upload/mask", Route.UPLOAD_MASK, ""),
        ("GET", "/settings", Route.USER_STATE, ""),
        ("POST", "/api/settings/Comfy.A", Route.USER_STATE, ""),
        ("POST", "/users", Route.USER_STATE, ""),
        ("GET", "/api/userdata?dir=workflows", Route.USER_STATE, ""),
        ("DELETE", "/userdata/workflows%2Fa.json", Route.USER_STATE, ""),
        ("POST", "/api/userdata/a%2Fb/move/c%0A", Route.USER_STATE, ""),
        ("GET", "/v2/userdata", Route.USER_STATE, ""),
        ("GET", "/settingsx", Route.OTHER, ""),
        ("PATCH", "/internal/logs/subscribe", Route.SUBSCRIBE_LOGS, ""),
        ("GET", "/internal/logs", Route.OTHER, ""),
        ("GET", "/scripts/app.js", Route.OTHER, ""),
        ("POST", "/view", Route.OTHER, ""),
    ],
)
def test_what_a_request_is_about(
    make_head: MakeHead, method: str, target: str, route: Route, named: str
) -> None:
    assert find_route(make_head(method, target)) == (route, named)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/scripts/app.js", True),
        ("GET", "/api/settings?a=%20", True),
        ("GET", "/history/abc", False),
        ("GET", "/v%69ew", False),
        ("POST", "/settings", False),
    ],
)
def test_most_of_what_a_page_asks_for_names_nothing(
    make_head: MakeHead, method: str, target: str, expected: bool
) -> None:
    assert names_nothing(make_head(method, target)) is expected


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/", True),
        ("GET", "/scripts/app.js?a=%20", True),
        ("GET", "/api/models/vae", True),
        ("GET", "/v%69ew", False),
        ("HEAD", "/", False),
        ("POST", "/scripts/app.js", False),
    ],
)
def test_what_pages_load_is_known_at_once(
    make_head: MakeHead, method: str, target: str, expected: bool
) -> None:
    assert is_of_a_page(make_head(method, target)) is expected


@pytest.mark.parametrize("prefix", ["", "/api", "/api/api"])
@pytest.mark.parametrize(
    "path",
    [
        *("/ws", "/prompt", "/queue", "/history", "/history/a", "/interrupt", "/free", "/jobs", "/jobs/a"),
        *("/object_info", "/object_info/A", "/system_stats", "/features", "/view", "/viewvideo"),
        *("/view_metadata/loras", "/upload/image", "/experiment/models/preview/a/0/b", "/users"),
        *("/internal/files/output", "/internal/logs", "/settings", "/userdata/a", "/v2/userdata"),
    ],
)
def test_what_a_route_is_about_is_no_page(make_head: MakeHead, prefix: str, path: str) -> None:
    assert not is_of_a_page(make_head("GET", prefix + path))


def test_a_document_of_too_many_values_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyproxy.comfyui.wire.MAX_VALUES", 100)
    picture = b'{"a": "' + b"x" * 1000 + b'"}'
    assert read_object(picture) is not None
    for value in (b"[]", b"{}", b"1"):
        assert read_object(b'{"a": [' + b", ".join([value] * 90) + b"]}") is None or value == b"1"
        assert read_object(b'{"a": [' + b", ".join([value] * 110) + b"]}") is None
