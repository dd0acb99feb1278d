"""Writing at the peer's pace, and what waits for it."""

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.proxy.outflow import OVERHEAD, SLICE, Backlog, Outflow


class Wire:
    """A transport that is full as soon as it keeps more than ``room`` octets, like Twisted's."""

    def __init__(self, room: int = 100_000) -> None:
        self.room = room
        self.kept = b""
        self.sent = b""
        self.largest = 0
        self.producer: Outflow | None = None
        self.events: list[str] = []

    def registerProducer(self, producer: Outflow, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self.events.append("no producer")

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        self.largest = max(self.largest, len(data))
        self.kept += data
        if len(self.kept) > self.room and self.producer is not None:
            self.producer.pauseProducing()

    def be_read(self) -> None:
        """Let the peer take everything that is kept."""
        full = len(self.kept) > self.room
        self.sent += self.kept
        self.kept = b""
        if full and self.producer is not None:
            self.producer.resumeProducing()

    def lose(self) -> None:
        self.events.append("lost")


def connected(room: int = 100_000) -> tuple[Wire, Outflow, list[bool]]:
    """A wire, an outflow to it, and what that says about being behind."""
    wire = Wire(room)
    said: list[bool] = []
    return wire, Outflow(wire, said.append), said  # type: ignore[arg-type]


def test_small_writes_go_straight_to_the_transport() -> None:
    wire, out, said = connected()
    out.write(b"a")
    out.write(b"b")
    assert wire.kept == b"ab"
    assert said == []
    assert not out.is_blocked


def test_a_large_write_goes_in_slices_as_the_peer_takes_them() -> None:
    wire, out, said = connected()
    data = bytes(range(256)) * 4096
    out.write(data)
    out.write(b"next")
    assert len(wire.kept) <= wire.room + SLICE
    assert out.is_blocked
    assert said == [True]
    while out.is_blocked:
        out.has_moved = False
        wire.be_read()
        assert out.has_moved
    assert wire.sent + wire.kept == data + b"next"
    assert wire.largest == SLICE
    assert said == [True, False]


def test_a_large_write_to_a_fast_peer_blocks_nobody() -> None:
    wire, out, said = connected(room=10**9)
    out.write(bytes(10 * SLICE + 1))
    assert len(wire.kept) == 10 * SLICE + 1
    assert said == []


def test_being_behind_is_said_once_for_each_time() -> None:
    wire, out, said = connected(room=10)
    for _ in range(3):
        out.write(b"x" * 11)
        out.write(b"y")
        wire.be_read()
    assert said == [True, False] * 3
    assert wire.sent == (b"x" * 11 + b"y") * 2 + b"x" * 11
    assert wire.kept == b"y"


def test_who_is_told_that_there_is_room_may_write_at_once() -> None:
    wire = Wire(room=10)
    more = [b"1" * 11, b"2" * 3 * SLICE, b"3"]

    def changed(is_blocked: bool) -> None:
        while more and not out.is_blocked and not is_blocked:
            out.write(more.pop(0))

    out = Outflow(wire, changed)  # type: ignore[arg-type]
    out.write(b"0" * 11)
    while wire.kept:
        wire.be_read()
    assert wire.sent == b"0" * 11 + b"1" * 11 + b"2" * 3 * SLICE + b"3"


def test_the_last_thing_is_done_when_all_is_written_and_without_a_producer() -> None:
    wire, out, _ = connected()
    out.write(bytes(3 * SLICE))
    out.finish(wire.lose)
    assert wire.events == []
    while out.is_blocked:
        wire.be_read()
    assert wire.events == ["no producer", "lost"]
    assert wire.sent + wire.kept == bytes(3 * SLICE)


def test_the_last_thing_is_done_at_once_when_nothing_waits() -> None:
    wire, out, _ = connected()
    out.finish(wire.lose)
    assert wire.events == ["no producer", "lost"]


def test_what_is_written_when_there_is_room_again_comes_before_the_last_thing() -> None:
    wire = Wire(room=10)
    more = [b"more"]
    out = Outflow(wire, lambda is_blocked: None if is_blocked or not more else out.write(more.pop()))  # type: ignore[arg-type]
    out.write(b"0" * 11)
    out.finish(lambda: wire.events.append(wire.kept.decode()))
    wire.be_read()
    assert wire.events == ["no producer", "more"]


def test_a_lost_transport_gets_nothing_more() -> None:
    wire, out, _ = connected()
    out.write(bytes(10 * SLICE))
    out.stopProducing()
    kept = len(wire.kept)
    out.resumeProducing()
    assert len(wire.kept) == kept


@given(st.lists(st.binary(max_size=40).map(lambda data: data * 5000), max_size=12), st.data())
def test_octets_stay_in_order_however_they_are_taken(writes: list[bytes], data: st.DataObject) -> None:
    wire, out, _ = connected()
    for one in writes:
        out.write(one)
        if data.draw(st.booleans()):
            wire.be_read()
    while wire.kept:
        wire.be_read()
    assert wire.sent == b"".join(writes)
    assert not out.is_blocked


def by_first(payload: bytes, is_binary: bool) -> Hashable | None:
    """Binary messages replace those that begin with the same octet."""
    return payload[:1] if is_binary else None


def all_of(backlog: Backlog) -> list[tuple[bytes, bool]]:
    return [backlog.take() for _ in range(len(backlog))]


def test_messages_are_taken_in_the_order_in_which_they_came() -> None:
    backlog = Backlog(by_first, 10_000)
    assert all([backlog.keep(b"one", False), backlog.keep(b"two", False), backlog.keep(b"one", False)])
    assert all_of(backlog) == [(b"one", False), (b"two", False), (b"one", False)]
    assert not backlog
    assert backlog.size == 0


def test_the_newest_of_a_key_takes_its_own_place_in_the_order() -> None:
    backlog = Backlog(by_first, 10_000)
    for payload, is_binary in [(b"a1", True), (b"text", False), (b"b1", True), (b"a2", True), (b"a3", True)]:
        assert backlog.keep(payload, is_binary)
    assert all_of(backlog) == [(b"text", False), (b"b1", True), (b"a3", True)]


def test_what_was_replaced_does_not_count() -> None:
    backlog = Backlog(by_first, 2 * (OVERHEAD + 100))
    for _ in range(1000):
        assert backlog.keep(b"a" * 100, True)
    assert backlog.size == OVERHEAD + 100


@pytest.mark.parametrize(("size", "fits"), [(100, True), (101, False)])
def test_the_limit_is_on_octets_and_messages(size: int, fits: bool) -> None:
    backlog = Backlog(by_first, 2 * OVERHEAD + 200)
    assert backlog.keep(b"x" * 100, False)
    assert backlog.keep(b"y" * size, False) is fits


def test_clearing_forgets_everything() -> None:
    backlog = Backlog(by_first, 10_000)
    backlog.keep(b"x", True)
    backlog.clear()
    assert (len(backlog), backlog.size) == (0, 0)


@given(st.lists(st.tuples(st.binary(max_size=3), st.booleans())))
def test_the_size_is_that_of_what_waits(messages: list[tuple[bytes, bool]]) -> None:
    backlog = Backlog(by_first, 10**6)
    for payload, is_binary in messages:
        backlog.keep(payload, is_binary)
    size = backlog.size
    assert size == sum(len(payload) + OVERHEAD for payload, _ in all_of(backlog))


def test_a_message_may_come_with_its_key() -> None:
    backlog = Backlog(None, 10_000)
    for payload, key in ((b"1", "a"), (b"2", None), (b"3", "a"), (b"4", None)):
        assert backlog.keep(payload, False, key)
    assert [payload for payload, _ in all_of(backlog)] == [b"2", b"3", b"4"]
    assert backlog.size == 0
