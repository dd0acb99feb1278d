"""Which backends of a pool are usable, by what was observed of them and by what an operator wants."""

from math import inf

import pytest

from comfyproxy.core.balancing.backend import AdminState, Backend, Lease, Outcome
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.health import Status
from comfyproxy.core.balancing.outliers import EjectionRules
from comfyproxy.core.balancing.pool import BUSY_PATIENCE, HealthRules, Pool
from comfyproxy.core.configuration.addresses import Address

PROBED = HealthRules(probed=True)
EJECTING = HealthRules(ejection=EjectionRules(failures=3, seconds=10.0, longest=300.0, share=0.5))


def address(host: str, weight: int = 1) -> Address:
    return Address("http", host, 8188, weight=weight)


class Watched:
    """A pool and what it tells."""

    def __init__(self, size: int, rules: HealthRules = PROBED, weight: int = 1) -> None:
        self.pool = Pool("gpus", [address(f"gpu{n}", weight) for n in range(1, size + 1)], rules=rules)
        self.lines: list[str] = []
        self.changed: list[Backend] = []
        self.pool.on_event = lambda event: self.lines.append(str(event))
        self.pool.on_change = self.changed.append

    def __getitem__(self, place: int) -> Backend:
        return self.pool.backends[place]

    @property
    def usable(self) -> list[int]:
        return [place for place, backend in enumerate(self.pool.backends) if backend.usable]

    def told(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def check(self, place: int, *oks: bool, now: float = 1.0, busy: bool = False) -> None:
        for ok in oks:
            why = "it answered" if ok else "connection refused"
            self.pool.observed(self[place], ok, now, why, is_busy=busy)

    def fail(self, place: int, times: int = 1, now: float = 1.0) -> None:
        for _ in range(times):
            self.pool.noted(self[place], Outcome.REFUSED, now)

    def all_up(self) -> "Watched":
        for place in range(len(self.pool)):
            self.check(place, True)
        self.told()
        self.changed.clear()
        return self


def test_nobody_known_to_be_up_all_are_asked() -> None:
    pool = Watched(3)
    assert pool.usable == [0, 1, 2]
    assert all(backend.health.is_down and backend.takes_pins for backend in pool.pool.backends)
    assert pool.told() == []


def test_server_that_never_answered_gets_nothing_once_another_is_up() -> None:
    pool = Watched(3)
    pool.check(1, True)
    assert pool.usable == [1]
    assert pool.told() == ["http://gpu2:8188 is UP: it answered (1 check)"]


def test_server_that_is_not_observed_is_usable_from_the_start() -> None:
    pool = Watched(2, HealthRules())
    assert pool.usable == [0, 1]
    assert pool.pool.due == inf


def test_server_goes_down_and_comes_back_and_each_is_told_once() -> None:
    pool = Watched(2).all_up()
    pool.check(0, False, False)
    assert pool.usable == [0, 1]
    pool.check(0, False, False, False)
    assert (pool.usable, pool[0].takes_pins) == ([1], False)
    assert pool.told() == ["http://gpu1:8188 is DOWN: connection refused (3 checks)"]
    assert pool.changed == [pool[0]]
    pool.check(0, True, True, True, now=9.0)
    assert (pool.usable, pool[0].takes_pins, pool[0].health.since) == ([0, 1], True, 9.0)
    assert pool.told() == ["http://gpu1:8188 is UP: it answered (2 checks)"]


def test_busy_server_may_leave_more_checks_unanswered() -> None:
    pool = Watched(2).all_up()
    allowed = PROBED.fall * BUSY_PATIENCE
    pool.check(0, *[False] * (allowed - 1), busy=True)
    assert pool.usable == [0, 1]
    pool.check(0, False, busy=True)
    assert pool.usable == [1]


def test_server_that_is_busy_from_the_start_is_not_known_to_be_dead() -> None:
    pool = Watched(2)
    pool.check(1, True)
    pool.check(0, *[False] * (PROBED.fall * BUSY_PATIENCE - 1), busy=True)
    assert (pool.usable, pool[0].health.known, pool[0].takes_pins) == ([1], False, True)
    assert pool.told()[1:] == []
    pool.check(0, False, busy=True)
    assert (pool[0].health.known, pool[0].takes_pins) == (True, False)
    assert pool.told() == ["http://gpu1:8188 is DOWN: connection refused (12 checks)"]


def test_server_that_was_busy_from_the_start_is_up_with_its_first_answer() -> None:
    pool = Watched(2)
    pool.check(1, True)
    pool.check(0, False, busy=True)
    pool.check(0, True)
    assert pool.usable == [0, 1]


def test_work_that_only_one_server_can_do_goes_there_before_the_first_check() -> None:
    pool = Watched(2)
    pool.check(1, True)
    assert (pool[0].usable, pool[0].takes_pins) == (False, True)


def test_busy_server_that_then_refuses_is_down_at_once() -> None:
    pool = Watched(2).all_up()
    pool.check(0, False, False, False, busy=True)
    assert pool.usable == [0, 1]
    pool.check(0, False)
    assert pool.usable == [1]


def test_none_up_all_are_asked_and_that_is_told_once() -> None:
    pool = Watched(2).all_up()
    pool.check(0, False, False, False)
    pool.told()
    pool.changed.clear()
    pool.check(1, False, False, False)
    assert pool.usable == [0, 1]
    assert pool[0].takes_pins
    assert pool.changed == [pool[0], pool[1]]
    assert pool.told() == [
        "http://gpu2:8188 is DOWN: connection refused (3 checks)",
        "Pool gpus: 0 of 2 servers up, so all of them get requests",
    ]
    pool.check(0, False, False)
    pool.check(0, True, True)
    assert pool.usable == [0]
    assert pool.told() == [
        "http://gpu1:8188 is UP: it answered (2 checks)",
        "Pool gpus: 1 of 2 servers up, so only those get requests",
    ]


def test_none_up_after_the_first_checks_is_told_once_all_are_known() -> None:
    pool = Watched(2)
    pool.check(0, False)
    assert pool.told() == ["http://gpu1:8188 is DOWN: connection refused (1 check)"]
    pool.check(1, False)
    assert pool.told()[1:] == ["Pool gpus: 0 of 2 servers up, so all of them get requests"]
    assert pool.usable == [0, 1]


@pytest.mark.parametrize(("panic", "up", "usable"), [(0.5, 2, 2), (0.51, 2, 4), (1, 3, 4), (0.1, 1, 1)])
def test_panic_begins_below_its_threshold(panic: float, up: int, usable: int) -> None:
    pool = Watched(4, HealthRules(probed=True, panic=panic))
    for place in range(4):
        pool.check(place, place < up)
    assert len(pool.usable) == usable


def test_without_panic_nobody_is_asked_when_all_are_known_to_be_down() -> None:
    pool = Watched(2, HealthRules(probed=True, panic=0))
    pool.check(0, False)
    assert pool.usable == [0, 1]
    pool.check(1, False)
    assert pool.usable == []
    assert len(pool.told()) == 2


def test_failures_in_a_row_eject_and_time_takes_back() -> None:
    pool = Watched(2, EJECTING)
    pool.fail(0, 2)
    assert pool.usable == [0, 1]
    pool.fail(0, 3, now=5.0)
    assert (pool.usable, pool[0].takes_pins, pool.pool.due) == ([1], True, 15.0)
    assert pool.told() == ["http://gpu1:8188 is left out for 10 s: no connection (3 requests in a row)"]
    pool.pool.turn(14.9)
    assert pool.usable == [1]
    pool.pool.turn(15.0)
    assert (pool.usable, pool.pool.due) == ([0, 1], inf)
    assert pool.told() == ["http://gpu1:8188 is tried again"]
    assert pool.changed == [pool[0], pool[0]]


def test_one_failure_after_the_time_is_over_ejects_again_for_twice_as_long() -> None:
    pool = Watched(2, EJECTING)
    pool.fail(0, 3, now=0.0)
    pool.pool.turn(10.0)
    pool.fail(0, now=11.0)
    assert pool.pool.due == 31.0


def test_success_resets_the_count() -> None:
    pool = Watched(2, EJECTING)
    pool.fail(0, 2)
    pool.pool.noted(pool[0], Outcome.ANSWERED, 1.0)
    pool.fail(0, 2)
    assert pool.usable == [0, 1]


def test_work_that_was_given_up_says_nothing_of_the_server() -> None:
    pool = Watched(2, EJECTING)
    pool.fail(0, 2)
    pool.pool.noted(pool[0], Outcome.ABANDONED, 1.0)
    assert pool[0].failures == 2


def test_without_rules_nothing_is_counted() -> None:
    pool = Watched(2, HealthRules())
    pool.fail(0, 100)
    assert (pool[0].failures, pool.usable) == (0, [0, 1])


def test_no_more_than_the_share_is_ejected_and_the_only_server_never() -> None:
    pool = Watched(4, EJECTING)
    for place in range(4):
        pool.fail(place, 3)
    assert pool.usable == [2, 3]
    alone = Watched(1, EJECTING)
    alone.fail(0, 30)
    assert (alone.usable, alone.told()) == ([0], [])


def test_last_server_that_is_up_is_not_ejected() -> None:
    pool = Watched(3, HealthRules(probed=True, ejection=EJECTING.ejection)).all_up()
    pool.check(0, False, False, False)
    pool.fail(1, 3)
    pool.fail(2, 30)
    assert pool.usable == [2]


def test_server_that_checks_call_down_is_not_ejected_besides_and_coming_up_ends_an_ejection() -> None:
    pool = Watched(2, HealthRules(probed=True, ejection=EJECTING.ejection)).all_up()
    pool.fail(0, 3)
    pool.check(0, False, False, False)
    assert (pool.usable, pool.pool.due) == ([1], inf)
    pool.told()
    pool.fail(0, 30)
    assert pool.told() == []
    pool.check(0, True, True)
    assert (pool.usable, pool[0].failures) == ([0, 1], 0)


def test_removed_server_is_neither_ejected_nor_told_of() -> None:
    pool = Watched(3, HealthRules(probed=True, ejection=EJECTING.ejection)).all_up()
    gone = pool[0]
    lease = Lease(gone)
    pool.pool.apply(diff(pool.pool.addresses, pool.pool.addresses[1:]))
    for _ in range(5):
        pool.pool.noted(gone, Outcome.LOST, 1.0)
        pool.pool.observed(gone, False, 1.0, "connection refused")
    assert (gone.usable, gone.takes_pins, pool.told(), pool.pool.due) == (False, True, [], inf)
    pool.pool.set_admin(gone, AdminState.MAINT, 1.0)
    assert not gone.takes_pins
    lease.release()


def test_slow_start_raises_the_weight_of_a_server_that_came_back() -> None:
    pool = Watched(2, HealthRules(probed=True, slow_start=20.0), weight=10).all_up()
    assert pool[0].weight == 10.0
    pool.check(0, False, False, False)
    pool.check(0, True, True, now=100.0)
    assert (pool[0].health.status, pool[0].weight, pool[0].usable) == (Status.STARTING, 1.0, True)
    weights = []
    while (due := pool.pool.due) < inf:
        pool.pool.turn(due)
        weights.append(pool[0].weight)
    assert weights == sorted(weights)
    assert (weights[9], weights[-1], due) == (5.0, 10.0, inf)
    assert pool[0].health.status is Status.UP
    assert len(pool.changed) == 2 + len(weights)


def test_server_at_the_first_check_has_its_whole_weight() -> None:
    pool = Watched(2, HealthRules(probed=True, slow_start=20.0), weight=10)
    pool.check(0, True)
    pool.check(1, False)
    assert (pool[0].weight, pool.pool.due) == (10.0, inf)
    pool.check(1, True, True)
    assert pool[1].weight == 1.0


def test_server_that_fails_in_slow_start_goes_down_and_begins_anew() -> None:
    pool = Watched(2, HealthRules(probed=True, slow_start=20.0)).all_up()
    pool.check(0, False, False, False)
    pool.check(0, True, True, now=100.0)
    pool.check(0, False, False, False, now=110.0)
    assert (pool.usable, pool.pool.due) == ([1], inf)
    pool.check(0, True, True, now=120.0)
    assert pool[0].weight == pytest.approx(0.1)


def test_ejected_server_comes_back_slowly_too() -> None:
    pool = Watched(2, HealthRules(slow_start=20.0, ejection=EJECTING.ejection))
    pool.fail(0, 3, now=0.0)
    pool.pool.turn(10.0)
    assert (pool[0].health.status, pool[0].weight) == (Status.STARTING, 0.1)


def test_reload_in_slow_start_keeps_the_part_of_the_weight() -> None:
    pool = Watched(2, HealthRules(slow_start=20.0, ejection=EJECTING.ejection))
    pool.fail(0, 3, now=0.0)
    pool.pool.turn(10.0)
    pool.pool.apply(diff(pool.pool.addresses, [address("gpu1", 4), address("gpu2")]))
    assert (pool[0].weight, pool[1].weight) == (pytest.approx(0.4), 1.0)


@pytest.mark.parametrize(
    ("state", "usable", "takes_pins"),
    [(AdminState.READY, True, True), (AdminState.DRAIN, False, True), (AdminState.MAINT, False, False)],
)
def test_what_an_operator_wants(state: AdminState, usable: bool, takes_pins: bool) -> None:
    pool = Watched(2, HealthRules())
    pool.pool.set_admin(pool[0], state, 1.0)
    assert (pool[0].usable, pool[0].takes_pins) == (usable, takes_pins)
    assert pool[1].usable
    told = [] if state is AdminState.READY else [f"http://gpu1:8188 is set to {state.name}"]
    assert pool.told() == told
    pool.pool.set_admin(pool[0], state, 2.0)
    assert pool.told() == []


def test_server_that_is_not_ready_does_not_count_and_gets_nothing_in_panic() -> None:
    pool = Watched(3).all_up()
    pool.pool.set_admin(pool[0], AdminState.DRAIN, 1.0)
    pool.check(1, False, False, False)
    pool.check(2, False, False, False)
    assert pool.usable == [1, 2]
    assert pool.told()[-1] == "Pool gpus: 0 of 2 servers up, so all of them get requests"
    pool.pool.set_admin(pool[0], AdminState.READY, 1.0)
    assert pool.usable == [0]


def test_no_server_ready_none_is_usable_and_nobody_panics() -> None:
    pool = Watched(2).all_up()
    for backend in pool.pool.backends:
        pool.pool.set_admin(backend, AdminState.MAINT, 1.0)
    assert pool.usable == []
    assert len(pool.told()) == 2


def test_server_back_from_maintenance_has_to_answer_first_and_then_begins_slowly() -> None:
    pool = Watched(2, HealthRules(probed=True, slow_start=20.0)).all_up()
    pool.pool.set_admin(pool[0], AdminState.MAINT, 1.0)
    pool.pool.set_admin(pool[0], AdminState.READY, 50.0)
    assert (pool.usable, pool[0].health.known) == ([1], False)
    pool.check(0, True, now=60.0)
    assert (pool.usable, pool[0].weight) == ([0, 1], 0.1)


def test_server_that_nobody_observes_is_back_from_maintenance_at_once() -> None:
    pool = Watched(2, HealthRules(ejection=EJECTING.ejection))
    pool.fail(0, 3)
    pool.pool.set_admin(pool[0], AdminState.MAINT, 1.0)
    pool.pool.set_admin(pool[0], AdminState.READY, 2.0)
    assert (pool.usable, pool.pool.due) == ([0, 1], inf)


def test_reload_keeps_health_admin_state_and_ejection_and_checks_new_servers_first() -> None:
    pool = Watched(4, HealthRules(probed=True, ejection=EJECTING.ejection)).all_up()
    pool.check(0, False, False, False)
    pool.pool.set_admin(pool[1], AdminState.DRAIN, 1.0)
    pool.fail(2, 3, now=5.0)
    pool.pool.apply(diff(pool.pool.addresses, [*pool.pool.addresses, address("new")]), 6.0)
    assert pool.usable == [3]
    assert (pool[4].health.known, pool[4].health.since, pool.pool.due) == (False, 6.0, 15.0)


def test_removed_server_that_was_ejected_is_forgotten_by_the_clock() -> None:
    pool = Watched(2, EJECTING)
    pool.fail(0, 3)
    pool.pool.apply(diff(pool.pool.addresses, pool.pool.addresses[1:]))
    assert pool.pool.due == inf


def test_the_same_rules_again_change_nothing() -> None:
    pool = Watched(2).all_up()
    pool.check(0, False, False, False)
    pool.told()
    pool.pool.follow(PROBED, 9.0)
    assert (pool.usable, pool.told()) == ([1], [])


def test_rules_without_probes_make_everybody_usable_again() -> None:
    pool = Watched(2).all_up()
    pool.check(0, False, False, False)
    pool.pool.follow(HealthRules(), 9.0)
    assert pool.usable == [0, 1]


def test_rules_with_probes_leave_servers_in_use_until_they_fail() -> None:
    pool = Watched(2, HealthRules())
    pool.pool.follow(PROBED, 9.0)
    assert pool.usable == [0, 1]
    pool.check(0, False, False, False)
    assert pool.usable == [1]


def test_rules_without_ejection_take_everybody_back() -> None:
    pool = Watched(2, EJECTING)
    pool.fail(0, 3)
    pool.pool.follow(HealthRules(), 2.0)
    assert (pool.usable, pool[0].failures, pool.pool.due) == ([0, 1], 0, inf)


def test_rules_without_slow_start_end_it() -> None:
    pool = Watched(2, HealthRules(slow_start=20.0, ejection=EJECTING.ejection))
    pool.fail(0, 3, now=0.0)
    pool.pool.turn(10.0)
    pool.pool.follow(EJECTING, 12.0)
    pool.pool.turn(pool.pool.due)
    assert (pool[0].weight, pool[0].health.status, pool.pool.due) == (1.0, Status.UP, inf)


def test_pool_tells_nobody_where_nobody_listens() -> None:
    pool = Pool("gpus", [address("gpu1"), address("gpu2")], rules=PROBED)
    pool.observed(pool.backends[0], True, 1.0)
    assert [backend.usable for backend in pool.backends] == [True, False]


def test_backup_that_is_up_spares_the_others_panic() -> None:
    addresses = [address("a"), address("b"), Address("http", "spare", 8188, backup=True)]
    watched = Watched(0, HealthRules(probed=True, fall=1, panic=0.5))
    watched.pool.apply(diff((), addresses))
    watched.all_up()
    watched.check(0, False)
    watched.check(1, False)
    assert watched.usable == [2]
    watched.check(2, False)
    assert watched.usable == [0, 1, 2]
    watched.check(2, True, True)
    assert watched.usable == [2]


def test_backup_that_is_up_lets_the_last_other_one_be_ejected() -> None:
    watched = Watched(0, EJECTING)
    watched.pool.apply(diff((), [address("a"), Address("http", "spare", 8188, backup=True)]))
    watched.fail(0, 3)
    assert watched.usable == [1]
