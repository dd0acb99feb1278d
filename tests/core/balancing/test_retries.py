"""When a failed attempt may be made again: the whole truth table."""

import pytest

from comfyproxy.core.balancing.backend import Outcome
from comfyproxy.core.balancing.retries import FLOOR, RetryBudget, explain, may_try_again, outcome_of
from comfyproxy.core.http.http1 import parse_request_head
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


def may(
    method: str,
    error: BackendError,
    *,
    answered: bool = False,
    body_at_hand: bool = True,
    timeouts: bool = False,
) -> bool:
    head = parse_request_head(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return may_try_again(head, error, answered=answered, body_at_hand=body_at_hand, timeouts=timeouts)


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


SILENT = BackendTimeout("silent", request_was_sent=True)


@pytest.mark.parametrize("method", IDEMPOTENT)
def test_silent_backend_is_given_up_for_another_where_that_is_wanted(method: str) -> None:
    assert may(method, SILENT, timeouts=True)


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_even_then_nothing_acts_twice(method: str) -> None:
    assert not may(method, SILENT, timeouts=True)


def test_malformed_answer_is_final_all_the_same() -> None:
    assert not may("GET", BackendProtocolError("odd", request_was_sent=True), timeouts=True)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectFailed("refused"), Outcome.REFUSED),
        (LOST, Outcome.LOST),
        (BackendProtocolError("odd", request_was_sent=True), Outcome.LOST),
        (SILENT, Outcome.TIMED_OUT),
    ],
)
def test_error_says_how_the_work_ended(error: BackendError, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome


class TestRetryBudget:
    def used(self, budget: RetryBudget, live: int) -> int:
        """How many are let through one after the other, none of which ends."""
        count = 0
        while budget.take(live) and count < 10_000:
            count += 1
        return count

    def test_all_that_a_dead_server_had_may_go_elsewhere_at_once(self) -> None:
        budget = RetryBudget(0.2)
        budget.requests += 10
        assert self.used(budget, live=200) >= 200

    def test_then_only_the_share_of_what_comes(self) -> None:
        budget = RetryBudget(0.2)
        self.used(budget, live=200)
        budget.requests += 100
        assert self.used(budget, live=200) == 20
        assert self.used(budget, live=200) == 0

    def test_what_comes_without_any_trouble_adds_up_to_one_for_each_in_flight(self) -> None:
        budget = RetryBudget(0.2)
        self.used(budget, live=200)
        budget.requests += 1_000_000
        assert self.used(budget, live=50) == 50

    @pytest.mark.parametrize("share", [0.0, 0.2])
    def test_a_few_may_always_be_in_flight(self, share: float) -> None:
        budget = RetryBudget(share)
        self.used(budget, live=0)
        assert budget.in_flight == FLOOR
        budget.give_back()
        assert self.used(budget, live=0) == 1

    def test_those_few_use_nothing_up(self) -> None:
        budget = RetryBudget(0.5)
        for _ in range(100):
            assert budget.take(10)
            budget.give_back()
        assert self.used(budget, live=10) == FLOOR + 10

    def test_all_of_a_load_that_fails_is_sent_again_no_more_often_than_its_share(self) -> None:
        budget = RetryBudget(0.2)
        repeated = 0
        for _ in range(10_000):
            budget.requests += 1
            repeated += budget.take(live=100)
        assert repeated <= 10_000 * 0.2 + 100 + FLOOR
