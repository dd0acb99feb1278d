"""Many deadlines behind one timer."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from comfyproxy.proxy.deadlines import Deadlines

TICK = 0.25


class Connection:
    """Something with a deadline, which notes when it passes."""

    def __init__(self, clock: Clock, then=None) -> None:
        self.deadline = self.slot = inf
        self.passed: list[float] = []
        self._clock = clock
        self._then = then

    def deadline_passed(self) -> None:
        self.passed.append(self._clock.seconds())
        if self._then is not None:
            self._then(self)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(1_000_000_000.1)
    return clock


@pytest.fixture
def deadlines(clock: Clock) -> Deadlines:
    return Deadlines(clock, TICK)


def turn(clock: Clock, seconds: float) -> None:
    clock.pump([TICK / 2] * round(seconds / TICK * 2))


@pytest.mark.parametrize("seconds", [0.01, 0.25, 1, 30, 74.9])
def test_a_deadline_passes_once_and_never_early(clock, deadlines, seconds):
    connection = Connection(clock)
    began = clock.seconds()
    deadlines.set(connection, seconds)
    turn(clock, seconds + 5)
    (passed,) = connection.passed
    assert seconds <= passed - began <= seconds + 3 * TICK


def test_one_that_is_moved_passes_at_its_last_place(clock, deadlines):
    connection = Connection(clock)
    for _ in range(10):
        deadlines.set(connection, 5)
        turn(clock, 4)
    assert connection.passed == []
    turn(clock, 2)
    assert len(connection.passed) == 1


def test_one_that_is_moved_nearer_passes_there(clock, deadlines):
    connection = Connection(clock)
    deadlines.set(connection, 100)
    deadlines.set(connection, 1)
    turn(clock, 2)
    assert len(connection.passed) == 1
    turn(clock, 200)
    assert len(connection.passed) == 1


@pytest.mark.parametrize("how", ["clear", "forget", "zero"])
def test_one_that_is_taken_back_does_not_pass(clock, deadlines, how):
    connection = Connection(clock)
    deadlines.set(connection, 1)
    if how == "zero":
        deadlines.set(connection, 0)
    else:
        getattr(deadlines, how)(connection)
    turn(clock, 5)
    assert connection.passed == []


def test_one_that_was_taken_back_can_be_set_again(clock, deadlines):
    connection = Connection(clock)
    deadlines.set(connection, 1)
    deadlines.clear(connection)
    deadlines.set(connection, 2)
    turn(clock, 3)
    assert len(connection.passed) == 1


def test_no_deadline_is_no_timer(clock, deadlines):
    assert clock.getDelayedCalls() == []
    deadlines.set(Connection(clock), 0)
    assert clock.getDelayedCalls() == []


def test_any_number_of_them_is_one_timer(clock, deadlines):
    for seconds in range(1, 1000):
        deadlines.set(Connection(clock), seconds)
    assert (len(clock.getDelayedCalls()), len(deadlines)) == (1, 999)


def test_when_the_last_has_passed_there_is_no_timer(clock, deadlines):
    deadlines.set(Connection(clock), 1)
    turn(clock, 3)
    assert (clock.getDelayedCalls(), len(deadlines)) == ([], 0)


def test_when_all_are_forgotten_there_is_soon_no_timer_however_far_away_they_were(clock, deadlines):
    connections = [Connection(clock) for _ in range(3)]
    for connection in connections:
        deadlines.set(connection, 1800)
        deadlines.forget(connection)
    assert len(deadlines) == 0
    turn(clock, 1)
    assert clock.getDelayedCalls() == []


def test_after_a_pause_without_any_it_goes_on(clock, deadlines):
    first, second = Connection(clock), Connection(clock)
    deadlines.set(first, 1)
    turn(clock, 100)
    deadlines.set(second, 1)
    turn(clock, 2)
    assert (len(first.passed), len(second.passed)) == (1, 1)


def test_stop_leaves_nothing(clock, deadlines):
    connection = Connection(clock)
    deadlines.set(connection, 1)
    deadlines.stop()
    deadlines.stop()
    assert (clock.getDelayedCalls(), len(deadlines)) == ([], 0)
    turn(clock, 5)
    assert connection.passed == []


def test_one_may_be_set_anew_as_it_passes(clock, deadlines):
    connection = Connection(clock, then=lambda one: deadlines.set(one, 1))
    deadlines.set(connection, 1)
    turn(clock, 10)
    assert len(connection.passed) == 6
    deadlines.stop()


def test_one_may_take_others_back_as_it_passes(clock, deadlines):
    others = [Connection(clock) for _ in range(5)]

    def end_all(one):
        for other in others:
            deadlines.forget(other)

    deadlines.set(Connection(clock, then=end_all), 1)
    for other in others:
        deadlines.set(other, 1.3)
    turn(clock, 5)
    assert [other.passed for other in others] == [[]] * 5


def test_everything_may_be_stopped_as_one_passes(clock, deadlines):
    last = Connection(clock)
    deadlines.set(Connection(clock, then=lambda one: deadlines.stop()), 1)
    deadlines.set(last, 1.3)
    clock.advance(5)
    assert (last.passed, clock.getDelayedCalls()) == ([], [])


def test_an_error_as_one_passes_does_not_keep_the_others(clock, deadlines, flush_logged_errors):
    others = [Connection(clock) for _ in range(5)]
    deadlines.set(Connection(clock, then=lambda one: 1 / 0), 1)
    for other in others:
        deadlines.set(other, 1)
    turn(clock, 3)
    assert [len(other.passed) for other in others] == [1] * 5
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "clear", "forget", "turn"]), st.integers(0, 4), st.integers(0, 40)),
        max_size=60,
    )
)
def test_whatever_is_done_each_passes_exactly_when_it_should(steps):
    clock = Clock()
    deadlines = Deadlines(clock, TICK)
    connections = [Connection(clock) for _ in range(5)]
    due: dict[Connection, float] = {}
    for what, which, amount in steps:
        connection = connections[which]
        if what == "set":
            deadlines.set(connection, amount)
            due.pop(connection, None)
            if amount:
                due[connection] = clock.seconds() + amount
        elif what == "turn":
            turn(clock, amount / 4)
        else:
            getattr(deadlines, what)(connection)
            due.pop(connection, None)
        for one in connections:
            if one.passed:
                (passed,) = one.passed
                assert due[one] <= passed <= due[one] + 3 * TICK
                one.passed.clear()
                del due[one]
        assert all(clock.seconds() <= at + 3 * TICK for at in due.values())
    deadlines.stop()
