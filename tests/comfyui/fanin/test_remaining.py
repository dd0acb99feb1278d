"""How often a client is told how much is left."""

import json

from comfyproxy.comfyui.fanin.remaining import INTERVAL, Remaining


class Queue:
    """A queue of a length that the test sets."""

    def __init__(self, length: int = 0) -> None:
        self.length = length
        self.remaining = Remaining(lambda: self.length)
        self.remaining.greeting("cid", 0.0)

    def news(self, now: float) -> int | None:
        """What the client is told."""
        frame = self.remaining.news(now)
        if frame is None:
            return None
        assert frame.key == "status"
        value: int = json.loads(frame.payload)["data"]["status"]["exec_info"]["queue_remaining"]
        return value


def test_the_greeting_has_the_clients_id_and_must_arrive() -> None:
    frame = Remaining(lambda: 2).greeting("cid", 0.0)
    assert json.loads(frame.payload)["data"] == {
        "status": {"exec_info": {"queue_remaining": 2}},
        "sid": "cid",
    }
    assert frame.key is None


def test_nothing_new_is_not_said() -> None:
    assert Queue(1).news(100.0) is None


def test_a_change_of_a_queue_is_said_though_the_number_is_the_same() -> None:
    queue = Queue(1)
    queue.remaining.changes()
    assert queue.news(1.0) == 1
    assert queue.news(2.0) is None


def test_a_number_that_changes_unheard_is_said_too() -> None:
    queue = Queue(1)
    queue.length = 2
    assert queue.news(1.0) == 2


def test_many_changes_are_said_four_times_a_second() -> None:
    queue = Queue(1)
    said = []
    for tick in range(100):
        queue.length = tick + 1
        queue.remaining.changes()
        said.append(queue.news(tick / 50))
    assert len([one for one in said if one is not None]) <= 2 / INTERVAL


def test_that_nothing_is_left_is_said_at_once_and_once() -> None:
    queue = Queue(1)
    queue.length = 0
    assert queue.news(0.01) == 0
    queue.remaining.changes()
    assert queue.news(0.02) is None


def test_what_was_due_before_the_client_came_is_in_its_greeting() -> None:
    queue = Queue(1)
    queue.remaining.changes()
    queue.remaining.greeting("cid", 5.0)
    assert queue.news(9.0) is None


def test_a_count_below_zero_is_none() -> None:
    queue = Queue(1)
    queue.length = -1
    assert queue.news(1.0) == 0
