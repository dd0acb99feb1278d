"""When a failed attempt may be made again: the whole truth table."""

import pytest

from comfyproxy.core.http1 import parse_request_head
from comfyproxy.core.retries import explain, may_try_again
from comfyproxy.errors import BackendError, BackendLost, BackendProtocolError, BackendTimeout, ConnectFailed

UNSENT: list[BackendError] = [
    ConnectFailed("refused"),
    BackendLost("gone", request_was_sent=False),
    BackendTimeout("silent", request_was_sent=False),
]
LOST = BackendLost("gone", request_was_sent=True)
OTHERS: list[BackendError] = [
    BackendTimeout("silent", request_was_sent=True),
    BackendProtocolError("odd", request_was_sent=True),
    BackendError("some other", request_was_sent=True),
]
IDEMPOTENT = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"]
OTHER_METHODS = ["POST", "PATCH", "PROPFIND"]


def may(method: str, error: BackendError, *, answered: bool = False, body_at_hand: bool = True) -> bool:
    head = parse_request_head(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return may_try_again(head, error, answered=answered, body_at_hand=body_at_hand)


@pytest.mark.parametrize("method", IDEMPOTENT + OTHER_METHODS)
@pytest.mark.parametrize("error", UNSENT, ids=repr)
def test_request_that_was_not_sent_is_repeated_whatever_it_is(method: str, error: BackendError) -> None:
    assert may(method, error)


@pytest.mark.parametrize("method", IDEMPOTENT)
def test_lost_request_is_repeated_if_that_is_harmless(method: str) -> None:
    assert may(method, LOST)


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_lost_request_is_not_repeated_if_it_may_act_twice(method: str) -> None:
    assert not may(method, LOST)


@pytest.mark.parametrize("method", IDEMPOTENT + OTHER_METHODS)
@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_silent_or_malformed_backend_is_not_given_up_for_another(method: str, error: BackendError) -> None:
    assert not may(method, error)


@pytest.mark.parametrize("method", IDEMPOTENT + OTHER_METHODS)
@pytest.mark.parametrize("error", [*UNSENT, LOST, *OTHERS], ids=repr)
@pytest.mark.parametrize(("answered", "body_at_hand"), [(True, True), (False, False), (True, False)])
def test_nothing_is_repeated_once_an_answer_began_or_the_body_is_gone(
    method: str, error: BackendError, answered: bool, body_at_hand: bool
) -> None:
    assert not may(method, error, answered=answered, body_at_hand=body_at_hand)


@pytest.mark.parametrize(
    ("error", "only_one", "status", "words"),
    [
        (BackendTimeout("slow", request_was_sent=True), False, 504, "within 30 seconds"),
        (BackendLost("gone", request_was_sent=True), False, 502, "failed before it answered"),
        (BackendProtocolError("odd", request_was_sent=True), True, 502, "failed before it answered"),
        (ConnectFailed("refused"), True, 503, "belongs to"),
        (ConnectFailed("refused"), False, 503, "'main'"),
    ],
)
def test_the_client_is_told_in_its_own_terms(
    error: BackendError, only_one: bool, status: int, words: str
) -> None:
    told, message = explain(error, "main", 30, only_one=only_one)
    assert told == status
    assert words in message
