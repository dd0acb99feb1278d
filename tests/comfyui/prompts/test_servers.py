"""When a server is asked for its queue, and when it is given up."""

from typing import Any

import pytest

from comfyproxy.comfyui.prompts.servers import CHECK_INTERVAL, GONE_AFTER, RETURN_INTERVAL, SETTLING, Server
from comfyproxy.core.balancing.pool import HealthRules


@pytest.fixture
def server(make_pool: Any) -> Server:
    return Server(make_pool().backends[0])


def test_a_new_connection_is_a_reason_to_ask(server: Server) -> None:
    assert not server.is_due(0.0)
    server.connected(1.0)
    assert server.is_due(1.0)
    server.looked(0, 2.0)
    assert not server.is_due(100.0)


def test_nobody_asks_twice_at_a_time(server: Server) -> None:
    server.connected(1.0)
    server.is_checked = True
    assert not server.is_due(1.0)


def test_a_number_that_disagrees_is_a_reason_after_a_while(server: Server) -> None:
    server.told(2, 1, 10.0)
    server.told(3, 1, 10.5)
    assert not server.is_due(10.0 + SETTLING - 0.01)
    assert server.is_due(10.0 + SETTLING)
    server.told(1, 1, 10.6)
    assert not server.is_due(100.0)


def test_strangers_are_no_reason_once_they_are_known(server: Server) -> None:
    server.looked(2, 5.0)
    server.told(3, 1, 10.0)
    assert not server.is_due(100.0)
    server.compare(2, 11.0)
    assert server.is_due(100.0)


def test_where_nothing_was_said_nothing_disagrees(server: Server) -> None:
    server.compare(5, 1.0)
    assert not server.is_due(100.0)


@pytest.mark.parametrize("has_prompts", [True, False])
def test_a_lost_connection_is_a_reason_if_there_are_prompts(server: Server, has_prompts: bool) -> None:
    server.looked(0, 0.0)
    server.disconnected(has_prompts, 1.0)
    assert server.is_due(1.0) is has_prompts
    assert server.was_lost


def test_a_server_without_a_connection_is_asked_again_until_it_is_given_up(server: Server) -> None:
    server.disconnected(True, 1.0)
    server.failed(False, 1.0)
    assert not server.is_due(1.0 + CHECK_INTERVAL - 0.01)
    assert server.is_due(1.0 + CHECK_INTERVAL)
    server.failed(False, 2.0)
    assert not server.is_lost(1.0 + GONE_AFTER - 0.01)
    assert server.is_lost(1.0 + GONE_AFTER)
    server.gone(5.0)
    assert not server.is_lost(100.0)
    server.connected(50.0)
    assert server.is_due(50.0)


def test_one_that_was_given_up_is_looked_for_now_and_then(server: Server) -> None:
    server.gone(5.0)
    assert not server.is_due(5.0)
    assert server.is_due(5.0 + CHECK_INTERVAL)
    server.failed(False, 6.0)
    assert not server.is_due(6.0 + RETURN_INTERVAL - 0.01)
    assert server.is_due(6.0 + RETURN_INTERVAL)
    server.looked(0, 16.0)
    assert not server.is_gone


def test_one_that_was_given_up_is_left_to_checks_that_say_it_is_down(make_pool: Any) -> None:
    pool = make_pool()
    pool.follow(HealthRules(probed=True, fall=1, rise=1), 0.0)
    for backend in pool.backends:
        pool.observed(backend, True, 0.0)
    pool.observed(pool.backends[0], False, 1.0)
    server = Server(pool.backends[0])
    assert server.is_lost(2.0)
    server.gone(2.0)
    assert not server.is_due(1000.0)
    pool.observed(pool.backends[0], True, 1000.0)
    assert server.is_due(1000.0)


def test_one_that_gets_work_whatever_the_checks_say_is_not_given_up_for_them(make_pool: Any) -> None:
    pool = make_pool()
    pool.follow(HealthRules(probed=True, fall=1), 0.0)
    for backend in pool.backends:
        pool.observed(backend, False, 1.0)
    assert not Server(pool.backends[0]).is_lost(2.0)


def test_one_that_takes_connections_is_not_given_up(server: Server) -> None:
    server.disconnected(True, 1.0)
    for second in range(1, 60):
        server.failed(True, float(second))
    assert not server.is_lost(60.0)
    assert server.is_due(61.0)


def test_one_that_the_pool_knows_to_be_down_is_given_up(make_pool: Any) -> None:
    pool = make_pool()
    pool.follow(HealthRules(probed=True, fall=1), 0.0)
    server = Server(pool.backends[0])
    server.disconnected(True, 1.0)
    assert not server.is_lost(1.0)
    pool.observed(pool.backends[0], False, 2.0)
    assert server.is_lost(2.0)
    server.connected(3.0)
    assert not server.is_lost(3.0)
