"""A splice between two socket pairs, one event at a time; whole transfers are in tests/accelerators."""

# ruff: noqa: N802 -- names of Twisted's.

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from comfyproxy.proxy import splice
from comfyproxy.proxy.splice import (
    MAX_SPARE,
    MOST_AT_ONCE,
    PIPE_SIZE,
    WORTHWHILE,
    Splice,
    can_splice,
    has_more,
)
from comfyproxy.proxy.transports import EagerWrites
from comfyproxy.testing import MemoryConnection, MemoryNetwork
from comfyproxy.testing.sockets import Direction, MemorySocket
from tests.accelerators.loopback import close_spare_pipes, open_descriptors
from tests.accelerators.memory_kernel import EagerMemoryConnection

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="this system has no splice")

DATA = Random(9).randbytes(300_000)


class Reactor:
    """Remembers who is to be called."""

    def __init__(self) -> None:
        self.readers: list[Any] = []
        self.writers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def addWriter(self, writer: Any) -> None:
        if writer not in self.writers:
            self.writers.append(writer)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def removeWriter(self, writer: Any) -> None:
        if writer in self.writers:
            self.writers.remove(writer)


class Transport:
    """One end of a socket pair, as far as a splice uses transports; ``peer`` is the other."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.socket, self.peer = socket.socketpair()
        for one in (self.socket, self.peer):
            one.setblocking(False)
        self.connected = 1
        self.told: list[str] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def stopReading(self) -> None:
        self.told.append("stop reading")

    def resumeProducing(self) -> None:
        self.told.append("read")

    def startWriting(self) -> None:
        self.told.append("try to write")


class Transfer:
    """A splice of ``octets`` between two pairs, and what it said."""

    def __init__(self, octets: int) -> None:
        self.reactor = Reactor()
        self.source = Transport(self.reactor)
        self.sink = Transport(self.reactor)
        self.moved: list[int] = []
        self.ended: list[int] = []
        self.received = b""
        self.splice = Splice(self.source, self.sink, octets, self.moved.append, self.ended.append)

    def event(self) -> None:
        """Let every reader and writer act once."""
        for reader in list(self.reactor.readers):
            reader.doRead()
        for writer in list(self.reactor.writers):
            writer.doWrite()

    def feed(self, data: bytes) -> int:
        """Send to the source what there is room for."""
        try:
            return self.source.peer.send(data)
        except BlockingIOError:
            return 0

    def take(self) -> None:
        """Read all that is at the sink."""
        while True:
            try:
                data = self.sink.peer.recv(1 << 20)
            except BlockingIOError:
                return
            if not data:
                return
            self.received += data

    def fill(self) -> bytes:
        """Feed until the sink and the pipe are full; returns what was fed."""
        fed = b""
        idle = 0
        while idle < 3:
            count = self.feed(DATA[:50_000])
            fed += DATA[:count]
            self.event()
            idle = 0 if count else idle + 1
        return fed

    def close(self) -> None:
        self.splice.stop()
        for transport in (self.source, self.sink):
            transport.socket.close()
            transport.peer.close()


@pytest.fixture
def transfer() -> Iterator[Callable[[int], Transfer]]:
    """Makes transfers; at the end no descriptor may be open, spare pipes aside."""
    close_spare_pipes()
    before = open_descriptors()
    made: list[Transfer] = []

    def make(octets: int) -> Transfer:
        made.append(Transfer(octets))
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert (one.reactor.readers, one.reactor.writers) == ([], [])
    close_spare_pipes()
    assert open_descriptors() == before


Make = Callable[[int], Transfer]


def test_it_moves_so_many_octets_and_no_more(transfer: Make) -> None:
    one = transfer(100_000)
    assert one.source.told == ["stop reading"]
    one.feed(DATA[:60_000])
    one.event()
    assert (sum(one.moved), one.ended) == (60_000, [])
    one.feed(DATA[60_000:100_000] + b"the next request")
    one.event()
    one.take()
    assert one.received == DATA[:100_000]
    assert (sum(one.moved), one.ended) == (100_000, [0])
    assert one.source.told == ["stop reading", "read"]
    assert one.source.socket.recv(100) == b"the next request"


def test_without_octets_it_waits(transfer: Make) -> None:
    one = transfer(100_000)
    one.event()
    assert (one.moved, one.ended, one.splice.waits_for_sink) == ([], [], False)
    assert len(one.reactor.readers) == 1


def test_a_full_sink_stops_it_with_one_pipe_full_at_most(transfer: Make) -> None:
    one = transfer(100_000_000)
    fed = one.fill()
    assert one.splice.waits_for_sink
    assert (one.reactor.readers, len(one.reactor.writers)) == ([], 1)
    assert sum(one.moved) < len(fed)
    while one.received != fed:
        one.take()
        one.event()
    assert not one.splice.waits_for_sink
    assert (len(one.reactor.readers), one.reactor.writers) == (1, [])


def test_the_last_octets_may_wait_for_the_sink(transfer: Make) -> None:
    one = transfer(100_000_000)
    fed = one.fill()
    read = fed[: sum(one.moved) + one.splice._in_pipe]
    one.splice._to_read = 0
    assert one.ended == []
    while not one.ended:
        one.take()
        one.event()
    one.take()
    assert (one.received, one.ended) == (read, [0])


@pytest.mark.parametrize("sent", [0, 1000])
def test_a_source_that_ends_early_says_how_much_is_missing(transfer: Make, sent: int) -> None:
    one = transfer(100_000)
    one.feed(DATA[:sent])
    one.source.peer.close()
    one.event()
    one.take()
    assert (one.received, one.ended) == (DATA[:sent], [100_000 - sent])
    assert one.source.told == ["stop reading", "read"]


def test_a_sink_that_is_gone_leaves_the_source_unread(transfer: Make) -> None:
    one = transfer(100_000)
    one.sink.peer.close()
    one.feed(DATA[:1000])
    one.event()
    # What was in the pipe is lost: nothing may be sent behind the hole.
    assert (one.moved, one.ended) == ([], [100_000])
    assert one.source.told == ["stop reading"]
    assert one.sink.told == ["try to write"]
    assert splice._spare == []


def test_a_sink_whose_transport_is_lost_already_is_not_asked_to_write(transfer: Make) -> None:
    one = transfer(100_000)
    one.sink.peer.close()
    one.sink.connected = 0
    one.feed(DATA[:1000])
    one.event()
    assert (one.ended, one.sink.told) == ([100_000], [])


def test_stopping_is_silent_and_may_be_done_twice(transfer: Make) -> None:
    one = transfer(100_000)
    one.splice.stop()
    one.splice.stop()
    assert (one.moved, one.ended) == ([], [])
    assert one.source.told == ["stop reading", "read"]


def test_it_may_be_stopped_by_who_is_told_that_it_moves(transfer: Make) -> None:
    one = transfer(100_000)
    one.splice._moved = lambda count: one.splice.stop()
    one.feed(DATA[:1000])
    one.event()
    assert (one.ended, one.reactor.readers) == ([], [])


@pytest.mark.parametrize("end", ["reader", "writer"])
def test_a_hang_up_is_found_by_trying(transfer: Make, end: str) -> None:
    one = transfer(100_000_000)
    if end == "reader":
        one.source.peer.close()
        (descriptor,) = one.reactor.readers
        one.reactor.removeReader(descriptor)
    else:
        one.fill()
        one.sink.peer.close()
        (descriptor,) = one.reactor.writers
        one.reactor.removeWriter(descriptor)
    descriptor.connectionLost(Failure(ConnectionError()))
    assert len(one.ended) == 1
    assert (one.source.told[-1] == "read") == (end == "reader")


def test_a_transfer_that_never_has_to_wait_gives_others_their_turn(
    transfer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = transfer(1_000 * PIPE_SIZE)
    monkeypatch.setattr(splice, "os", SimpleNamespace(**vars(os) | {"splice": lambda *args, flags: args[2]}))
    one.event()
    assert sum(one.moved) == MOST_AT_ONCE * PIPE_SIZE
    assert len(one.reactor.readers) == 1
    one.event()
    assert sum(one.moved) == 2 * MOST_AT_ONCE * PIPE_SIZE


class TestPipes:
    def test_an_empty_one_is_used_again(self, transfer: Make) -> None:
        transfer(100_000).splice.stop()
        (spare,) = splice._spare
        assert transfer(100_000).splice._pipe == spare
        assert splice._spare == []

    def test_one_with_octets_in_it_is_closed(self, transfer: Make) -> None:
        one = transfer(100_000_000)
        one.fill()
        one.splice.stop()
        assert splice._spare == []

    def test_so_many_are_kept(self, transfer: Make) -> None:
        some = [transfer(100_000) for _ in range(MAX_SPARE + 2)]
        for one in some:
            one.splice.stop()
        assert len(splice._spare) == MAX_SPARE

    def test_they_hold_what_they_are_said_to(self, transfer: Make) -> None:
        assert fcntl.fcntl(transfer(100_000).splice._pipe[1], fcntl.F_GETPIPE_SZ) == PIPE_SIZE

    def test_where_they_may_not_be_as_large_they_are_smaller(
        self, transfer: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*ignored: object) -> int:
            raise PermissionError(errno.EPERM, "that is too much for one user")

        monkeypatch.setattr(fcntl, "fcntl", refuse)
        one = transfer(100_000)
        one.feed(DATA[:100_000])
        while not one.ended:
            one.event()
            one.take()
        assert one.received == DATA[:100_000]

    @pytest.mark.parametrize("missing", ["pipe2", "first dup", "second dup", "watch"])
    def test_without_descriptors_nothing_has_happened(
        self, transfer: Make, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        one = transfer(100_000)
        one.splice.stop()
        close_spare_pipes()
        before = open_descriptors()
        count = iter(range(10))

        def refuse(*ignored: object) -> int:
            raise OSError(errno.EMFILE, "no more")

        def second(descriptor: int) -> int:
            return refuse() if next(count) else os.dup(descriptor)

        if missing == "watch":
            monkeypatch.setattr(one.reactor, "addReader", refuse)
        else:
            name = missing.split()[-1]
            replaced = {name: second if missing == "second dup" else refuse}
            monkeypatch.setattr(splice, "os", SimpleNamespace(**vars(os) | replaced))
        one.source.told.clear()
        with pytest.raises(OSError, match="no more"):
            Splice(one.source, one.sink, 100_000, print, print)
        monkeypatch.undo()
        close_spare_pipes()
        assert open_descriptors() == before
        assert one.source.told == []


def connection(kind: type[MemoryConnection] = EagerMemoryConnection) -> Any:
    """A connection whose other end takes nothing."""
    window = Direction(10)
    return kind(MemorySocket(Direction(10), window), Protocol(), MemoryNetwork(), None, None)


class TestWhen:
    def test_it_is_worth_it_from_so_many_octets_on(self) -> None:
        source, sink = connection(), connection()
        assert can_splice(source, sink, WORTHWHILE)
        assert not can_splice(source, sink, WORTHWHILE - 1)

    def test_it_takes_eager_transports_at_both_ends(self) -> None:
        eager, plain = connection(), connection(MemoryConnection)
        assert isinstance(eager, EagerWrites)
        assert not can_splice(eager, plain, WORTHWHILE)
        assert not can_splice(plain, eager, WORTHWHILE)

    @pytest.mark.parametrize("end", [0, 1])
    def test_it_takes_clear_text_at_both_ends(self, end: int) -> None:
        ends = connection(), connection()
        ends[end].TLS = True
        assert not can_splice(*ends, WORTHWHILE)

    def test_nothing_may_wait_at_the_sink(self) -> None:
        source, sink = connection(), connection()
        sink.write(b"x" * 11)
        assert not can_splice(source, sink, WORTHWHILE)

    def test_it_takes_a_system_that_has_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without = {name: value for name, value in vars(os).items() if name != "splice"}
        monkeypatch.setattr(splice, "os", SimpleNamespace(**without))
        assert not can_splice(connection(), connection(), WORTHWHILE)


class TestMore:
    def test_octets_are_seen_and_stay(self) -> None:
        one = connection()
        assert not has_more(one)
        one.line.incoming.data += b"x"
        assert has_more(one)
        assert one.line.incoming.data == b"x"

    @pytest.mark.parametrize("end", ["ended", "broken"])
    def test_so_is_the_end(self, end: str) -> None:
        one = connection()
        setattr(one.line.incoming, end, True)
        assert has_more(one)
