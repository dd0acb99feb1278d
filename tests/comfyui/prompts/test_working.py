"""What is done beside requests, and when."""

from collections.abc import Callable
from typing import Any

from comfyproxy.core.balancing.backend import AdminState
from comfyproxy.core.balancing.pool import HealthRules

Prompt = Callable[..., dict[str, Any]]
MakeRig = Callable[..., Any]


def refusing(server: Any, connect: Any) -> Any:
    """Have WebSockets by ``connect``, but none of ``server``."""

    def refuse(session: Any, backend: Any) -> None:
        if backend is server.backend:
            session.lost(backend, "it answered 403 in place of a WebSocket", 0.0)
        else:
            connect(session, backend)

    return refuse


def test_what_servers_can_run_is_learnt_before_the_first_prompt(make_rig: MakeRig) -> None:
    rig = make_rig(3)
    rig.turn(2)
    assert all(rig.dispatch.catalogs.get(backend) is not None for backend in rig.pool.backends)
    assert [[path for _, path, _ in server.asked].count("/object_info") for server in rig.servers] == [1] * 3


def test_a_pool_at_rest_asks_nothing(rig: Any) -> None:
    rig.turn(2)
    for server in rig.servers:
        server.asked.clear()
    rig.turn(600)
    assert [server.asked for server in rig.servers] == [[], []]


def test_a_server_that_stays_away_is_asked_now_and_then(rig: Any, seconds: Prompt) -> None:
    rig.submit(seconds(20), client_id="me")
    rig.turn(1)
    (server,) = [server for server in rig.servers if server.running]
    rig.kill(server)
    rig.turn(10)
    asked = []
    rig.before = lambda ask: asked.append(ask.backend.address.host)
    rig.turn(30)
    assert asked.count(server.name) == 3


def test_a_server_without_websockets_that_was_down_is_one_of_the_pool_again(
    make_rig: MakeRig, seconds: Prompt
) -> None:
    rig = make_rig(2)
    first, second = rig.servers
    rig.connect = refusing(first, rig.connect)
    rig.pool.follow(HealthRules(probed=True, fall=1, rise=1), 0.0)
    for up in (True, False, True):
        rig.pool.observed(first.backend, up, rig.clock.seconds())
        rig.pool.observed(second.backend, True, rig.clock.seconds())
        rig.turn(3)
        assert (first.backend in rig.dispatch.answering()) is up
    first.ask_directly(seconds(20))
    rig.turn(3)
    assert len(rig.ask("GET", "/queue")[1]["queue_running"]) == 1
    assert rig.holder(rig.submit(seconds(1))) is second


def test_where_checks_are_not_believed_prompts_are_taken(make_rig: MakeRig, seconds: Prompt) -> None:
    rig = make_rig(1)
    connect, rig.connect = rig.connect, refusing(rig.servers[0], rig.connect)
    rig.pool.follow(HealthRules(probed=True, fall=1), 0.0)
    rig.pool.observed(rig.pool.backends[0], False, 0.0)
    rig.turn(5)
    rig.connect = connect
    assert rig.holder(rig.submit(seconds(1))) is not None


def test_a_stranded_prompt_that_is_not_known_any_more_is_forgotten(rig: Any) -> None:
    rig.dispatch.stranded["unknown"] = 0.0
    rig.turn(0.25)
    assert rig.dispatch.stranded == {}


def test_a_router_that_is_to_end_has_the_prompts_in_hand_that_no_server_has(
    make_rig: MakeRig, seconds: Prompt
) -> None:
    rig = make_rig(1)
    _, *waiting = [rig.submit(seconds(20, seed)) for seed in range(3)]
    rig.turn(1)
    assert rig.router.in_hand == 0
    (server,) = rig.servers
    rig.kill(server)
    rig.turn(30)
    assert rig.router.in_hand == 2
    server.start()
    server.is_down = False
    rig.stop()
    rig.turn(5)
    assert (rig.router.in_hand, {server.running, *server.pending}) == (0, set(waiting))


def test_a_router_that_is_to_end_moves_nothing(rig: Any, seconds: Prompt) -> None:
    first, second = rig.servers
    rig.admit(first, AdminState.DRAIN)
    for seed in range(3):
        rig.submit(seconds(20, seed))
    rig.turn(1)
    rig.admit(first, AdminState.READY)
    rig.stop()
    rig.turn(5)
    assert (first.running, len(second.pending)) == (None, 2)
