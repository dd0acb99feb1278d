from collections.abc import Callable
from heapq import heapify, heappop, heappush

import hypothesis.strategies as st
import pytest
from hypothesis import given

from comfyproxy.comfyui.scheduling.fairness import MAX_TAG, Fairness


@pytest.fixture
def fairness() -> Fairness:
    return Fairness()


@pytest.fixture
def enter(fairness: Fairness) -> Callable[..., list[float]]:
    """Let a client's prompts of 10 seconds wait, called by its name and a number."""
    counts: dict[str, int] = {}

    def enter(client: str, number: int = 1, front: float = 0.0) -> list[float]:
        tags = []
        for _ in range(number):
            counts[client] = counts.get(client, -1) + 1
            tags.append(fairness.enter(f"{client}{counts[client]}", client, 10.0, front))
        return tags

    return enter


Enter = Callable[..., list[float]]


def test_a_clients_prompts_are_due_one_after_the_other(enter: Enter) -> None:
    assert enter("ann", 3) == [0.0, 10.0, 20.0]


def test_one_clients_many_prompts_leave_anothers_first_its_turn(enter: Enter, fairness: Fairness) -> None:
    enter("ann", 500)
    for number in range(8):
        fairness.start(f"ann{number}")
    assert enter("bob") == [80.0]


def test_clients_take_turns(enter: Enter) -> None:
    ann, bob = enter("ann", 5), enter("bob", 5)
    order = sorted([(tag, "ann") for tag in ann] + [(tag, "bob") for tag in bob])
    assert [name for _, name in order] == ["ann", "bob"] * 5


def test_an_idle_client_has_saved_nothing_up(enter: Enter, fairness: Fairness) -> None:
    enter("ann", 20)
    for number in range(20):
        fairness.start(f"ann{number}")
        fairness.leave(f"ann{number}", 10.0)
    assert enter("ann") == [200.0]
    assert enter("bob", 2) == [200.0, 210.0]


def test_a_prompt_that_started_early_does_not_put_newcomers_behind_those_who_wait(
    enter: Enter, fairness: Fairness
) -> None:
    enter("ann", 500)
    fairness.start("ann499")
    assert enter("bob") == [0.0]


def test_who_comes_back_has_the_same_turn(enter: Enter, fairness: Fairness) -> None:
    enter("ann", 3)
    fairness.start("ann1")
    enter("bob", 5)
    assert fairness.enter("ann1", "ann", 10.0) == 10.0
    assert fairness.enter("ann1", "ann", 10.0) == 10.0
    assert enter("ann") == [30.0]


def test_work_that_was_withdrawn_costs_nothing(enter: Enter, fairness: Fairness) -> None:
    enter("ann", 100)
    enter("bob")
    for number in range(1, 100):
        fairness.leave(f"ann{number}", 0.0)
    assert enter("ann") == [10.0]


def test_a_later_prompt_stays_behind_the_clients_own_though_some_were_withdrawn(
    enter: Enter, fairness: Fairness
) -> None:
    enter("ann", 100)
    for number in range(50):
        fairness.leave(f"ann{number}", 0.0)
    assert enter("ann") == [990.0]


def test_clients_pay_for_what_they_used(enter: Enter, fairness: Fairness) -> None:
    enter("ann")
    enter("bob", 9)
    fairness.start("ann0")
    fairness.leave("ann0", 70.0)
    assert enter("ann") == [70.0]


def test_what_nobody_measured_costs_what_was_expected(enter: Enter, fairness: Fairness) -> None:
    enter("ann")
    enter("bob", 9)
    fairness.start("ann0")
    fairness.leave("ann0", None)
    assert enter("ann") == [10.0]


def test_front_is_the_turn_of_the_clients_own_and_no_earlier(enter: Enter, fairness: Fairness) -> None:
    enter("ann", 3)
    enter("bob", 3)
    fairness.start("ann0")
    fairness.start("bob0")
    (tag,) = enter("ann", front=100.0)
    assert tag == 10.0
    (newer,) = enter("ann", front=100.0)
    assert newer == 10.0


def test_front_of_nothing_is_an_ordinary_turn(enter: Enter) -> None:
    enter("bob", 3)
    assert enter("ann", front=100.0) == [0.0]


def test_no_more_work_than_the_bound_goes_in_front_while_others_wait(enter: Enter) -> None:
    enter("ann", 2)
    enter("bob")
    tags = enter("ann", 500, front=35.0)
    assert [tag == 0.0 for tag in tags] == [True] * 3 + [False] * 497


def test_who_waits_alone_may_put_everything_in_front(enter: Enter) -> None:
    assert enter("ann", 100, front=1.0) == [0.0] * 100


def test_what_was_found_keeps_its_tag(enter: Enter, fairness: Fairness) -> None:
    assert fairness.restore("ann0", "ann", 500.0, 10.0) == 500.0
    assert fairness.restore("ann0", "ann", 777.0, 10.0) == 500.0
    assert fairness.enter("ann9", "ann", 10.0) == 510.0
    assert enter("bob") == [500.0]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 1e300, -MAX_TAG])
def test_numbers_that_are_nobodys_turn_do_not_move_time(
    fairness: Fairness, enter: Enter, number: float
) -> None:
    assert fairness.restore("ann0", "ann", number, 10.0) == 0.0
    assert enter("bob") == [0.0]


def test_a_prompt_that_waits_nowhere_holds_nobody_up(fairness: Fairness, enter: Enter) -> None:
    enter("ann", 2)
    fairness.pause("ann0")
    assert enter("bob") == [10.0]
    assert fairness.enter("ann0", "ann", 10.0) == 0.0


def test_a_prompt_with_another_id_has_the_same_turn(fairness: Fairness, enter: Enter) -> None:
    enter("ann", 2)
    fairness.rename("ann0", "x")
    assert fairness.enter("x", "ann", 10.0) == 0.0
    fairness.start("x")
    fairness.rename("x", "y")
    assert enter("bob") == [10.0]
    fairness.rename("y", "ann1")
    assert fairness.now == 10.0


def test_what_is_not_known_is_nothing(fairness: Fairness) -> None:
    fairness.start("x")
    fairness.pause("x")
    fairness.rename("x", "y")
    fairness.leave("x", 1.0)
    assert fairness.now == 0.0


def test_memory_is_bounded() -> None:
    fairness = Fairness(size=10)
    fairness.enter("first", "first", 1.0)
    for number in range(1000):
        fairness.enter(f"p{number}", f"client{number}", 1.0)
        fairness.start(f"p{number}")
        fairness.leave(f"p{number}", 1.0)
    assert len(fairness._ends) == 10
    assert len(fairness._waiting) < 100
    assert list(fairness._turns) == list(fairness._own) == ["first"]


def test_a_forgotten_client_may_still_end_its_prompts() -> None:
    fairness = Fairness(size=1)
    fairness.enter("p0", "ann", 1.0)
    fairness.enter("p1", "bob", 1.0)
    fairness.leave("p0", 1.0)
    assert fairness.enter("p2", "ann", 1.0) == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 50.0)), min_size=1, max_size=60))
def test_no_two_clients_that_wait_get_more_apart_than_their_longest_prompts(
    prompts: list[tuple[str, float]],
) -> None:
    """Theorem 1 of start-time fair queueing, on one server that takes the least tag."""
    fairness = Fairness()
    queue = []
    for number, (client, cost) in enumerate(prompts):
        heappush(queue, (fairness.enter(f"p{number}", client, cost), number))
    heapify(queue)
    served = dict.fromkeys("abc", 0.0)
    left = {client: sum(cost for one, cost in prompts if one == client) for client in "abc"}
    longest = {client: max((cost for one, cost in prompts if one == client), default=0) for client in "abc"}
    while queue:
        _, number = heappop(queue)
        fairness.start(f"p{number}")
        client, cost = prompts[number]
        served[client] += cost
        left[client] -= cost
        waiting = [one for one in "abc" if left[one] > 1e-9]
        for one in waiting:
            for other in waiting:
                assert served[one] - served[other] <= longest[one] + longest[other] + 1e-6
