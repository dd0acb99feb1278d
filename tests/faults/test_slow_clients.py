"""Clients that are slow on purpose: they cost a connection and its few kilobytes, and nobody else a thing."""

import select
import time
from contextlib import ExitStack

from fault_rig.daemon import StartDaemon, options_of
from fault_rig.load import NamedServer, load
from fault_rig.peers import PATIENCE, Connection

MANY = 200


def test_two_hundred_who_dribble_their_heads_are_told_off_and_hold_up_nobody(
    start_daemon: StartDaemon, named_servers: list[NamedServer]
) -> None:
    """Slowloris: an octet now and then does not buy more time for a head."""
    daemon = start_daemon(*options_of([named_servers[0].url]), "--head-timeout", "1s")
    memory = daemon.memory
    head = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X-Slow: very\r\n" * 100
    began = time.monotonic()
    with ExitStack() as connected, load(daemon.port, clients=2) as asking:
        slow = [connected.enter_context(daemon.ask(head[:1])) for _ in range(MANY)]
        told: set[Connection] = set()
        position = 1
        while len(told) < MANY and time.monotonic() < began + 2 * PATIENCE:
            waiting = [client for client in slow if client not in told]
            # The pace is that of the dribble: ten octets a second, if nobody is told off before.
            for client in select.select(waiting, [], [], 0.1)[0]:
                assert client.answer().status == 408
                told.add(client)
            for client in waiting:
                if client not in told:
                    client.dribble(head[position : position + 1])
            position += 1
        assert len(told) == MANY, f"{MANY - len(told)} of them go on after {position} octets"
        asking.wait_for(100)
        assert daemon.memory - memory < MANY * 64 * 1024
    asking.assert_nothing_lost()
    named_servers[0].kill()
    daemon.assert_at_rest(but_for=("objects: Connector",))


def test_many_who_read_nothing_of_a_large_answer_cost_little_memory_and_are_cut(
    start_daemon: StartDaemon, named_servers: list[NamedServer]
) -> None:
    """Each asks for 4 MiB: of 200 MiB in all, next to nothing may be in the daemon."""
    count = 50
    daemon = start_daemon(*options_of([named_servers[0].url]), "--idle-timeout", "1s")
    memory = daemon.memory
    with ExitStack() as connected, load(daemon.port, clients=2) as asking:
        for _ in range(count):
            client = connected.enter_context(daemon.connect(window=4096))
            client.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        daemon.wait_for_state(lambda state: state.leases >= count, "all of them are being answered")
        assert daemon.memory - memory < count * 512 * 1024
        asking.wait_for(100)
        daemon.wait_for_state(lambda state: state.leases <= 2, "all of them are cut")
        asking.wait_for(10)
    asking.assert_nothing_lost()
    named_servers[0].kill()
    daemon.assert_at_rest(but_for=("objects: Connector",))


def test_requests_whose_answers_nobody_reads_are_not_read_for_ever(
    start_daemon: StartDaemon, named_servers: list[NamedServer]
) -> None:
    """A client sends and sends, and never reads: once its answers wait, its requests do too."""
    daemon = start_daemon(*options_of([named_servers[0].url]), "--idle-timeout", "1s")
    memory = daemon.memory
    requests = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n" * 1000
    with daemon.connect(window=4096) as client:
        client.socket.settimeout(0.3)
        sent = 0
        try:
            while sent < 64 * 1024 * 1024:
                sent += client.socket.send(requests)
        except (TimeoutError, ConnectionError):
            pass
        assert sent < 16 * 1024 * 1024
        assert daemon.memory - memory < 8 * 1024 * 1024
        daemon.wait_for_state(lambda state: not state.leases, "it is cut")
    named_servers[0].kill()
    daemon.assert_at_rest(but_for=("objects: Connector",))
