"""What the parts of a pool's work share: events, sessions, servers, the lists."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.prompts.dispatch import SESSIONS_INTERVAL, is_observer
from comfyproxy.core.balancing.backend import AdminState
from comfyproxy.core.config import ComfyUIConfig

Prompt = Callable[..., dict[str, Any]]
MakeRig = Callable[..., Any]


def tell(rig: Any, backend: Any, kind: Any, data: Any) -> None:
    rig.dispatch.heard(backend, {"type": kind, "data": data}, rig.clock.seconds())


def test_all_ready_servers_are_listened_to(rig: Any) -> None:
    observed = {backend for client, backend in rig.lines if is_observer(client)}
    assert observed == set(rig.pool.backends)
    rig.admit(rig.servers[0], AdminState.MAINT)
    rig.turn(0.25)
    assert {backend for _, backend in rig.lines} == {rig.pool.backends[1]}


def test_a_server_that_is_taken_out_is_listened_to_as_long_as_it_has_prompts(
    rig: Any, seconds: Prompt
) -> None:
    for seed in range(2):
        rig.submit(seconds(4, seed))
    rig.turn(1)
    gone = rig.pool.backends[0]
    gone.leases += 1
    rig.reload("http://gpu2:8188")
    rig.turn(1)
    assert gone in rig.dispatch.servers
    assert any(backend is gone for _, backend in rig.lines)
    rig.turn(6)
    assert len(rig.dispatch.ledger) == 0
    assert gone not in rig.dispatch.servers


def test_a_server_whose_connection_is_lost_gets_no_prompts(rig: Any) -> None:
    first, second = rig.pool.backends
    assert rig.dispatch.candidates() == [first, second]
    rig.dispatch.disconnected(first, rig.clock.seconds())
    assert rig.dispatch.candidates() == [second]
    rig.dispatch.disconnected(second, rig.clock.seconds())
    # Nobody is there for certain, so everybody is tried.
    assert rig.dispatch.candidates() == [first, second]


def test_a_backup_gets_prompts_only_where_no_other_server_can(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.reload("http://gpu1:8188, http://gpu2:8188 backup=1")
    rig.turn(1)
    first, backup = rig.pool.backends
    assert backup.address.backup
    assert rig.dispatch.candidates() == [first]
    rig.admit(rig.servers[0], AdminState.DRAIN)
    assert rig.dispatch.candidates() == [backup]


def test_a_session_has_what_its_client_has_in_the_queues(
    rig: Any, make_rig: MakeRig, seconds: Prompt
) -> None:
    rig.submit(seconds(20), client_id="me")
    new = make_rig(beside=rig)
    new.turn(1)
    assert new.dispatch.find_session("me") is None
    (where,) = [prompt.backend for prompt in new.dispatch.ledger]
    assert where in new.dispatch.session("me").wanted
    assert new.dispatch.session("me") is new.dispatch.find_session("me")


def test_a_session_that_nobody_needs_is_forgotten(rig: Any) -> None:
    page = rig.open("/ws?clientId=me")
    page.session.detach(page, rig.clock.seconds())
    rig.turn(1)
    assert rig.dispatch.find_session("me") is not None
    rig.turn(120)
    assert rig.dispatch.find_session("me") is None


def test_a_session_goes_to_another_server_when_its_nearest_one_goes(rig: Any) -> None:
    session = rig.open("/ws?clientId=me").session
    home = session.home
    rig.admit(rig.server(home), AdminState.DRAIN)
    rig.turn(SESSIONS_INTERVAL)
    assert session.home not in (None, home)
    for server in rig.servers:
        rig.admit(server, AdminState.DRAIN)
    rig.turn(SESSIONS_INTERVAL)
    assert session.home is not None


def test_a_client_is_told_of_its_own_prompts_or_of_all(make_rig: MakeRig, seconds: Prompt) -> None:
    rig = make_rig(options=ComfyUIConfig(queue_status="pool"))
    rig.turn(1)
    page = rig.open("/ws?clientId=me")
    for client in ("me", "you"):
        rig.submit(seconds(20), client_id=client)
    rig.turn(1)
    assert page.remaining == 2
    rig.router.follow(ComfyUIConfig())
    rig.turn(1)
    assert rig.dispatch.queued("me") == 1


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("status", None),
        ("status", {}),
        ("status", {"status": 5}),
        ("status", {"status": {"exec_info": []}}),
        ("status", {"status": {"exec_info": {"queue_remaining": True}}}),
        ("status", {"status": {"exec_info": {"queue_remaining": -1}}}),
        ("status", {"status": {"exec_info": {"queue_remaining": 1e400}}}),
        ("execution_start", {"prompt_id": 5}),
        ("execution_start", {"prompt_id": "unknown"}),
        ("executing", {}),
        (None, {}),
        ([], {"prompt_id": "unknown"}),
    ],
)
def test_events_that_say_nothing_change_nothing(rig: Any, seconds: Prompt, kind: Any, data: Any) -> None:
    one = rig.submit(seconds(20))
    before = rig.prompt(one).phase, rig.dispatch.server(rig.prompt(one).backend).remaining
    for backend in rig.pool.backends:
        tell(rig, backend, kind, data)
    assert (rig.prompt(one).phase, rig.dispatch.server(rig.prompt(one).backend).remaining) == before


def test_a_status_that_clients_hear_counts_where_the_observer_hears_none(rig: Any) -> None:
    rig.turn(1)
    page, (backend, _) = rig.open("/ws?clientId=me"), rig.pool.backends
    status = b'{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 7}}}}'
    page.session.from_backend(backend, status, False, rig.clock.seconds())
    assert rig.dispatch.server(backend).remaining == 0
    rig.disconnect(rig.lines[rig.dispatch.observer.client_id, backend])
    page.session.from_backend(backend, status, False, rig.clock.seconds())
    assert rig.dispatch.server(backend).remaining == 7


def test_what_another_server_says_of_a_prompt_does_not_count(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(20), client_id="me")
    (other,) = [backend for backend in rig.pool.backends if backend is not rig.prompt(one).backend]
    tell(rig, other, "executing", {"node": None, "prompt_id": one})
    assert rig.dispatch.ledger.get(one) is not None


@pytest.mark.parametrize(("began", "ended", "took"), [(1000, 9000, 8.0), (1000, None, 2.0), (9, 1, 2.0)])
def test_a_run_took_as_long_as_its_server_says(
    rig: Any, seconds: Prompt, began: Any, ended: Any, took: float
) -> None:
    one = rig.submit(seconds(500))
    prompt = rig.prompt(one)
    told = []
    tell(rig, prompt.backend, "execution_start", {"prompt_id": one, "timestamp": began})
    since = prompt.since
    rig.clock.advance(2.0)
    rig.dispatch.scheduler.ended = lambda name, now, completed: told.append((name, now - since, completed))
    tell(rig, prompt.backend, "execution_success", {"prompt_id": one, "timestamp": ended})
    assert told == [(one, pytest.approx(took), True)]


def test_a_server_that_was_away_may_be_able_to_run_something_else(rig: Any, seconds: Prompt) -> None:
    server = rig.servers[0]
    assert rig.dispatch.catalogs.get(rig.pool.backends[0]) is not None
    rig.kill(server)
    rig.turn(1)
    server.statuses["GET", "/object_info"] = 200
    rig.restart(server)
    rig.turn(1)
    assert rig.dispatch.catalogs.get(rig.pool.backends[0]).classes == {}


def test_a_doubt_about_a_server_without_prompts_is_none(rig: Any, seconds: Prompt) -> None:
    first, second = rig.pool.backends
    one = rig.submit(seconds(20), client_id="me")
    where = rig.prompt(one).backend
    for backend in (first, second):
        rig.dispatch._unsure(backend)
    assert [rig.dispatch.server(one).is_due(rig.clock.seconds()) for one in (first, second)] == [
        first is where,
        second is where,
    ]


def test_outputs_that_a_list_tells_of_are_known_by_their_owner(rig: Any, seconds: Prompt) -> None:
    one = rig.submit(seconds(1), client_id="me")
    where = rig.prompt(one).backend
    rig.turn(3)
    rig.dispatch.ownership._files._entries.clear()
    rig.ask("GET", f"/history/{one}")
    assert len(rig.dispatch.ownership._files) > 0
    rig.dispatch._note_outputs({}, where, {"client_id": 5})


def test_what_is_listened_to_need_not_be_asked_so_often(rig: Any) -> None:
    for server in rig.servers:
        rig.ask("GET", "/api/jobs")
        server.asked.clear()
    rig.clock.advance(1.0)
    rig.ask("GET", "/api/jobs")
    assert [server.asked for server in rig.servers] == [[], []]
    for line in tuple(rig.lines.values()):
        rig.disconnect(line)
    rig.clock.advance(1.0)
    rig.ask("GET", "/api/jobs")
    assert all(server.asked for server in rig.servers)


def test_sessions_that_wait_for_their_clients_are_few(
    rig: Any, seconds: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfyproxy.comfyui.prompts.dispatch.MAX_IDLE", 2)
    rig.open("/ws?clientId=there")
    rig.submit(seconds(60), client_id="busy")
    for number in range(4):
        page = rig.open(f"/ws?clientId=gone-{number}")
        page.session.detach(page, rig.clock.seconds())
        rig.turn(SESSIONS_INTERVAL)
    kept = {session.client_id for session in rig.router.sessions} - {rig.dispatch.observer.client_id}
    assert kept == {"there", "busy", "gone-2", "gone-3"}
