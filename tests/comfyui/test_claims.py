"""What a head says of who sends it and what it is about."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.claims import Claims, Sender, read_claims, read_sender, wants_cookie
from comfyproxy.comfyui.wire import OTHER, SOCKET, SUBMISSION, names_nothing
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.http1 import RequestHead, parse_request_head

MakeHead = Callable[..., RequestHead]
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


NOTHING = Claims(None, OTHER, None, (), None, uploads=False)


def sender(head: RequestHead) -> Sender:
    return read_sender(head.block, BackendCookie())


@pytest.mark.parametrize(
    "target", ["/api/prompt", "/system_stats", "/object_info/KSampler?x=1", "/assets/a.js", "/?a=%20"]
)
def test_most_requests_say_nothing(make_head: MakeHead, target: str) -> None:
    head = make_head("GET", target, "Accept: */*", "Cookie: other=1")
    assert names_nothing(head)
    assert read_claims(head) == NOTHING
    assert sender(head) == Sender(is_from_here=True, wants_page=False, backends=())


@pytest.mark.parametrize(
    ("request_", "attribute", "value"),
    [
        (("GET", "/ws?clientId=mine"), "client", "mine"),
        (("GET", "/api/ws"), "endpoint", SOCKET),
        (("GET", "/%77s"), "endpoint", SOCKET),
        (("POST", "/prompt"), "endpoint", SUBMISSION),
        (("GET", "/api/history/abc"), "prompts", ("abc",)),
        (("GET", "/history/a%62c"), "prompts", ("abc",)),
        (("GET", "/api/jobs/abc"), "prompts", ("abc",)),
        (("GET", "/api/api/jobs/abc"), "prompts", ("abc",)),
        (("GET", "/view?filename=a.png"), "file", "output\n\na.png"),
        (("GET", "/api/viewvideo?filename=a.png"), "file", "output\n\na.png"),
        (("POST", "/upload/image"), "uploads", True),
    ],
)
def test_others_say_something(
    make_head: MakeHead, request_: tuple[str, ...], attribute: str, value: object
) -> None:
    head = make_head(*request_)
    assert getattr(read_claims(head), attribute) == value
    assert not names_nothing(head)


def test_a_handshake_may_be_about_anything(make_head: MakeHead) -> None:
    assert not names_nothing(make_head("GET", "/anything", *UPGRADE))


@pytest.mark.parametrize("line", ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"])
def test_what_another_site_may_have_sent_is_looked_at(make_head: MakeHead, line: str) -> None:
    assert not sender(make_head("GET", "/x", line)).is_from_here


def test_a_refusal_is_a_claim_too(make_head: MakeHead) -> None:
    assert read_claims(make_head("POST", "/x", "Sec-Fetch-Site: cross-site")).refusal is not None


def test_the_proxys_cookie_says_who_sends_it(make_head: MakeHead) -> None:
    assert sender(make_head("GET", "/x", "Cookie: a=1; comfyproxy=abc")).backends == ("abc",)


@pytest.mark.parametrize(
    ("request_", "wants"),
    [
        (("GET", "/"), True),
        (("GET", "/x", "Sec-Fetch-Dest: document"), True),
        (("GET", "/x", "Accept: text/html,*/*"), True),
        (("GET", "/ws?clientId=mine", *UPGRADE), True),
        (("POST", "/x", "Accept: text/html,*/*"), False),
        (("GET", "/x", "Accept: */*"), False),
        (("GET", "/x", "Connection: Upgrade", "Upgrade: h2c"), False),
    ],
)
def test_pages_and_websockets_get_the_cookie(
    make_head: MakeHead, request_: tuple[str, ...], wants: bool
) -> None:
    head = make_head(*request_)
    assert wants_cookie(head, sender(head)) is wants


@given(
    st.lists(
        st.sampled_from(
            ["/", "api", "ws", "history", "jobs", "view", "viewvideo", "upload/image", "prompt", "x", "%77s"]
        )
        | st.sampled_from(["%2f", "?", "&", "clientId=a", "filename=b", "cancel"]),
        max_size=9,
    )
)
def test_what_is_passed_over_at_once_has_no_claims(parts: list[str]) -> None:
    head = parse_request_head(f"GET /{''.join(parts)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    if names_nothing(head):
        assert read_claims(head) == NOTHING
