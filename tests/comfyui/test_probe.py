"""What a ComfyUI answers to the check, and what others do."""

import pytest

from comfyproxy.comfyui.probe import ComfyUIProbe
from comfyproxy.core.balancing.probing import Verdict
from comfyproxy.core.http.http1 import parse_response_head


def judge(status: int, body: bytes) -> Verdict:
    head = parse_response_head(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)), b"GET")
    return ComfyUIProbe().judge(head, body)


def test_it_asks_for_the_length_of_the_queue() -> None:
    assert ComfyUIProbe().request(b"gpu1:8188").startswith(b"GET /prompt HTTP/1.1\r\nHost: gpu1:8188\r\n")


@pytest.mark.parametrize(("queued", "has_work"), [(0, False), (3, True)])
def test_queue_is_the_answer_and_says_whether_there_is_work(queued: int, has_work: bool) -> None:
    verdict = judge(200, b'{"exec_info": {"queue_remaining": %d}}' % queued)
    assert verdict == Verdict(True, "GET /prompt was answered", has_work=has_work)


@pytest.mark.parametrize("status", [401, 403])
def test_one_that_wants_a_login_is_alive(status: int) -> None:
    assert judge(status, b"no") == Verdict(True, f"GET /prompt was answered with {status}")


@pytest.mark.parametrize("status", [302, 404, 500, 503])
def test_another_status_is_none_of_a_comfyui_that_works(status: int) -> None:
    assert judge(status, b"{}") == Verdict(False, f"GET /prompt was answered with {status}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"3",
        b'{"exec_info": []}',
        b'{"exec_info": {}}',
        b'{"exec_info": {"queue_remaining": "0"}}',
        b'{"exec_info": {"queue_remaining": true}}',
        b"\xff",
        b"[" * 60_000,
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_another_answer_is_none_of_a_comfyui(body: bytes) -> None:
    assert judge(200, body) == Verdict(False, "what answers GET /prompt is no ComfyUI")
