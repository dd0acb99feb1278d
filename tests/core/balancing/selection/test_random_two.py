"""The better one of two random ones: by leases, and by what they are likely to take."""

from collections import Counter
from random import Random

import pytest

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.random_two import DECAY, PeakEwma, RandomTwo
from tests.core.balancing.selection.servers import begin, drawn, end, servers


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def random_two(backends: list[Backend], seed: int = 1) -> RandomTwo:
    policy = RandomTwo(Random(seed).random)
    policy.use(backends)
    return policy


def ewma(backends: list[Backend], clock: Clock | None = None, seed: int = 1) -> PeakEwma:
    policy = PeakEwma(Random(seed).random, clock or Clock())
    policy.use(backends)
    return policy


def answer(policy: PeakEwma, one: Backend, seconds: float, now: float = 1000.0) -> None:
    begin(policy, one)
    end(policy, one, seconds, now)


def test_of_two_the_one_with_less_in_flight_is_taken() -> None:
    a, b = backends = servers((1, 1))
    policy = random_two(backends)
    begin(policy, a)
    assert set(drawn(policy, 30)) == {b}
    begin(policy, b)
    begin(policy, b)
    assert set(drawn(policy, 30)) == {a}


def test_what_is_in_flight_is_weighed() -> None:
    heavy, light = backends = servers((4, 1))
    policy = random_two(backends)
    for _ in range(3):
        begin(policy, heavy)
    begin(policy, light)
    assert set(drawn(policy, 30)) == {heavy}


def test_idle_backends_share_by_weight() -> None:
    backends = servers((5, 1, 1, 3))
    served = Counter(drawn(random_two(backends), 4000))
    for one in backends:
        assert served[one] == pytest.approx(400 * one.weight, abs=120)


def test_two_choices_keep_the_fullest_near_the_average() -> None:
    backends = servers([1] * 100)
    policy = random_two(backends)
    for _ in range(1000):
        begin(policy, drawn(policy, 1)[0])
    assert max(one.leases for one in backends) <= 13


def test_backends_with_no_limit_need_no_watching_except_to_measure_them() -> None:
    backends = servers((1, 1))
    assert not random_two(backends).watches
    assert ewma(backends).watches


def test_quicker_backend_is_taken() -> None:
    slow, quick = backends = servers((1, 1))
    policy = ewma(backends)
    answer(policy, slow, 0.5)
    answer(policy, quick, 0.1)
    assert set(drawn(policy, 30)) == {quick}


def test_what_is_in_flight_multiplies_the_time() -> None:
    slow, quick = backends = servers((1, 1))
    policy = ewma(backends)
    answer(policy, slow, 0.5)
    answer(policy, quick, 0.1)
    for _ in range(3):
        begin(policy, quick)
    assert set(drawn(policy, 30)) == {quick}
    for _ in range(2):
        begin(policy, quick)
    assert set(drawn(policy, 30)) == {slow}


def test_backend_that_becomes_slow_is_avoided_from_its_first_slow_answer_on() -> None:
    a, b = backends = servers((1, 1))
    policy = ewma(backends)
    for _ in range(100):
        answer(policy, a, 0.1)
        answer(policy, b, 0.2)
    answer(policy, a, 3.0)
    assert set(drawn(policy, 30)) == {b}


def test_quick_answer_pulls_the_average_down_slowly() -> None:
    a, b = backends = servers((1, 1))
    clock = Clock()
    policy = ewma(backends, clock)
    answer(policy, a, 4.0)
    answer(policy, b, 1.0)
    clock.now += DECAY / 10
    answer(policy, a, 0.1, clock.now)
    answer(policy, b, 1.0, clock.now)
    assert set(drawn(policy, 30)) == {b}


def test_slow_backend_is_forgiven_with_time() -> None:
    slow, quick = backends = servers((1, 1))
    clock = Clock()
    policy = ewma(backends, clock)
    answer(policy, slow, 5.0)
    for _ in range(8):
        clock.now += DECAY
        answer(policy, quick, 0.1, clock.now)
    assert set(drawn(policy, 30)) == {slow}


def test_backend_without_history_is_tried_once_and_then_waited_for() -> None:
    old, new = backends = servers((1, 1))
    policy = ewma(backends)
    answer(policy, old, 0.1)
    assert set(drawn(policy, 30)) == {new}
    begin(policy, new)
    for _ in range(50):
        begin(policy, old)
    assert set(drawn(policy, 30)) == {old}


def test_end_that_says_nothing_of_the_backend_is_not_measured() -> None:
    a, b = backends = servers((1, 1))
    policy = ewma(backends)
    answer(policy, a, 0.0)
    answer(policy, b, 0.1)
    assert set(drawn(policy, 30)) == {a}


def test_clock_that_steps_back_does_no_harm() -> None:
    a, b = backends = servers((1, 1))
    clock = Clock()
    policy = ewma(backends, clock)
    answer(policy, a, 0.5, 2000.0)
    answer(policy, a, 0.4, 1000.0)
    answer(policy, b, 0.45, 1000.0)
    assert set(drawn(policy, 30)) == {b}


def test_reload_keeps_what_is_known_of_survivors_and_forgets_the_others() -> None:
    a, b, c = servers((1, 1, 1))
    policy = ewma([a, b])
    answer(policy, a, 0.5)
    answer(policy, b, 0.1)
    policy.use([a, c])
    assert set(drawn(policy, 30)) == {c}
    answer(policy, c, 0.6)
    assert set(drawn(policy, 30)) == {a}
    policy.use([a, b, c])
    assert policy._times.keys() == {a, c}
