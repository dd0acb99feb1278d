"""For how long, and how many at once."""

import pytest

from comfyproxy.core.balancing.backend import Ejection, Outcome
from comfyproxy.core.balancing.outliers import FAILURES, NEVER, REASONS, EjectionRules, eject

RULES = EjectionRules(failures=5, seconds=10.0, longest=35.0)


def test_each_ejection_that_follows_the_last_at_once_takes_twice_as_long_up_to_the_longest() -> None:
    now, ejection, lengths = 0.0, None, []
    for _ in range(5):
        ejection = eject(ejection, now, RULES)
        lengths.append(ejection.seconds)
        now = ejection.until + 1
    assert lengths == [10.0, 20.0, 35.0, 35.0, 35.0]


def test_server_that_has_worked_for_as_long_as_it_was_out_begins_with_the_first_time_again() -> None:
    last = Ejection(until=100.0, seconds=20.0)
    assert eject(last, 119.9, RULES) == Ejection(119.9 + 35.0, 35.0)
    assert eject(last, 120.0, RULES) == Ejection(130.0, 10.0)


def test_first_time_may_be_longer_than_the_longest() -> None:
    rules = EjectionRules(seconds=600.0, longest=300.0)
    first = eject(None, 0.0, rules)
    assert eject(first, 601.0, rules).seconds == first.seconds == 600.0


@pytest.mark.parametrize(
    ("size", "share", "most"),
    [(1, 1, 0), (2, 0.5, 1), (2, 0, 1), (3, 0.5, 1), (4, 0.5, 2), (10, 0.25, 2), (3, 1, 3)],
)
def test_share_of_a_pool_that_may_be_out_at_once(size: int, share: float, most: int) -> None:
    rules = EjectionRules(share=share)
    assert [rules.allow(ejected, size) for ejected in range(size)] == [
        ejected < most for ejected in range(size)
    ]


def test_only_what_speaks_against_the_server_is_a_failure_and_each_has_its_reason() -> None:
    assert set(Outcome) - FAILURES == {Outcome.ANSWERED, Outcome.ABANDONED}
    assert REASONS.keys() == FAILURES
    assert not NEVER.failures
