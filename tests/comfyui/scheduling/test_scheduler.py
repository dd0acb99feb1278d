from collections.abc import Callable
from itertools import count, pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from comfyproxy.comfyui.scheduling.durations import UNKNOWN
from comfyproxy.comfyui.scheduling.scheduler import Move, Scheduler
from comfyproxy.comfyui.workflow import Workflow
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.configuration.addresses import parse_addresses

Work = Callable[..., Workflow]
KINDS = [Workflow(frozenset(("KSampler",)), frozenset((model,)), model) for model in ("sdxl", "flux", "sd15")]


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


def any_prompt(_prompt_id: str) -> bool:
    return True


def anywhere(_prompt_id: str, _backend: Backend) -> bool:
    return True


def next_move(scheduler: Scheduler, now: float = 0.0) -> Move | None:
    return scheduler.next_move(now, any_prompt, anywhere)


def test_prompts_spread(scheduler: Scheduler, servers: list[Backend], work: Work) -> None:
    placed = [scheduler.place(f"p{one}", work(), "ann", servers, 0.0).backend for one in range(6)]
    assert sorted(one.index for one in placed) == [0, 0, 1, 1, 2, 2]
    assert scheduler.wait(servers[0], 0.0) == 2 * UNKNOWN


def test_numbers_are_in_the_order_in_which_prompts_should_run(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    ann = [scheduler.place(f"a{one}", work(), "ann", servers[:1], 0.0).number for one in range(5)]
    bob = scheduler.place("b", work(), "bob", servers[:1], 0.0).number
    assert ann == sorted(ann)
    assert ann[0] < bob < ann[1]


def test_in_front_is_before_the_clients_own_alone(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    bob = [scheduler.place(f"b{one}", work(), "bob", servers[:1], 0.0).number for one in range(3)]
    ann = [scheduler.place(f"a{one}", work(), "ann", servers[:1], 0.0).number for one in range(3)]
    front = [
        scheduler.place(f"f{one}", work(), "ann", servers[:1], 0.0, front=True).number for one in range(3)
    ]
    assert bob[0] < front[2] < front[1] < front[0] < ann[0]


def test_without_candidates_there_is_no_place(scheduler: Scheduler, work: Work) -> None:
    with pytest.raises(ValueError, match="needs a candidate"):
        scheduler.place("p", work(), "ann", [], 0.0)


def test_a_graph_that_nobody_has_seen_is_some_work(scheduler: Scheduler, servers: list[Backend]) -> None:
    assert scheduler.place("p", None, "ann", servers, 0.0).backend is servers[0]
    scheduler.adopt("q", None, "ann", servers[1], 1.0, True, 0.0)
    assert scheduler.place("r", None, "bob", servers, 0.0).backend is servers[2]


def test_the_prompts_of_others_count(scheduler: Scheduler, servers: list[Backend], work: Work) -> None:
    scheduler.told(servers[0], 3)
    scheduler.told(servers[1], 1)
    assert scheduler.wait(servers[0], 0.0) == 3 * UNKNOWN
    assert scheduler.place("p", work(), "ann", servers, 0.0).backend is servers[2]
    scheduler.told(servers[2], 4)
    assert scheduler.place("q", work(), "ann", servers, 0.0).backend is servers[1]


def test_what_ran_is_learned(scheduler: Scheduler, servers: list[Backend], work: Work) -> None:
    scheduler.place("p", work("video"), "ann", servers[:1], 0.0)
    scheduler.started("p", 10.0)
    scheduler.started("p", 10.5)
    scheduler.ended("p", 310.0, True)
    scheduler.place("q", work("video"), "bob", servers[1:2], 400.0)
    assert scheduler.wait(servers[1], 400.0) == 300.0


@pytest.mark.parametrize("has_started", [True, False])
def test_what_failed_is_not(
    scheduler: Scheduler, servers: list[Backend], work: Work, has_started: bool
) -> None:
    scheduler.place("p", work("video"), "ann", servers[:1], 0.0)
    if has_started:
        scheduler.started("p", 10.0)
    scheduler.ended("p", 310.0, False)
    scheduler.place("q", work("video"), "bob", servers[1:2], 400.0)
    assert scheduler.wait(servers[1], 400.0) == UNKNOWN


def test_what_was_found_running_is_not_measured(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    scheduler.adopt("p", work("video"), "ann", servers[0], 7.0, True, 100.0)
    scheduler.started("p", 100.0)
    assert scheduler.wait(servers[0], 100.0) == UNKNOWN
    scheduler.ended("p", 101.0, True)
    scheduler.place("q", work("video"), "ann", servers[1:2], 200.0)
    assert scheduler.wait(servers[1], 200.0) == UNKNOWN


def test_what_was_found_waiting_keeps_its_number(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    scheduler.adopt("later", work(), "ann", servers[0], 900.0, False, 0.0)
    scheduler.adopt("p", work(), "ann", servers[0], 800.0, False, 0.0)
    scheduler.adopt("odd", work(), "eve", servers[0], float("nan"), False, 0.0)
    assert scheduler.wait(servers[0], 0.0) == 3 * UNKNOWN
    bob = scheduler.place("b", work(), "bob", servers[:1], 0.0)
    assert 800.0 < bob.number < 900.0


def test_a_server_that_unloaded_its_models_has_to_load_them(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    scheduler.place("p", work("a", "sdxl"), "ann", servers[1:2], 0.0)
    scheduler.started("p", 0.0)
    scheduler.ended("p", 20.0, True)
    assert scheduler.place("q", work("b", "sdxl"), "bob", servers, 30.0).backend is servers[1]
    scheduler.ended("q", 30.0, False)
    scheduler.unloaded(servers[1])
    assert scheduler.place("q", work("b", "sdxl"), "bob", servers, 30.0).backend is servers[0]


def test_an_idle_server_takes_over(scheduler: Scheduler, servers: list[Backend], work: Work) -> None:
    numbers = [scheduler.place(f"p{one}", work(), "ann", servers[:1], 0.0).number for one in range(3)]
    scheduler.started("p0", 0.0)
    assert next_move(scheduler) is None, "only servers that are known can take anything"
    scheduler.told(servers[1], 0)
    move = next_move(scheduler)
    assert move is not None
    assert (move.source, move.target) == (servers[0], servers[1])
    assert move.number == numbers[int(move.prompt_id[1:])]
    assert next_move(scheduler) is None, "the server that it was promised to is not idle any more"
    scheduler.moved(move)
    scheduler.started(move.prompt_id, 1.0)
    assert scheduler.wait(servers[1], 1.0) == UNKNOWN
    assert scheduler.wait(servers[0], 1.0) == 2 * UNKNOWN - 1


def test_a_move_that_came_to_nothing_is_taken_back(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    scheduler.told(servers[1], 0)
    for one in range(3):
        scheduler.place(f"p{one}", work(), "ann", servers[:1], 0.0)
    move = next_move(scheduler)
    assert move is not None
    scheduler.stayed(move)
    scheduler.stayed(move)
    assert scheduler.wait(servers[0], 0.0) == 3 * UNKNOWN
    assert scheduler.wait(servers[1], 0.0) == 0.0


def test_a_prompt_that_starts_while_it_is_moved_runs_where_it_was(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    scheduler.told(servers[1], 0)
    for one in range(2):
        scheduler.place(f"p{one}", work(), "ann", servers[:1], 0.0)
    move = next_move(scheduler)
    assert move is not None
    scheduler.started(move.prompt_id, 5.0)
    scheduler.ended(move.prompt_id, 6.0, True)
    scheduler.stayed(move)
    assert scheduler.wait(servers[1], 6.0) == 0.0


def test_a_move_ends_with_its_prompt(scheduler: Scheduler, servers: list[Backend], work: Work) -> None:
    scheduler.told(servers[1], 0)
    for one in range(3):
        scheduler.place(f"p{one}", work(), "ann", servers[:1], 0.0)
    move = next_move(scheduler)
    assert move is not None
    scheduler.ended(move.prompt_id, 0.0, False)
    scheduler.stayed(move)
    assert scheduler.wait(servers[0], 0.0) + scheduler.wait(servers[1], 0.0) == 2 * UNKNOWN


def test_a_prompt_that_is_being_moved_is_not_moved_on(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    for server in servers:
        scheduler.told(server, 0)
    for one in range(2):
        scheduler.place(f"p{one}", work(), "ann", servers[:1], 0.0)
    move = next_move(scheduler)
    assert move is not None
    scheduler.told(move.target, 9)
    again = next_move(scheduler)
    assert again is None or again.prompt_id != move.prompt_id


def test_only_what_may_be_moved_to_where_it_can_run_is(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    for server in servers:
        scheduler.told(server, 0)
    for one in range(4):
        scheduler.place(f"p{one}", work(), "ann", servers[:1], 0.0)
    assert scheduler.next_move(0.0, lambda _: False, anywhere) is None
    assert scheduler.next_move(0.0, any_prompt, lambda *_: False) is None
    move = scheduler.next_move(
        0.0, lambda one: one == "p2", lambda one, backend: one == "p2" and backend is servers[2]
    )
    assert move is not None
    assert (move.prompt_id, move.target) == ("p2", servers[2])


def test_the_same_work_is_asked_about_once_per_server(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    scheduler.told(servers[1], 0)
    for one in range(30):
        scheduler.place(f"p{one}", work(f"kind{one % 3}"), "ann", servers[:1], 0.0)
    asked: list[str] = []

    def can_run(prompt_id: str, _backend: Backend) -> bool:
        asked.append(prompt_id)
        return False

    assert scheduler.next_move(0.0, any_prompt, can_run) is None
    assert len(asked) == 3


def test_where_much_is_pending_servers_are_looked_at_in_turn(
    scheduler: Scheduler, servers: list[Backend], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfyproxy.comfyui.scheduling.scheduler.MAX_LOOKED_AT", 10)
    for server in servers:
        scheduler.told(server, 0)
    for one in range(6):
        scheduler.place(f"p{one}", work(), "ann", servers[:1], 0.0)
    asked: list[Backend] = []

    def can_run(_prompt_id: str, backend: Backend) -> bool:
        asked.append(backend)
        return False

    for _ in range(4):
        assert scheduler.next_move(0.0, any_prompt, can_run) is None
    assert asked == [servers[1], servers[2], servers[1], servers[2]]


def test_what_a_lost_server_had_keeps_its_turn(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    ann = [scheduler.place(f"a{one}", work(), "ann", servers[:1], 0.0) for one in range(4)]
    scheduler.place("elsewhere", work(), "bob", servers[1:2], 0.0)
    scheduler.started("a0", 0.0)
    scheduler.forget(servers[0])
    assert scheduler.wait(servers[0], 0.0) == 0.0
    again = [scheduler.place(f"a{one}", work(), "ann", servers[2:], 0.0) for one in range(4)]
    assert [one.number for one in again] == [one.number for one in ann]


def test_a_prompt_that_no_server_has_keeps_its_turn(
    scheduler: Scheduler, servers: list[Backend], work: Work
) -> None:
    first = scheduler.place("p", work(), "ann", servers[:1], 0.0)
    scheduler.place("q", work(), "ann", servers[:1], 0.0)
    scheduler.lost("p")
    assert scheduler.wait(servers[0], 0.0) == UNKNOWN
    assert scheduler.place("p", work(), "ann", servers[:1], 0.0).number == first.number


def test_a_prompt_gets_another_id(scheduler: Scheduler, servers: list[Backend], work: Work) -> None:
    scheduler.place("x", work("video"), "ann", servers[:1], 0.0)
    scheduler.renamed("x", "p")
    scheduler.renamed("x", "nothing")
    scheduler.started("x", 0.0)
    assert not scheduler.wait(servers[0], 5.0) < UNKNOWN
    scheduler.started("p", 0.0)
    assert scheduler.wait(servers[0], 5.0) == UNKNOWN - 5


def test_what_is_not_known_is_nothing(scheduler: Scheduler, servers: list[Backend]) -> None:
    scheduler.started("p", 0.0)
    scheduler.ended("p", 0.0, True)
    scheduler.lost("p")
    scheduler.moved(Move("p", servers[0], servers[1], 0.0))
    scheduler.stayed(Move("p", servers[0], servers[1], 0.0))
    scheduler.forget(servers[0])
    assert next_move(scheduler) is None
    assert scheduler.wait(servers[0], 0.0) == 0.0


OFTEN = ("place", "place", "place", "front", "adopt", "start", "start", "end", "told", "move")
SELDOM = ("done", "stayed", "forget", "lost", "rename")
ACTS = st.lists(
    st.tuples(st.sampled_from(OFTEN + SELDOM), st.integers(0, 30), st.integers(0, 2)), max_size=100
)


@given(ACTS)
def test_whatever_happens_each_prompt_is_on_one_server_and_in_order(
    acts: list[tuple[str, int, int]],
) -> None:
    scheduler = Scheduler()
    servers = [
        Backend(address, index) for index, address in enumerate(parse_addresses("http://gpu[1-3]:8188"))
    ]
    moves: list[Move] = []
    for now, (act, number, which) in zip(count(1.0), acts, strict=False):
        prompt_id, backend, kind = f"p{number}", servers[which], KINDS[which]
        match act:
            case "place" | "front":
                placed = scheduler.place(prompt_id, kind, f"c{number % 3}", servers, now, act == "front")
                assert placed.backend in servers
            case "adopt":
                scheduler.adopt(prompt_id, None, "eve", backend, float(number), number % 2 == 0, now)
            case "start":
                scheduler.started(prompt_id, now)
            case "end":
                scheduler.ended(prompt_id, now, which > 0)
            case "told":
                scheduler.told(backend, number)
            case "move":
                moves += filter(None, [next_move(scheduler, now)])
            case "done" if moves:
                scheduler.moved(moves.pop())
            case "stayed" if moves:
                scheduler.stayed(moves.pop())
            case "forget":
                scheduler.forget(backend)
            case "lost":
                scheduler.lost(prompt_id)
            case "rename":
                scheduler.renamed(prompt_id, f"p{which + 31}")
        seen: list[str] = []
        for load in scheduler._loads.values():
            assert all(one.number <= other.number for one, other in pairwise(load.pending))
            seen += [one.prompt_id for one in load.pending]
            seen += [load.running.prompt_id] if load.running else []
        assert len(seen) == len(set(seen))
        assert all(scheduler.wait(one, now) >= 0 for one in servers)
