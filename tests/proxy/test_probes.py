"""Checks on a network in memory: what is asked, when, of whom, and that nothing is left of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from comfyproxy.core.balancing.backend import AdminState, Backend, Lease
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.pool import BUSY_PATIENCE, HealthRules, Pool
from comfyproxy.core.balancing.probing import HttpProbe, Verdict
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.probes import HASTE, MOST_AT_ONCE, RATE, Check, PoolProbes, ProbePlan, Slots
from comfyproxy.testing import MemoryNetwork, ScriptedBackend, Step

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
HEALTH = HttpProbe("/health")


def address(number: int = 1, host: str = "") -> Address:
    return Address("http", host or f"10.0.{number // 250}.{number % 250 + 1}", 8188)


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    network = MemoryNetwork()
    yield network
    assert network.getDelayedCalls() == []
    assert network.getReaders() == []


class Told:
    """A check, and what it said."""

    def __init__(self, network: MemoryNetwork, backend: Backend, probe: Any = HEALTH) -> None:
        self.verdicts: list[tuple[Verdict | None, bool]] = []
        plan = ProbePlan(probe, timeout=5.0)
        self.check = Check(network, backend, plan, lambda *verdict: self.verdicts.append(verdict))
        self.check.start()
        network.run()

    @property
    def said(self) -> tuple[bool, str, bool]:
        ((verdict, is_slow),) = self.verdicts
        assert verdict is not None
        return verdict.ok, verdict.reason, is_slow


@pytest.fixture
def check(network: MemoryNetwork) -> Callable[..., Told]:
    """Checks a server that follows a script."""

    def check(*steps: Step, probe: Any = HEALTH) -> Told:
        server = ScriptedBackend(steps)
        network.listenTCP(8188, server, interface="10.0.0.1")
        told = Told(network, Backend(address(0)), probe)
        told.server = server  # type: ignore[attr-defined]
        return told

    return check


def test_answer_decides_and_the_connection_is_closed(check: Any) -> None:
    told = check(Step(send=OK))
    assert told.said == (True, "GET /health was answered with 200", False)
    assert told.server.requests[0].startswith(b"GET /health HTTP/1.1\r\nHost: 10.0.0.1:8188\r\n")
    assert told.server.open_connections == []


@pytest.mark.parametrize(
    ("version", "header"), [(1, b"PROXY UNKNOWN\r\n"), (2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")]
)
def test_a_check_is_nobodys_connection_where_servers_want_to_know(
    network: MemoryNetwork, version: int, header: bytes
) -> None:
    server = ScriptedBackend([Step(after=b"GET /health HTTP/1.1\r\n", send=OK)])
    network.listenTCP(8188, server, interface="10.0.0.1")
    assert Told(network, Backend(address(0), proxy_protocol=version)).said[0]
    assert server.requests == [header + b"GET /health HTTP/1.1\r\n"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Step(send=BAD), "GET /health was answered with 500"),
        (Step(after=b"", send=b"220 mail\r\n"), "what it answered is not HTTP/1"),
        (Step(end="close"), "it closed the connection before its answer was complete"),
        (Step(end="reset"), "it closed the connection before its answer was complete"),
        (Step(send=OK[:-1], end="close"), "it closed the connection before its answer was complete"),
    ],
    ids=["status", "no HTTP", "closed", "reset", "cut short"],
)
def test_what_is_wrong_is_the_reason(check: Any, step: Step, reason: str) -> None:
    told = check(step)
    assert told.said == (False, reason, False)
    assert told.server.open_connections == []


def test_answer_may_end_with_the_connection(check: Any) -> None:
    told = check(Step(send=b"HTTP/1.0 200 OK\r\n\r\nok", end="close"))
    assert told.said == (True, "GET /health was answered with 200", False)


def test_connection_is_enough_for_tcp(check: Any) -> None:
    told = check(probe=None)
    assert told.said == (True, "it took a connection", False)
    assert [one.received for one in told.server.connections] == [b""]
    assert told.server.open_connections == []


def test_what_comes_behind_the_verdict_is_ignored(check: Any) -> None:
    told = check(Step(after=b"", send=BAD + OK, piece=30))
    assert told.said == (False, "GET /health was answered with 500", False)


def test_nobody_there_is_a_failure(network: MemoryNetwork) -> None:
    assert Told(network, Backend(address())).said == (False, "connection refused", False)


def test_without_a_descriptor_there_is_no_verdict(network: MemoryNetwork) -> None:
    network.is_short = True
    assert Told(network, Backend(address(0))).verdicts == [(None, False)]


def test_name_without_an_address_is_a_failure(network: MemoryNetwork) -> None:
    told = Told(network, Backend(address(host="gpu1")))
    assert told.said == (False, "its name has no address", False)


def test_server_that_takes_no_connection_in_time_is_not_slow_but_away(network: MemoryNetwork) -> None:
    network.silent.add("10.0.0.2")
    told = Told(network, Backend(address()))
    network.advance(4.9)
    assert told.verdicts == []
    network.advance(0.2)
    assert told.said == (False, "no connection within 5 s", False)


def test_server_that_takes_the_connection_and_leaves_it_at_that_is_slow(
    check: Any, network: MemoryNetwork
) -> None:
    told = check(Step(send=OK[:-1]))
    network.advance(5)
    assert told.said == (False, "no answer within 5 s", True)
    assert told.server.open_connections == []


@pytest.mark.parametrize("silent", [True, False])
def test_check_that_is_stopped_says_nothing(network: MemoryNetwork, silent: bool) -> None:
    if silent:
        network.silent.add("10.0.0.2")
    server = ScriptedBackend()
    network.listenTCP(8188, server, interface="10.0.0.2")
    told = Told(network, Backend(address()))
    told.check.stop()
    network.advance(60)
    assert (told.verdicts, server.open_connections) == ([], [])


def test_slots_bound_what_runs_at_once() -> None:
    slots, begun = Slots(2), []
    for number in range(4):
        slots.take(lambda number=number: begun.append(number))
    assert begun == [0, 1]
    slots.give_back()
    assert begun == [0, 1, 2]
    slots.give_back()
    slots.give_back()
    slots.take(lambda: begun.append(4))
    assert begun == [0, 1, 2, 3, 4]


def test_checks_that_are_over_at_once_do_not_nest() -> None:
    slots, done = Slots(1), []

    def over_at_once() -> None:
        done.append(None)
        slots.give_back()

    held: list[None] = []
    slots.take(lambda: held.append(None))
    for _ in range(5000):
        slots.take(over_at_once)
    slots.give_back()
    assert len(done) == 5000


class Watching:
    """Checks of a pool whose servers answer what the test says."""

    def __init__(self, network: MemoryNetwork, size: int, answers: bytes = OK, **plan: Any) -> None:
        self.network = network
        self.servers = [ScriptedBackend([Step(send=answers)]) for _ in range(size)]
        for number, server in enumerate(self.servers):
            network.listenTCP(8188, server, interface=address(number).host)
        self.pool = Pool("gpus", map(address, range(size)), rules=HealthRules(probed=True))
        self.slots = Slots()
        self.probes = PoolProbes(network, self.pool, self.slots, random=lambda: 0.5)
        self.plan = ProbePlan(HEALTH, **plan)
        self.probes.follow(self.plan)
        network.run()

    def counts(self) -> list[int]:
        """The checks that each server has seen since this was last asked."""
        counts = [len(server.requests) for server in self.servers]
        for server in self.servers:
            server.requests.clear()
        return counts

    def pass_time(self, seconds: float, step: float = 0.25) -> None:
        for _ in range(round(seconds / step)):
            self.network.advance(step)

    def silence(self, place: int) -> None:
        del self.network.ports[address(place).host, 8188]


@pytest.fixture
def watch(network: MemoryNetwork) -> Iterator[Callable[..., Watching]]:
    made: list[Watching] = []

    def make(size: int, **plan: Any) -> Watching:
        made.append(Watching(network, size, **plan))
        return made[-1]

    yield make
    for one in made:
        one.probes.stop()
    network.run()


def test_every_server_is_checked_at_once_and_then_at_each_interval(watch: Any) -> None:
    watching = watch(2, interval=5.0)
    watching.pass_time(0.25)
    assert watching.counts() == [1, 1]
    assert all(backend.health.known and not backend.health.is_down for backend in watching.pool.backends)
    watching.pass_time(4.5)
    assert watching.counts() == [0, 0]
    watching.pass_time(0.5)
    assert watching.counts() == [1, 1]


def test_a_want_of_descriptors_takes_no_server_down(network: MemoryNetwork, watch: Any) -> None:
    watched = watch(3)
    network.advance(1)
    network.is_short = True
    for _ in range(50):
        network.advance(1)
    assert all(backend.usable for backend in watched.pool.backends)
    network.is_short = False


def test_interval_is_up_to_a_tenth_longer_or_shorter(watch: Any) -> None:
    watching = watch(1, interval=5.0)
    pauses = []
    for random in (0.0, 0.5, 1.0):
        watching.probes._random = lambda random=random: random
        pauses.append(watching.probes.pause(watching.pool.backends[0]))
    assert pauses == pytest.approx([4.5, 5.0, 5.5])


def test_server_is_checked_sooner_while_checks_disagree_with_what_is_believed(watch: Any) -> None:
    watching = watch(1, interval=5.0)
    watching.silence(0)
    watching.pass_time(5)
    (backend,) = watching.pool.backends
    assert backend.health.against == 1
    watching.pass_time(2 * 5 / HASTE)
    assert backend.health.is_down
    assert backend.health.reason == "connection refused"
    watching.network.listenTCP(8188, watching.servers[0], interface="10.0.0.1")
    watching.counts()
    watching.pass_time(4.75)
    assert watching.counts() == [0]
    watching.pass_time(0.25 + 5 / HASTE)
    assert (watching.counts(), backend.health.is_down) == ([2], False)


def test_many_servers_are_checked_a_few_at_a_time(network: MemoryNetwork, watch: Any) -> None:
    size = 1000
    for number in range(size):
        network.silent.add(address(number).host)
    watching = watch(size, interval=1.0, timeout=2.0)
    connecting = []
    for _ in range(10):
        network.advance(0.25)
        connecting.append(
            len([call for call in network.getDelayedCalls() if call.func.__name__ == "_timed_out"])
        )
    assert max(connecting) == MOST_AT_ONCE
    assert watching.probes.pause(watching.pool.backends[0]) == size / RATE


def test_first_checks_of_many_servers_do_not_begin_in_one_instant(watch: Any) -> None:
    watching = watch(100)
    assert sum(watching.counts()) == 1
    watching.pass_time(1, step=1 / RATE)
    assert sum(watching.counts()) == 99


def test_server_removed_before_its_first_check_is_never_checked(watch: Any) -> None:
    watching = watch(3)
    watching.pool.apply(diff(watching.pool.addresses, watching.pool.addresses[:1]))
    watching.probes.follow(watching.plan)
    watching.pass_time(1)
    assert watching.counts() == [1, 0, 0]


def test_removed_server_is_checked_no_more_and_a_new_one_at_once(network: MemoryNetwork, watch: Any) -> None:
    watching = watch(3)
    watching.pass_time(0.25)
    watching.counts()
    kept = watching.pool.addresses[1:]
    new = ScriptedBackend([Step(send=OK)])
    network.listenTCP(8188, new, interface="10.9.9.9")
    wanted = [*kept, address(host="10.9.9.9")]
    watching.pool.apply(diff(watching.pool.addresses, wanted))
    watching.probes.follow(watching.plan)
    network.run()
    assert (watching.counts(), len(new.requests)) == ([0, 0, 0], 1)
    watching.pass_time(5)
    assert watching.counts() == [0, 1, 1]


def test_reload_during_a_check_gives_its_slot_back(network: MemoryNetwork, watch: Any) -> None:
    watching = watch(1, answers=b"")
    gone = watching.pool.backends[0]
    watching.pool.apply(diff(watching.pool.addresses, []))
    watching.probes.follow(watching.plan)
    network.run()
    assert watching.servers[0].open_connections == []
    assert (watching.slots._free, gone.health.known) == (MOST_AT_ONCE, False)


def test_server_removed_while_it_waits_for_a_slot_is_not_checked(network: MemoryNetwork, watch: Any) -> None:
    watching = watch(1)
    watching.pass_time(0.25)
    held: list[None] = []
    for _ in range(MOST_AT_ONCE):
        watching.slots.take(lambda: held.append(None))
    watching.counts()
    watching.pass_time(6)
    watching.probes.stop()
    for _ in held:
        watching.slots.give_back()
    network.run()
    assert (watching.counts(), watching.slots._free) == ([0], MOST_AT_ONCE)


def test_plan_may_change_between_two_checks(network: MemoryNetwork, watch: Any) -> None:
    watching = watch(1)
    watching.probes.follow(ProbePlan(HttpProbe("/other"), interval=2.0))
    watching.pass_time(7)
    assert watching.servers[0].requests[1].startswith(b"GET /other ")
    assert len(watching.servers[0].requests) == 3


def test_server_in_maintenance_is_not_checked_and_one_that_is_back_is_at_once(watch: Any) -> None:
    watching = watch(1)
    (backend,) = watching.pool.backends
    watching.pool.set_admin(backend, AdminState.MAINT, 1.0)
    watching.counts()
    watching.pass_time(20)
    assert watching.counts() == [0]
    watching.pool.set_admin(backend, AdminState.READY, 21.0)
    watching.probes.check_soon(backend)
    watching.pass_time(0.25)
    assert (watching.counts(), backend.usable) == ([1], True)


def test_asking_for_a_check_of_a_server_that_is_being_checked_or_unknown_changes_nothing(watch: Any) -> None:
    watching = watch(1, answers=b"")
    watching.probes.check_soon(watching.pool.backends[0])
    watching.probes.check_soon(Backend(address(9)))
    watching.pass_time(1)
    assert watching.counts() == [1]


@pytest.mark.parametrize(
    ("is_patient", "leases", "says_work", "checks"),
    [
        (True, 1, False, 3 * BUSY_PATIENCE),
        (True, 0, True, 3 * BUSY_PATIENCE),
        (True, 0, False, 3),
        (False, 1, True, 3),
    ],
    ids=["with our work", "with work of others", "without work", "of another kind"],
)
def test_server_with_work_may_leave_more_checks_unanswered(
    network: MemoryNetwork, is_patient: bool, leases: int, says_work: bool, checks: int
) -> None:
    class Says:
        def request(self, authority: bytes) -> bytes:
            return b"GET / HTTP/1.1\r\n\r\n"

        def judge(self, head: Any, body: bytes) -> Verdict:
            return Verdict(True, "fine", has_work=says_work)

    server = ScriptedBackend([Step(send=OK)], ())
    network.listenTCP(8188, server, interface="10.0.0.1")
    pool = Pool("gpus", [address(0)], rules=HealthRules(probed=True))
    probes = PoolProbes(network, pool, Slots())
    held = [Lease(pool.backends[0]) for _ in range(leases)]
    probes.follow(ProbePlan(Says(), interval=5.0, timeout=5.0, is_patient=is_patient))
    while not pool.backends[0].health.is_down or not pool.backends[0].health.known:
        network.advance(0.25)
    assert len(server.connections) == 1 + checks
    for lease in held:
        lease.release()
    probes.stop()
    network.run()


@pytest.mark.parametrize(("is_patient", "checks"), [(True, 3 * BUSY_PATIENCE), (False, 1)])
def test_server_that_is_slow_from_the_start_gets_the_same_time(
    network: MemoryNetwork, is_patient: bool, checks: int
) -> None:
    server = ScriptedBackend()
    network.listenTCP(8188, server, interface="10.0.0.1")
    pool = Pool("gpus", [address(0)], rules=HealthRules(probed=True))
    probes = PoolProbes(network, pool, Slots())
    probes.follow(ProbePlan(HEALTH, is_patient=is_patient))
    while not pool.backends[0].health.known:
        network.advance(0.25)
    assert (len(server.connections), pool.backends[0].health.is_down) == (checks, True)
    probes.stop()
    network.run()
