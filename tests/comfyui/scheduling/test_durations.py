from collections.abc import Callable

import pytest

from comfyproxy.comfyui.scheduling.durations import FASTEST, LOADING, SHORTEST, UNKNOWN, Durations, Run
from comfyproxy.comfyui.workflow import Workflow

Work = Callable[..., Workflow]


@pytest.fixture
def durations() -> Durations:
    return Durations()


def test_while_nothing_has_run_every_prompt_is_alike(durations: Durations, work: Work) -> None:
    assert durations.expect(work("a"), "gpu1") == durations.expect(work("b"), "gpu2") == UNKNOWN
    assert durations.average == UNKNOWN
    assert durations.loading(frozenset("m")) == durations.average_loading == LOADING


def test_the_same_work_is_expected_to_take_as_long_again(durations: Durations, work: Work) -> None:
    durations.learn(Run(work("a"), "gpu1", 40.0))
    assert durations.expect(work("a"), "gpu1") == durations.expect(work("a"), "gpu2") == 40.0


def test_newer_times_count_for_more(durations: Durations, work: Work) -> None:
    for _ in range(20):
        durations.learn(Run(work("a"), "gpu1", 40.0))
    for _ in range(20):
        durations.learn(Run(work("a"), "gpu1", 4.0))
    assert durations.expect(work("a"), "gpu1") == pytest.approx(4.0, rel=0.05)


def test_unknown_work_is_like_what_is_most_alike(durations: Durations, work: Work) -> None:
    durations.learn(Run(work("a", classes=("Video",)), "gpu1", 100.0))
    durations.learn(Run(work("b", classes=("Image",)), "gpu1", 1.0))
    assert durations.expect(work("c", classes=("Video",)), "gpu1") == 100.0
    assert 1.0 < durations.expect(work("c", classes=("Sound",)), "gpu1") == durations.average < 100.0


def test_a_server_that_takes_twice_as_long_is_known_by_it(durations: Durations, work: Work) -> None:
    for _ in range(20):
        durations.learn(Run(work("a"), "gpu1", 10.0))
        durations.learn(Run(work("a"), "gpu2", 20.0))
    durations.learn(Run(work("b"), "gpu1", 30.0))
    assert durations.expect(work("b"), "gpu2") == pytest.approx(60.0, rel=0.1)
    assert durations.normal(20.0, "gpu2") == pytest.approx(durations.normal(10.0, "gpu1"), rel=0.1)


def test_one_odd_measurement_puts_no_server_out_of_use(durations: Durations, work: Work) -> None:
    durations.learn(Run(work("a"), "gpu1", 1.0))
    durations.learn(Run(work("a"), "gpu2", 1e9))
    durations.learn(Run(work("b"), "gpu3", 1.0))
    assert durations.expect(work("b"), "gpu2") < 20.0


def test_what_took_no_time_still_takes_some(durations: Durations, work: Work) -> None:
    durations.learn(Run(work("a"), "gpu1", 0.0))
    durations.learn(Run(work("a"), "gpu1", 0.0))
    assert durations.expect(work("a"), "gpu1") >= SHORTEST * FASTEST


def test_loading_is_told_apart_once_the_work_was_seen_without(durations: Durations, work: Work) -> None:
    models = frozenset(("flux.safetensors",))
    durations.learn(Run(work("a", *models), "gpu1", 50.0, missing=models))
    assert durations.expect(work("a", *models), "gpu1") == 50.0 - LOADING
    durations.learn(Run(work("a", *models), "gpu1", 20.0))
    assert durations.expect(work("a", *models), "gpu1") == 20.0
    assert durations.loading(models) == pytest.approx(30.0)


def test_work_that_is_known_tells_how_long_its_loading_took(durations: Durations, work: Work) -> None:
    models = frozenset(("flux.safetensors",))
    durations.learn(Run(work("a", *models), "gpu1", 20.0))
    durations.learn(Run(work("a", *models), "gpu1", 23.0, missing=models))
    assert durations.expect(work("a", *models), "gpu1") == 20.0
    assert durations.loading(models) == pytest.approx(3.0)
    assert durations.loading(frozenset(("other.ckpt",))) == durations.average_loading == pytest.approx(3.0)


def test_work_seen_only_with_loading_is_a_guess_that_stays_possible(durations: Durations, work: Work) -> None:
    models = frozenset(("flux.safetensors",))
    durations.learn(Run(work("a", *models), "gpu1", 5.0, missing=models))
    durations.learn(Run(work("a", *models), "gpu1", 5.0, missing=models))
    assert 0 < durations.expect(work("a", *models), "gpu1") < 5.0


def test_what_is_loaded_need_not_be(durations: Durations) -> None:
    assert durations.loading(frozenset()) == 0.0


def test_a_run_from_the_cache_hardly_counts(durations: Durations, work: Work) -> None:
    durations.learn(Run(work("a"), "gpu1", 20.0))
    durations.learn(Run(work("a"), "gpu1", 0.1, is_repeat=True))
    assert durations.expect(work("a"), "gpu1") > 19.0
    for _ in range(200):
        durations.learn(Run(work("a"), "gpu1", 0.1, is_repeat=True))
    assert durations.expect(work("a"), "gpu1") < 1.0


def test_a_repetition_that_took_its_time_counts_in_full(durations: Durations, work: Work) -> None:
    for _ in range(20):
        durations.learn(Run(work("a"), "gpu1", 20.0))
    for _ in range(20):
        durations.learn(Run(work("a"), "gpu1", 11.0, is_repeat=True))
    assert durations.expect(work("a"), "gpu1") == pytest.approx(11.0, rel=0.05)


def test_what_is_learned_is_bounded(work: Work) -> None:
    durations = Durations(size=8)
    for number in range(100):
        models = frozenset((f"model{number}.ckpt",))
        for _ in range(2):
            durations.learn(Run(work(f"cold{number}", *models), f"gpu{number}", 5.0, missing=models))
            durations.learn(Run(work(f"warm{number}", *models), f"gpu{number}", 5.0))
        durations.learn(Run(work(f"warm{number}", *models), f"gpu{number}", 6.0, missing=models))
    kept = [durations._means._means, durations._loading._means, durations._guesses, durations._factors]
    assert [len(one) for one in kept] == [8, 8, 8, 8]


def test_every_lesson_is_a_new_version(durations: Durations, work: Work) -> None:
    before = durations.version
    durations.learn(Run(work("a"), "gpu1", 1.0))
    assert durations.version != before
