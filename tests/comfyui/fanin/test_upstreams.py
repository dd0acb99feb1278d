"""Which servers a session is connected to, and what it does about connections that have gone deaf."""

from collections import Counter

import pytest

from comfyproxy.comfyui.fanin.upstreams import LINGER, LINGER_UNHEARD, PATIENCE, REOPENING, RESTS
from comfyproxy.core.balancing.backend import Backend
from tests.comfyui.fanin.rig import SessionRig


def hosts(rig: SessionRig) -> set[str]:
    """The servers that the session wants to be connected with."""
    return {backend.address.host for backend in rig.session.wanted}


def lose(rig: SessionRig, server: int) -> None:
    rig.session.lost(rig.backends[server], "it was closed", rig.now)


def submit(rig: SessionRig, server: int) -> None:
    """A server has taken a prompt just now."""
    rig.session.expects(rig.backends[server], rig.now, rig.now)


def test_nobody_is_wanted_for_a_client_that_is_not_there() -> None:
    assert hosts(SessionRig()) == set()


def test_the_home_is_wanted_while_the_client_is_there_and_a_moment_longer() -> None:
    rig = SessionRig()
    script = rig.script()
    assert hosts(rig) == {"server1"}
    rig.session.detach(script, rig.now)
    rig.wait(9.0)
    assert hosts(rig) == {"server1"}
    rig.wait(1.0)
    assert hosts(rig) == set()


def test_a_server_with_a_prompt_is_wanted_though_no_client_is_there() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    assert hosts(rig) == {"server2"}


@pytest.mark.parametrize(
    ("is_heard", "linger"), [(True, LINGER), (False, LINGER_UNHEARD)], ids=["heard", "unheard"]
)
def test_a_server_is_wanted_for_a_while_after_its_last_prompt(is_heard: bool, linger: float) -> None:
    rig = SessionRig()
    if is_heard:
        rig.script()
    others = hosts(rig)
    rig.add(1, "A", "B")
    rig.end("A")
    rig.wait(2 * linger)
    assert hosts(rig) == {"server2"} | others
    rig.end("B")
    rig.wait(linger - 1)
    assert hosts(rig) == {"server2"} | others
    rig.wait(1)
    assert hosts(rig) == others


def test_what_is_kept_for_the_next_prompt_is_let_go_soon_after_the_client_has_gone() -> None:
    rig = SessionRig()
    script = rig.script()
    rig.add(1, "A")
    rig.end("A")
    rig.wait(LINGER - LINGER_UNHEARD - 1)
    rig.session.detach(script, rig.now)
    rig.wait(LINGER_UNHEARD - 1)
    assert hosts(rig) == {"server1", "server2"}
    rig.wait(1)
    assert hosts(rig) == {"server1"}, "its home has a time of its own"


def test_a_client_that_goes_does_not_prolong_what_was_about_to_be_let_go() -> None:
    rig = SessionRig()
    script = rig.script()
    rig.add(1, "A")
    rig.end("A")
    rig.wait(LINGER - 1)
    rig.session.detach(script, rig.now)
    rig.wait(1)
    assert hosts(rig) == {"server1"}


def test_a_client_that_is_back_in_time_finds_its_connections() -> None:
    rig = SessionRig()
    script = rig.script()
    rig.add(1, "A")
    rig.session.detach(script, rig.now)
    rig.end("A")
    rig.wait(LINGER_UNHEARD - 1)
    rig.script()
    rig.add(1, "B")
    rig.wait(LINGER)
    assert hosts(rig) == {"server1", "server2"}


def test_a_prompt_that_moves_takes_the_connection_with_it() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    rig.add(2, "A")
    rig.wait(LINGER)
    assert hosts(rig) == {"server3"}


def test_another_home_is_wanted_in_place_of_the_first() -> None:
    rig = SessionRig()
    rig.script()
    rig.session.moves_to(rig.backends[2], rig.now)
    assert hosts(rig) == {"server3"}
    rig.session.moves_to(None, rig.now)
    assert hosts(rig) == set()


def test_a_server_has_greeted_the_client_when_its_first_status_has_come() -> None:
    rig = SessionRig()
    backend = rig.backends[0]
    rig.session.opened(backend, lambda payload, is_binary: None, rig.now)
    assert not rig.session.is_greeted(backend)
    rig.says(0, "status", {})
    assert rig.session.is_greeted(backend)
    lose(rig, 0)
    assert not rig.session.is_greeted(backend)


def test_a_server_that_says_status_after_a_submission_hears_the_client() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    rig.open(1)
    rig.now += 1
    submit(rig, 1)
    rig.says(1, "status", {})
    rig.wait(10)
    assert hosts(rig) == {"server2"}
    assert rig.session.is_greeted(rig.backends[1])


def test_a_status_that_came_before_the_answer_counts() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    rig.open(1)
    sent_at = rig.now
    rig.now += 1
    rig.says(1, "status", {})
    rig.now += 1
    rig.session.expects(rig.backends[1], sent_at, rig.now)
    rig.wait(10)
    assert hosts(rig) == {"server2"}


def test_a_connection_without_a_status_after_a_submission_is_closed_and_opened_anew() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    rig.open(1)
    rig.now += 1
    submit(rig, 1)
    rig.wait(PATIENCE - 0.25)
    assert hosts(rig) == {"server2"}
    rig.wait(0.25)
    assert hosts(rig) == set()
    assert not rig.session.is_greeted(rig.backends[1])
    lose(rig, 1)
    assert hosts(rig) == {"server2"}
    rig.unsure.clear()
    rig.open(1)
    assert rig.session.is_greeted(rig.backends[1])
    assert rig.unsure[rig.backends[1]] == 1


def test_a_deaf_connection_whose_end_is_never_told_of_is_wanted_again() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    rig.open(1)
    rig.now += 1
    submit(rig, 1)
    rig.wait(PATIENCE + REOPENING)
    assert hosts(rig) == {"server2"}


@pytest.mark.parametrize("times", [1, 2, 3, 40])
def test_two_proxies_that_displace_each_other_do_so_less_and_less_often(times: int) -> None:
    rig = SessionRig()
    rig.add(1, "A")
    for _ in range(times):
        rig.open(1)
        rig.now += 1
        submit(rig, 1)
        rig.wait(PATIENCE)
        lose(rig, 1)
        rest = 0.0
        while not rig.session.wanted:
            rig.wait(0.25)
            rest += 0.25
    assert rest == RESTS[min(times, len(RESTS)) - 1]


def test_a_connection_that_hears_again_is_as_good_as_any() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    for hears in (False, False, True, False):
        rig.open(1)
        rig.now += 1
        submit(rig, 1)
        if hears:
            rig.says(1, "status", {})
            continue
        rig.wait(PATIENCE)
        lose(rig, 1)
        rig.wait(10)
    lose(rig, 1)
    assert hosts(rig) == {"server2"}


def test_nothing_is_expected_of_a_server_that_has_not_greeted_the_client() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    submit(rig, 1)
    rig.session.opened(rig.backends[1], lambda payload, is_binary: None, rig.now)
    rig.now += 1
    submit(rig, 1)
    rig.wait(10)
    assert hosts(rig) == {"server2"}


def test_the_ledger_asks_when_a_connection_with_prompts_is_lost_and_when_it_is_back() -> None:
    rig = SessionRig()
    rig.script()
    rig.open(0, 1)
    rig.add(1, "A")
    lose(rig, 0)
    lose(rig, 1)
    assert rig.unsure == Counter({rig.backends[1]: 1})
    rig.open(0, 1)
    assert rig.unsure == Counter({rig.backends[1]: 2})
    rig.says(1, "status", {})
    assert rig.unsure == Counter({rig.backends[1]: 2})


def test_the_ledger_asks_when_a_server_with_prompts_is_met_for_the_first_time() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    rig.open(1)
    assert rig.unsure == Counter({rig.backends[1]: 1})


def test_nothing_is_asked_where_the_last_prompt_has_ended_meanwhile() -> None:
    rig = SessionRig()
    rig.add(1, "A")
    lose(rig, 1)
    rig.end("A")
    rig.open(1)
    assert rig.unsure == Counter({rig.backends[1]: 1})


def test_an_end_of_a_prompt_that_is_not_there_changes_nothing() -> None:
    rig = SessionRig()
    rig.end("A")
    assert hosts(rig) == set()


def test_a_status_over_a_connection_that_is_given_up_greets_nobody() -> None:
    rig = SessionRig()
    backend: Backend = rig.backends[1]
    rig.says(1, "status", {})
    assert not rig.session.is_greeted(backend)
