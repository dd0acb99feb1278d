"""Rise and fall."""

import pytest

from comfyproxy.core.balancing.health import UNOBSERVED, Health, Status, observe, ramp, unknown


def run(health: Health, *oks: bool, rise: int = 2, fall: int = 3) -> tuple[Health, list[bool]]:
    flips = []
    for second, ok in enumerate(oks, 1):
        health, flipped = observe(health, ok, float(second), "answered" if ok else "refused", rise, fall)
        flips.append(flipped)
    return health, flips


def test_server_that_nobody_observes_is_up() -> None:
    assert (UNOBSERVED.status, UNOBSERVED.is_down, UNOBSERVED.is_settled) == (Status.UP, False, True)


def test_server_that_never_answered_a_probe_is_not_up() -> None:
    health = unknown(7.0)
    assert (health.status, health.reason, health.since) == (Status.DOWN, "not checked yet", 7.0)
    assert (health.is_down, health.known, health.is_settled) == (True, False, False)


@pytest.mark.parametrize(
    ("ok", "status", "reason"), [(True, Status.UP, "answered"), (False, Status.DOWN, "refused")]
)
def test_first_observation_decides_alone(ok: bool, status: Status, reason: str) -> None:
    assert run(unknown(0.0), ok) == (Health(status, reason, 1.0), [True])


def test_server_falls_after_as_many_failures_in_a_row_as_fall_says() -> None:
    health, flips = run(UNOBSERVED, False, False, False, False)
    assert flips == [False, False, True, False]
    assert health == Health(Status.DOWN, "refused", 3.0)


def test_success_between_failures_starts_the_count_anew() -> None:
    health, flips = run(UNOBSERVED, False, False, True, False, False)
    assert not any(flips)
    assert (health.status, health.against, health.is_settled) == (Status.UP, 2, False)


def test_server_rises_after_as_many_successes_in_a_row_as_rise_says() -> None:
    down, _ = run(UNOBSERVED, False, fall=1)
    health, flips = run(down, True, False, True, True, True)
    assert flips == [False, False, False, True, False]
    assert health == Health(Status.UP, "answered", 4.0)


def test_starting_server_falls_like_one_that_is_up_and_successes_leave_it_starting() -> None:
    starting = Health(Status.STARTING, "answered", 5.0)
    assert run(starting, True) == (starting, [False])
    assert run(starting, False, fall=1) == (Health(Status.DOWN, "refused", 1.0), [True])


def test_observations_that_agree_keep_reason_and_time_of_the_change() -> None:
    health, _ = run(Health(Status.UP, "answered", 0.5), True, True)
    assert health == Health(Status.UP, "answered", 0.5)


def test_ramp_goes_from_a_tenth_to_the_whole_weight() -> None:
    assert [ramp(10, elapsed, 20.0) for elapsed in (0.0, 1.0, 10.0, 20.0, 99.0)] == [
        1.0,
        1.0,
        5.0,
        10.0,
        10.0,
    ]
