"""A daemon that runs out of file descriptors: who is there is served, who comes waits, and it recovers."""

import os
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fault_rig.daemon import Daemon, wait_until
from fault_rig.peers import Connection, Server, accept_from

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
CLIENT = (
    *("objects: Downstream", "objects: EagerServer", "watched: EagerServer"),
    *("descriptors", "timers: Deadlines._turn"),
)
"""What a client that waits for its next request makes of the daemon's state."""

SPARE = 8
"""Descriptors that a daemon is left with."""


@pytest.fixture
def clients(daemon: Daemon) -> Iterator[list[Connection]]:
    """Three times as many clients as the daemon has descriptors left, those it has taken first."""
    with ExitStack() as connected:
        daemon.leave_descriptors(SPARE)
        everybody = [connected.enter_context(daemon.connect()) for _ in range(3 * SPARE)]
        wait_until(
            lambda: len(daemon.descriptors()) >= daemon.at_rest.descriptors + SPARE,
            lambda: f"exhaustion: {daemon.descriptors()}",
        )
        yield everybody
        daemon.leave_all_descriptors()


def answer_one(servers: list[Server]) -> None:
    """Answer the next request of whomsoever, and close."""
    with accept_from(servers)[1] as backend:
        backend.read_head()
        backend.send(OK)
        backend.end()
        backend.read_rest()


def test_nobody_is_turned_away_and_all_are_served_once_there_is_room(
    daemon: Daemon, servers: list[Server], clients: list[Connection]
) -> None:
    assert not select.select(clients, [], [], 0)[0], "somebody was turned away"
    daemon.leave_all_descriptors()
    for client in clients:
        client.send(GET)
        answer_one(servers)
        assert client.answer().body == b"fine"


def test_each_that_leaves_makes_room_for_one_that_waits(
    daemon: Daemon, servers: list[Server], clients: list[Connection]
) -> None:
    """The limit stays: two must leave for one to be served, as its server takes a descriptor too."""
    for client in clients[:-1]:
        client.close()
    clients[-1].send(GET)
    answer_one(servers)
    assert clients[-1].answer().body == b"fine"


def test_it_rests_while_it_waits_and_says_once_that_it_does(
    daemon: Daemon, clients: list[Connection]
) -> None:
    began, spent = time.monotonic(), processor_seconds(daemon)
    wait_until(lambda: time.monotonic() > began + 0.6, lambda: "time to pass")
    assert processor_seconds(daemon) - spent < 0.3
    assert daemon.log.count("No new connections for now: Too many open files.") == 1
    assert "EMFILE" not in daemon.log


def processor_seconds(daemon: Daemon) -> float:
    """The processor time that it has taken so far."""
    with open(f"/proc/{daemon.process.pid}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_without_a_descriptor_for_a_server_the_client_is_told_and_a_moment_later_served(
    daemon: Daemon, servers: list[Server]
) -> None:
    with daemon.connect() as client:
        client.send(GET)
        answer_one(servers)
        assert client.answer().status == 200
        daemon.assert_at_rest(but_for=CLIENT)
        daemon.leave_descriptors(0)
        for _ in range(20):
            client.send(GET)
            answer = client.answer()
            assert (answer.status, answer.complete) == (503, True)
        daemon.leave_all_descriptors()
        for _ in servers:
            client.send(GET)
            answer_one(servers)
            assert client.answer().status == 200
