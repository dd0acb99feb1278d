"""What is done beside requests, and when."""

from collections.abc import Callable
from typing import Any

Prompt = Callable[..., dict[str, Any]]
MakeRig = Callable[..., Any]


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


def test_a_server_that_stays_away_is_not_asked_for_ever(rig: Any, seconds: Prompt) -> None:
    rig.submit(seconds(20), client_id="me")
    rig.turn(1)
    (server,) = [server for server in rig.servers if server.running]
    rig.kill(server)
    rig.turn(10)
    asked = []
    rig.before = lambda ask: asked.append(ask.backend.address.host)
    rig.turn(30)
    assert server.name not in asked


def test_a_stranded_prompt_that_is_not_known_any_more_is_forgotten(rig: Any) -> None:
    rig.dispatch.stranded["unknown"] = 0.0
    rig.turn(0.25)
    assert rig.dispatch.stranded == {}
