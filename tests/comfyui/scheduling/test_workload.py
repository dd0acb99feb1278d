from collections.abc import Callable
from itertools import pairwise

import pytest

from comfyproxy.comfyui.scheduling.durations import LOADING, UNKNOWN, Durations, Run
from comfyproxy.comfyui.scheduling.workload import Job, Workload
from comfyproxy.comfyui.workflow import Workflow

Work = Callable[..., Workflow]


@pytest.fixture
def load() -> Workload:
    return Workload("gpu1")


@pytest.fixture
def job(work: Work) -> Callable[..., Job]:
    """A job of that id and tag, with these models."""

    def job(prompt_id: str, tag: float = 0.0, *models: str, client: str = "ann") -> Job:
        return Job(prompt_id, client, work("portrait", *models), tag, tag)

    return job


Make = Callable[..., Job]


def test_a_server_with_nothing_to_do_is_idle(load: Workload, job: Make) -> None:
    assert load.is_idle
    load.told(1)
    assert not load.is_idle
    load.told(0)
    load.add(job("a"))
    assert not load.is_idle
    load.start(load.pending[0], 0.0)
    assert not load.is_idle


def test_jobs_wait_in_the_order_of_their_numbers(load: Workload, job: Make) -> None:
    for prompt_id, number in (("b", 2.0), ("d", 3.0), ("a", 1.0), ("c", 2.0)):
        load.add(job(prompt_id, number))
    assert [one.prompt_id for one in load.pending] == ["a", "b", "c", "d"]


def test_a_job_put_between_others_gets_a_number_between_theirs(load: Workload, job: Make) -> None:
    first, last, tagged = job("a", 10.0), job("c", 20.0), job("b", 15.0)
    load.add(first)
    load.add(last)
    load.insert(tagged, 1, 1.0)
    assert tagged.number == 15.0
    early = job("d", 99.0)
    load.insert(early, 0, 1.0)
    assert early.number < 10.0
    late = job("e", 1.0)
    load.insert(late, 4, 1.0)
    assert 20.0 < late.number < 20.1


def test_thousands_of_jobs_fit_between_two_numbers(load: Workload, job: Make) -> None:
    load.add(job("a", 1000.0))
    load.add(job("z", 1000.01))
    for number in range(2000):
        load.insert(job(f"m{number}", 5000.0), len(load.pending) - 1, 1.0)
    numbers = [one.number for one in load.pending]
    assert all(one < other for one, other in pairwise(numbers))


def test_numbers_stay_apart_however_large(load: Workload, job: Make) -> None:
    load.add(job("a", 9e11))
    load.insert(job("b", 0.0), 1, 1.0)
    load.insert(job("c", 1e13), 0, 1.0)
    numbers = [one.number for one in load.pending]
    assert numbers[0] < numbers[1] < numbers[2]


def test_no_room_between_equal_numbers_is_no_failure(load: Workload, job: Make) -> None:
    load.add(job("a", 5.0))
    load.add(job("c", 5.0))
    middle = job("b", 5.0)
    load.insert(middle, 1, 1.0)
    assert middle.number == 5.0
    assert load.remove(middle)


def test_those_whose_turn_was_earlier_are_overtaken_and_no_others(load: Workload, job: Make) -> None:
    earlier, later, before = job("a", 10.0), job("b", 30.0), job("c", 5.0)
    for one in (earlier, later, before):
        load.add(one)
    load.insert(job("d", 20.0), 1, 7.0)
    assert (before.overtaken, earlier.overtaken, later.overtaken) == (0.0, 7.0, 0.0)


def test_a_job_is_removed_once(load: Workload, job: Make) -> None:
    one = job("a")
    load.add(one)
    assert load.remove(one)
    assert not load.remove(one)


def test_a_run_says_what_was_loaded_for_it(load: Workload, job: Make) -> None:
    one, two = job("a", 0.0, "sdxl", "lora"), job("b", 0.0, "sdxl", "other")
    load.start(one, 100.0)
    assert load.end(one, 130.0) == Run(one.workflow, "gpu1", 30.0, frozenset(("sdxl", "lora")))
    load.start(two, 140.0)
    assert load.end(two, 150.0) == Run(two.workflow, "gpu1", 10.0, frozenset(("other",)), is_repeat=True)


def test_a_job_without_models_leaves_those_that_are_loaded(load: Workload, job: Make) -> None:
    load.start(job("a", 0.0, "sdxl"), 0.0)
    load.start(job("b"), 1.0)
    assert load.warm == {"sdxl"}
    assert not load.missing


def test_nothing_was_measured_of_what_did_not_run_or_began_unseen(load: Workload, job: Make) -> None:
    waiting, found = job("a"), job("b")
    load.add(waiting)
    load.start(found, 0.0, is_seen=False)
    assert load.end(waiting, 1.0) is None
    assert load.end(found, 1.0) is None
    assert load.is_idle


def test_time_that_goes_back_is_no_time(load: Workload, job: Make) -> None:
    one = job("a")
    load.start(one, 10.0)
    run = load.end(one, 9.0)
    assert run is not None
    assert run.seconds == 0.0


def test_what_a_server_has_beyond_what_is_known_is_others(load: Workload, job: Make) -> None:
    load.start(job("a"), 0.0)
    load.add(job("b"))
    load.told(5)
    assert load.foreign == 3
    load.told(0)
    assert load.foreign == 0


def test_the_rest_is_what_runs_and_what_others_sent(load: Workload, job: Make) -> None:
    durations = Durations()
    load.start(job("a"), 100.0)
    assert load.rest(durations, 104.0) == UNKNOWN - 4
    load.told(3)
    assert load.rest(durations, 104.0) == UNKNOWN - 4 + 2 * UNKNOWN
    load.told(1)
    assert load.rest(durations, 100.0 + UNKNOWN) == UNKNOWN / 10
    assert load.rest(durations, 100.0 + UNKNOWN + 60) == 60


def test_what_runs_is_expected_to_load_first(load: Workload, job: Make) -> None:
    load.start(job("a", 0.0, "sdxl"), 100.0)
    assert load.rest(Durations(), 100.0) == UNKNOWN + LOADING


def test_the_timeline_adds_up_running_and_loading(load: Workload, job: Make) -> None:
    durations = Durations()
    for number, models in enumerate((("sdxl",), ("sdxl",), (), ("flux",))):
        load.add(job(f"p{number}", float(number), *models))
    timeline = load.timeline(durations)
    assert timeline.ends == [0.0, 18.0, 28.0, 38.0, 56.0]
    assert timeline.warm == [set(), {"sdxl"}, {"sdxl"}, {"sdxl"}, {"flux"}]


def test_the_timeline_follows_what_changes(load: Workload, job: Make, work: Work) -> None:
    durations = Durations()
    one = job("a", 0.0, "sdxl")
    load.add(one)
    assert load.timeline(durations) is load.timeline(durations)
    load.warm = frozenset(("sdxl",))
    durations.learn(Run(work("portrait", "sdxl"), "gpu2", 3.0))
    assert load.timeline(durations).ends == [0.0, 3.0]
    load.unloaded()
    assert load.timeline(durations).ends == [0.0, 11.0]
    load.remove(one)
    assert load.timeline(durations).ends == [0.0]
