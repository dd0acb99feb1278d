"""What a head says of who sends it and what it is about."""

from collections.abc import Callable

import pytest

from comfyproxy.comfyui.claims import Claims, read_claims
from comfyproxy.comfyui.cookie import BackendCookie
from comfyproxy.comfyui.wire import OTHER, SOCKET, SUBMISSION
from comfyproxy.core.http1 import RequestHead

MakeHead = Callable[..., RequestHead]
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


@pytest.fixture
def claims(make_head: MakeHead) -> Callable[..., Claims]:
    return lambda *request: read_claims(make_head(*request), BackendCookie())


@pytest.mark.parametrize(
    "target", ["/api/prompt", "/system_stats", "/object_info/KSampler?x=1", "/assets/a.js"]
)
def test_most_requests_say_nothing(claims: Callable[..., Claims], target: str) -> None:
    assert claims("GET", target, "Accept: */*", "Cookie: other=1") == Claims(
        None, OTHER, None, (), None, False, (), wants_cookie=False, nothing=True
    )


@pytest.mark.parametrize(
    ("request_", "attribute", "value"),
    [
        (("GET", "/ws?clientId=mine"), "client", "mine"),
        (("GET", "/ws"), "endpoint", SOCKET),
        (("POST", "/prompt"), "endpoint", SUBMISSION),
        (("GET", "/api/history/abc"), "prompts", ("abc",)),
        (("GET", "/view?filename=a.png"), "file", "output\n\na.png"),
        (("POST", "/upload/image"), "uploads", True),
        (("GET", "/x", "Cookie: comfyproxy=abc"), "backends", ("abc",)),
        (("GET", "/"), "wants_cookie", True),
        (("GET", "/x", "Sec-Fetch-Dest: document"), "wants_cookie", True),
        (("GET", "/x", "Accept: text/html,*/*"), "wants_cookie", True),
        (("GET", "/ws?clientId=mine", *UPGRADE), "wants_cookie", True),
    ],
)
def test_others_say_something(
    claims: Callable[..., Claims], request_: tuple[str, ...], attribute: str, value: object
) -> None:
    found = claims(*request_)
    assert getattr(found, attribute) == value
    assert not found.nothing


def test_a_refusal_is_something_too(claims: Callable[..., Claims]) -> None:
    found = claims("POST", "/x", "Sec-Fetch-Site: cross-site")
    assert found.refusal is not None
    assert not found.nothing
