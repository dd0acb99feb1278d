from collections.abc import Callable
from itertools import count

import hypothesis.strategies as st
import pytest
from hypothesis import given

from comfyproxy.comfyui.scheduling.choice import BATCH, choose, finish, place_in, quantum, worth_taking
from comfyproxy.comfyui.scheduling.durations import LOADING, UNKNOWN, Durations, Run
from comfyproxy.comfyui.scheduling.workload import Job, Workload
from comfyproxy.comfyui.workflow import Workflow

Work = Callable[..., Workflow]


@pytest.fixture
def durations() -> Durations:
    return Durations()


@pytest.fixture
def job(work: Work) -> Callable[..., Job]:
    """A job with these models and that tag, of a client and a kind."""
    ids = count()

    def job(*models: str, tag: float = 0.0, client: str = "ann", kind: str = "portrait") -> Job:
        return Job(f"p{next(ids)}", client, work(kind, *models), tag, tag)

    return job


Make = Callable[..., Job]


def busy(*jobs: Job, server: str = "gpu", warm: tuple[str, ...] = ()) -> Workload:
    """A server that has begun the first of ``jobs``."""
    load = Workload(server, warm=frozenset(warm))
    for one in jobs:
        load.add(one)
    if jobs:
        load.start(jobs[0], 0.0)
    return load


def test_a_prompt_goes_where_it_finishes_first(durations: Durations, job: Make) -> None:
    loads = [busy(job(), job(tag=1)), busy(job()), busy(job(), job(tag=1), job(tag=2))]
    chosen, index = choose(job(tag=9), loads, durations, 0.0)
    assert chosen is loads[1]
    assert index == 0


def test_of_equal_servers_the_first_is_taken(durations: Durations, job: Make) -> None:
    loads = [busy(), busy()]
    assert choose(job(), loads, durations, 0.0)[0] is loads[0]
    assert choose(job(), loads[::-1], durations, 0.0)[0] is loads[1]


def test_a_long_prompt_counts_for_more_than_several_short_ones(
    known: Callable[..., Durations], job: Make
) -> None:
    durations = known(video=300.0, picture=2.0)
    loads = [busy(job(kind="video")), busy(*(job(kind="picture", tag=float(one)) for one in range(5)))]
    assert choose(job(kind="picture", tag=9), loads, durations, 0.0)[0] is loads[1]


def test_someone_alone_stays_where_the_models_are_loaded(durations: Durations, job: Make) -> None:
    loads = [busy(), busy(warm=("sdxl",)), busy(warm=("flux",))]
    assert choose(job("sdxl"), loads, durations, 0.0)[0] is loads[1]


def test_an_idle_server_is_taken_before_waiting_longer_than_loading(durations: Durations, job: Make) -> None:
    warm, idle = busy(job("sdxl"), warm=("sdxl",)), busy()
    assert UNKNOWN > LOADING
    assert choose(job("sdxl", tag=1), [warm, idle], durations, 0.0)[0] is idle
    assert choose(job("sdxl", tag=1), [warm, idle], durations, UNKNOWN - LOADING + 0.1)[0] is warm


def test_eight_runs_at_once_spread_over_eight_servers(durations: Durations, job: Make) -> None:
    loads = [busy(server=f"gpu{number}") for number in range(8)]
    for number in range(8):
        one = job("sdxl", tag=number * 10.0)
        chosen, index = choose(one, loads, durations, 0.0)
        chosen.insert(one, index, 10.0)
        chosen.start(one, 0.0)
        chosen.warm = frozenset(("sdxl",))
    assert all(load.running for load in loads)


def test_a_server_that_is_busy_with_other_models_is_left_to_them(durations: Durations, job: Make) -> None:
    flux = busy(job("flux"), warm=("flux",))
    sdxl = busy(*(job("sdxl", tag=float(tag)) for tag in range(4)), warm=("sdxl",))
    assert choose(job("sdxl", tag=9), [flux, sdxl], durations, 0.0)[0] is sdxl
    more = busy(*(job("sdxl", tag=float(tag)) for tag in range(40)), warm=("sdxl",))
    assert choose(job("sdxl", tag=99), [flux, more], durations, 0.0)[0] is flux


def test_what_the_client_ran_last_is_half_done_where_it_ran(durations: Durations, job: Make) -> None:
    first = job()
    load = busy(first)
    load.end(first, 10.0)
    assert finish(job(), load, durations, 10.0) == (UNKNOWN / 2, 0)
    assert finish(job(client="bob"), load, durations, 10.0) == (UNKNOWN, 0)
    assert finish(job(kind="other"), load, durations, 10.0) == (UNKNOWN, 0)


def test_a_prompt_joins_those_with_its_models(durations: Durations, job: Make) -> None:
    load = busy(job("sdxl"), job("sdxl", tag=1), job("flux", tag=2), job("flux", tag=3), warm=("sdxl",))
    assert place_in(job("sdxl", tag=4), load, 10.0, durations) == 1
    assert place_in(job("flux", tag=4), load, 10.0, durations) == 3
    assert place_in(job("sd15", tag=4), load, 10.0, durations) == 3
    assert place_in(job(tag=4), load, 10.0, durations) == 3


def test_a_prompt_whose_turn_is_earlier_goes_first(durations: Durations, job: Make) -> None:
    load = busy(job("sdxl"), job("flux", tag=10), job("flux", tag=20), warm=("sdxl",))
    assert place_in(job("sd15", tag=15), load, 10.0, durations) == 1
    assert place_in(job("sd15", tag=5), load, 10.0, durations) == 0


def test_who_was_overtaken_enough_is_overtaken_no_more(durations: Durations, job: Make) -> None:
    load = busy(job("sdxl"), job("flux", tag=1), warm=("sdxl",))
    places = []
    for number in range(30):
        one = job("sdxl", tag=2.0 + number)
        places.append(place_in(one, load, 10.0, durations))
        load.insert(one, places[-1], 10.0)
    assert quantum(durations) == BATCH * LOADING == 160.0
    assert places == [*range(16), *range(17, 31)]


def test_who_comes_behind_one_that_was_overtaken_is_overtaken_no_more_than_that_one(
    durations: Durations, job: Make
) -> None:
    load = busy(job("sdxl"), job("sdxl"), job("sd15"), warm=("sdxl",))
    for _ in range(15):
        one = job("sdxl", tag=1)
        load.insert(one, place_in(one, load, 10.0, durations), 10.0)
    late = job("flux")
    load.insert(late, place_in(late, load, 10.0, durations), 10.0)
    assert (load.pending[-1], late.overtaken) == (late, 150.0)
    assert place_in(job("sd15", tag=1), load, 10.0, durations) == len(load.pending) - 1
    assert place_in(job("sd15", tag=1), load, 20.0, durations) == len(load.pending)


def test_the_quantum_is_in_proportion_to_loading(durations: Durations, work: Work) -> None:
    for _ in range(30):
        durations.learn(Run(work("a", "sdxl"), "gpu", 5.0))
        durations.learn(Run(work("a", "sdxl"), "gpu", 6.0, frozenset(("sdxl",))))
    assert quantum(durations) == pytest.approx(BATCH * 1.0, rel=0.05)


def test_in_front_is_before_the_clients_own(durations: Durations, job: Make) -> None:
    load = busy(job(), job(tag=5, client="bob"), job(tag=10), job(tag=20, client="bob"))
    assert place_in(job(tag=10), load, 10.0, durations, is_front=True) == 1
    overtaking = job("sdxl", tag=12)
    overtaking.number = 3.0
    load.add(overtaking)
    assert place_in(job(tag=10), load, 10.0, durations, is_front=True) == 0
    assert place_in(job(tag=30, client="eve"), load, 10.0, durations, is_front=True) == 4


def test_an_idle_server_helps_the_one_with_most_to_do(durations: Durations, job: Make) -> None:
    little, much = busy(job(), job(tag=1)), busy(job(), job(tag=1), job(tag=2))
    taken = list(worth_taking(busy(), [little, much], durations, 0.0))
    assert taken[0] in much.pending
    assert set(map(id, taken)) == set(map(id, [*little.pending, *much.pending]))


def test_what_it_has_the_models_of_comes_first(durations: Durations, job: Make) -> None:
    warm, cold = job("sdxl", tag=1), [job("flux", tag=1.0 + number) for number in range(5)]
    taken = worth_taking(busy(warm=("sdxl",)), [busy(job(), *cold), busy(job("sdxl"), warm)], durations, 0.0)
    assert next(iter(taken)) is warm


def test_of_one_servers_jobs_the_longest_goes(known: Callable[..., Durations], job: Make) -> None:
    durations = known(video=300.0, picture=2.0)
    load = busy(job(kind="picture"), job(kind="video", tag=1), job(kind="picture", tag=2))
    assert next(iter(worth_taking(busy(), [load], durations, 0.0))).workflow.kind == "video"


def test_what_would_be_no_earlier_stays(durations: Durations, job: Make) -> None:
    nearly_done = busy(job("sdxl"), job("sdxl", tag=1), warm=("sdxl",))
    assert list(worth_taking(busy(), [nearly_done, busy(job())], durations, 9.0)) == []


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from(("sdxl", "flux", "sd15")),
        st.sampled_from((1.0, 10.0, 70.0)),
        st.floats(0, 100),
        st.booleans(),
    ),
    max_size=60,
)


@given(ARRIVALS)
def test_no_prompt_is_overtaken_by_more_than_the_quantum(
    arrivals: list[tuple[str, float, float, bool]],
) -> None:
    """Whatever arrives: what is in front of a prompt though its turn is later is bounded."""
    durations = Durations()
    load = Workload("gpu")
    seconds: dict[str, float] = {}
    for number, (model, took, tag, starts_one) in enumerate(arrivals):
        one = Job(f"p{number}", "ann", Workflow(frozenset(), frozenset((model,)), model), tag, tag)
        seconds[one.prompt_id] = took
        load.insert(one, place_in(one, load, took, durations), took)
        if starts_one:
            load.start(load.pending[0], 0.0)
    for at, one in enumerate(load.pending):
        before = [other for other in load.pending[:at] if other.tag > one.tag]
        assert sum(seconds[other.prompt_id] for other in before) <= quantum(durations)
