"""A least rate: looked at once in a window, over what has moved and what could have."""

import pytest
from twisted.internet.task import Clock

from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.pace import Pace

TICK = 0.25
WINDOW = 10


class Peer:
    """Moves octets when it is told to, and is told when it is too slow."""

    def __init__(self, rate: int = 10) -> None:
        self.clock = Clock()
        self.moved = 0
        self.waiting = float("inf")
        self.too_slow: list[float] = []
        self.deadlines = Deadlines(self.clock, TICK)
        self.pace = Pace(
            self.deadlines,
            rate,
            WINDOW,
            lambda: self.moved,
            lambda: self.too_slow.append(self.clock.seconds()),
            lambda: self.waiting,
        )

    def pass_time(self, seconds: float, moving: int = 0) -> None:
        """Let seconds pass, and in each of them so many octets move."""
        for _ in range(int(seconds)):
            self.clock.pump([TICK] * 4)
            self.moved += moving


@pytest.mark.parametrize(("moving", "is_too_slow"), [(0, True), (7, True), (10, False), (1000, False)])
def test_what_counts_is_the_rate_over_the_window(moving, is_too_slow):
    peer = Peer(rate=10)
    peer.pace.start()
    peer.pass_time(WINDOW + 1, moving)
    assert bool(peer.too_slow) == is_too_slow


def test_a_window_that_was_good_enough_says_nothing_of_the_next():
    peer = Peer(rate=10)
    peer.pace.start()
    peer.pass_time(WINDOW + 1, moving=1000)
    peer.pass_time(3 * WINDOW)
    assert len(peer.too_slow) == 1


def test_who_stalls_for_a_part_of_the_window_may_catch_up():
    peer = Peer(rate=10)
    peer.pace.start()
    peer.pass_time(WINDOW - 1)
    peer.moved += 10 * WINDOW
    peer.pass_time(2)
    assert peer.too_slow == []


@pytest.mark.parametrize(("waiting", "is_too_slow"), [(0, False), (5, False), (6, True)])
def test_who_has_taken_all_that_waited_was_fast_enough(waiting, is_too_slow):
    peer = Peer(rate=10)
    peer.waiting = waiting
    peer.pace.start()
    peer.moved += 5
    peer.pass_time(WINDOW + 1)
    assert bool(peer.too_slow) == is_too_slow


def test_while_it_is_paused_no_time_passes():
    peer = Peer(rate=10)
    peer.pace.start()
    peer.pass_time(WINDOW - 1)
    peer.pace.pause()
    peer.pass_time(5 * WINDOW)
    assert peer.too_slow == []
    peer.pace.start()
    peer.pass_time(WINDOW + 1)
    assert len(peer.too_slow) == 1


def test_once_stopped_it_is_kept_nowhere():
    peer = Peer(rate=10)
    peer.pace.start()
    peer.pace.stop()
    assert len(peer.deadlines) == 0
    peer.pass_time(5 * WINDOW)
    assert (peer.too_slow, peer.clock.getDelayedCalls()) == ([], [])


@pytest.mark.parametrize("stalled_after", [3, 8, 15])
def test_who_stalls_at_any_moment_is_found_a_window_later(stalled_after):
    peer = Peer(rate=10)
    peer.pace.start()
    peer.pass_time(stalled_after, moving=100)
    peer.pass_time(2 * WINDOW)
    (found,) = peer.too_slow
    assert stalled_after + WINDOW - 3 <= found <= stalled_after + WINDOW + 4


def test_looks_that_come_late_do_not_put_off_the_end_of_the_window():
    peer = Peer(rate=10)
    peer.pace.start()
    for _ in range(6):
        peer.clock.advance(3)
    assert len(peer.too_slow) == 1
