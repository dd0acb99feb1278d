"""Who waits for room: in which order it is given out, and to whom."""

from collections.abc import Callable

import pytest

from comfyproxy.core.balancing.backend import Backend, Lease
from comfyproxy.core.balancing.waiting import Waiting
from comfyproxy.core.configuration.addresses import Address


def backend(host: str = "a", max_conns: int = 1, busy: int = 1) -> Backend:
    made = Backend(Address("http", host, 8188, max_conns=max_conns))
    made.leases = busy
    return made


class Guest:
    """Takes room on the backend it is told to, if there is some; remembers that it was offered some."""

    def __init__(self, line: Waiting, target: Callable[[], Backend | None]) -> None:
        self.line = line
        self.target = target
        self.offers = 0
        self.lease: Lease | None = None

    def room(self) -> None:
        self.offers += 1
        backend = self.target()
        if backend is not None and not backend.is_full:
            self.line.leave(self)
            self.lease = Lease(backend)


@pytest.fixture
def line() -> Waiting:
    return Waiting(limit=10)


def guests(line: Waiting, count: int, backend: Backend | None, only: bool = False) -> list[Guest]:
    """Guests that wait for ``backend`` alone, or for any and then take it."""
    made = [Guest(line, lambda: backend) for _ in range(count)]
    for guest in made:
        assert line.join(guest, backend if only else None)
    return made


def test_room_goes_to_who_came_first_and_to_no_more_than_there_is_room_for(line: Waiting) -> None:
    server = backend(max_conns=3, busy=3)
    waiting = guests(line, 4, server)
    server.leases = 1
    line.offer(server)
    assert [guest.lease is not None for guest in waiting] == [True, True, False, False]
    assert [guest.offers for guest in waiting] == [1, 1, 0, 0]
    assert len(line) == 2


def test_who_waits_for_one_server_and_who_waits_for_any_take_turns_by_when_they_came(line: Waiting) -> None:
    server = backend(max_conns=3, busy=3)
    waiting = [*guests(line, 1, server), *guests(line, 1, server, only=True), *guests(line, 1, server)]
    for served in (1, 2, 3):
        server.leases = 2
        line.offer(server)
        assert [guest.lease is not None for guest in waiting] == [True] * served + [False] * (3 - served)


def test_who_waits_for_another_server_holds_nobody_up(line: Waiting) -> None:
    one, other = backend("a"), backend("b")
    (pinned,), (free,) = guests(line, 1, one, only=True), guests(line, 1, other)
    other.leases = 0
    line.offer(other)
    assert (pinned.offers, free.lease is not None) == (0, True)


def test_who_cannot_use_what_is_offered_keeps_its_place_and_the_next_has_it(line: Waiting) -> None:
    server = backend()
    picky, other = Guest(line, lambda: None), Guest(line, lambda: server)
    assert line.join(picky)
    assert line.join(other)
    server.leases = 0
    line.offer(server)
    assert (picky.offers, other.lease is not None) == (1, True)
    last = guests(line, 1, server)[0]
    picky.target = lambda: server
    server.leases = 0
    line.offer(server)
    assert (picky.lease is not None, last.offers) == (True, 0)


def test_offer_ends_when_nobody_can_use_it(line: Waiting) -> None:
    server = backend(busy=0)
    picky = [Guest(line, lambda: None) for _ in range(3)]
    for guest in picky:
        line.join(guest)
    line.offer(server)
    assert [guest.offers for guest in picky] == [1, 1, 1]


def test_who_comes_back_while_room_is_offered_waits_for_the_next(line: Waiting) -> None:
    server = backend(busy=0)

    class Restless(Guest):
        def room(self) -> None:
            self.offers += 1
            self.line.leave(self)
            self.line.join(self)

    restless = Restless(line, lambda: None)
    line.join(restless)
    line.offer(server)
    assert (restless.offers, len(line)) == (1, 1)


def test_a_server_that_takes_no_new_work_is_offered_only_to_who_belongs_there(line: Waiting) -> None:
    server = backend()
    (free,), (pinned,) = guests(line, 1, server), guests(line, 1, server, only=True)
    server.usable = False
    server.leases = 0
    line.offer(server)
    assert (free.offers, pinned.lease is not None) == (0, True)


def test_no_more_wait_than_may_and_who_waits_already_keeps_its_place(line: Waiting) -> None:
    line.limit = 2
    server = backend()
    first, _ = guests(line, 2, server)
    assert not line.join(Guest(line, lambda: server))
    assert line.join(first)
    assert len(line) == 2
    line.leave(first)
    assert line.join(Guest(line, lambda: server))


def test_who_is_no_longer_bound_to_one_server_waits_for_any_behind_the_others(line: Waiting) -> None:
    server, gone = backend(), backend("b")
    (bound,), (other,) = guests(line, 1, server), guests(line, 1, server)
    line.leave(bound)
    line.join(bound, gone)
    line.limit = 1
    assert line.join(bound)
    assert len(line) == 2
    server.leases = 0
    line.offer(server)
    assert (other.lease is not None, bound.lease) == (True, None)


def test_without_a_limit_above_0_nobody_waits() -> None:
    line = Waiting(0)
    assert not line.join(Guest(line, lambda: None))


def test_who_left_is_offered_nothing_and_nothing_of_it_is_kept(line: Waiting) -> None:
    server = backend()
    (first,), (second,) = guests(line, 1, server, only=True), guests(line, 1, server)
    line.leave(first)
    line.leave(second)
    server.leases = 0
    line.offer(server)
    line.look_again()
    assert (first.offers, second.offers, len(line), line._lines) == (0, 0, 0, {})


def test_all_look_again_in_turn_whoever_they_wait_for(line: Waiting) -> None:
    server, seen = backend(), []
    names = {"a": None, "b": server, "c": None}
    for name, wanted in names.items():
        guest = Guest(line, lambda name=name: seen.append(name))
        line.join(guest, wanted)
    line.look_again()
    assert seen == ["a", "b", "c"]


def test_who_is_gone_before_its_turn_to_look_again_is_not_asked(line: Waiting) -> None:
    second = Guest(line, lambda: None)
    first = Guest(line, lambda: line.leave(second))
    line.join(first)
    line.join(second)
    line.look_again()
    assert (first.offers, second.offers) == (1, 0)
