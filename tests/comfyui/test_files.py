"""Which file a request asks for, and which an answer tells of."""

import gzip
import json

import pytest

from comfyproxy.comfyui.files import FileRef, file_named, files_told, files_wanted, is_upload, upload_told
from comfyproxy.core.http.http1 import ResponseHead, parse_request_head, parse_response_head

PICTURE = {"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}
KEY = "output\n\nComfyUI_00001_.png"


def asked(target: str, method: str = "GET") -> str | None:
    return file_named(parse_request_head(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()))


def told(document: object, fields: str = "", status: int = 200, body: bytes | None = None) -> list[str]:
    head: ResponseHead = parse_response_head(f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode(), b"GET")
    return list(files_told(head, json.dumps(document).encode() if body is None else body))


@pytest.mark.parametrize("path", ["/view", "/api/view", "/viewvideo", "/api/viewvideo"])
def test_a_view_names_its_file(path: str) -> None:
    assert asked(f"{path}?filename=ComfyUI_00001_.png&subfolder=&type=output") == KEY


def test_what_is_not_said_is_comfyuis_default() -> None:
    assert asked("/view?filename=ComfyUI_00001_.png") == KEY


def test_names_are_decoded() -> None:
    assert asked("/view?filename=a%20b%2F%C3%A9.png&type=temp&subfolder=x%2Fy") == "temp\nx/y\na b/é.png"


@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("/view", "GET"),
        ("/view?filename=", "GET"),
        ("/view?filename=a", "POST"),
        ("/views?filename=a", "GET"),
    ],
)
def test_other_requests_name_none(target: str, method: str) -> None:
    assert asked(target, method) is None


def test_a_history_tells_of_its_outputs() -> None:
    history = {
        "id": {"prompt": [1, {"x": {"filename": "not this"}}], "outputs": {"9": {"images": [PICTURE]}}}
    }
    assert told(history) == [KEY]


def test_a_job_tells_of_its_outputs_whatever_they_are_called() -> None:
    job = {
        "outputs": {"9": {"gifs": [{"filename": "a.mp4", "subfolder": "v", "type": "temp"}], "text": ["x"]}}
    }
    assert told(job) == ["temp\nv\na.mp4"]


def test_compressed_answers_are_read() -> None:
    body = gzip.compress(json.dumps({"outputs": [PICTURE]}).encode())
    assert told(None, "Content-Encoding: gzip\r\n", body=body) == [KEY]


@pytest.mark.parametrize(
    ("fields", "status", "body"),
    [
        ("", 404, json.dumps({"outputs": [PICTURE]}).encode()),
        ("", 200, b"not JSON"),
        ("", 200, b"[" * 100_000),
        ("", 200, b"\xff\xfe"),
        ("Content-Encoding: br\r\n", 200, b"whatever"),
        ("Content-Encoding: gzip\r\n", 200, b"not gzip"),
        ("", 200, b'{"outputs": [{"filename": 7}, {"filename": ""}, "filename"]}'),
    ],
)
def test_anything_else_tells_nothing(fields: str, status: int, body: bytes) -> None:
    assert told(None, fields, status, body) == []


def test_an_upload_tells_of_its_file() -> None:
    assert told({"name": "u (1).png", "subfolder": "s", "type": "input"}) == ["input\ns\nu (1).png"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/upload/image", True),
        ("POST", "/api/upload/mask", True),
        ("GET", "/upload/image", False),
        ("POST", "/upload/other", False),
    ],
)
def test_uploads_are_known(method: str, path: str, expected: bool) -> None:
    assert is_upload(parse_request_head(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())) is expected


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("u.png", "input\n\nu.png"),
        ("clipspace/u.png [input]", "input\nclipspace\nu.png"),
        ("a/b/u.png [temp]", "temp\na/b\nu.png"),
        ("u [odd].png", "input\n\nu [odd].png"),
    ],
)
def test_a_prompt_wants_the_files_that_its_inputs_name(value: str, key: str) -> None:
    assert list(files_wanted({"prompt": {"1": {"inputs": {"image": value, "n": 3}}}})) == [key]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"prompt": []},
        {"prompt": {"1": "x"}},
        {"prompt": {"1": {"inputs": ["x"]}}},
        {"prompt": {"1": {"inputs": {"text": "long " * 200, "empty": ""}}}},
    ],
)
def test_other_prompts_want_none(document: dict[str, object]) -> None:
    assert list(files_wanted(document)) == []


@pytest.mark.parametrize(
    ("status", "document", "file"),
    [
        (200, {"name": "u (1).png", "subfolder": "s", "type": "input"}, FileRef("input", "s", "u (1).png")),
        (200, {"name": "u.png"}, FileRef("input", "", "u.png")),
        (200, {"filename": "u.png"}, None),
        (200, {"name": 7}, None),
        (200, ["u.png"], None),
        (400, {"name": "u.png"}, None),
    ],
)
def test_the_answer_to_an_upload_says_under_which_name_it_was_kept(
    status: int, document: object, file: FileRef | None
) -> None:
    head = parse_response_head(f"HTTP/1.1 {status} X\r\n\r\n".encode(), b"POST")
    assert upload_told(head, json.dumps(document).encode()) == file
