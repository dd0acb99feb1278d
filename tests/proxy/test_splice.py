"""When a splice can be, and what it does with its pipes; `tests/accelerators` has whole transfers."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from comfyproxy.proxy import splice
from comfyproxy.proxy.splice import MAX_SPARE, PIPE_SIZE, WORTHWHILE, Splice, can_splice, has_more
from comfyproxy.proxy.transports import EagerServer

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="this system cannot splice")


class Watching:
    """A reactor that remembers who wants to read and to write, and calls nobody."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard
        self.addWriter = self.writers.add
        self.removeWriter = self.writers.discard


class End(EagerServer):
    """One side of a transfer: a transport with nothing but a socket and a reactor."""

    def __init__(self, reactor: Watching, connected: socket.socket) -> None:
        self.reactor = reactor
        self.socket = connected
        self.connected = 1
        self.repstr = "end"
        self.dataBuffer = b""
        self._tempDataBuffer: list[bytes] = []
        self.is_reading = True

    def fileno(self) -> int:
        return self.socket.fileno()

    def stopReading(self) -> None:
        self.is_reading = False

    def resumeProducing(self) -> None:
        self.is_reading = True

    def startWriting(self) -> None:
        self.reactor.addWriter(self)


class Wires:
    """A source and a sink, each with the peer at its other end."""

    def __init__(self) -> None:
        self.reactor = Watching()
        self.sender, source = socket.socketpair()
        sink, self.receiver = socket.socketpair()
        for one in (self.sender, source, sink, self.receiver):
            one.setblocking(False)
        self.source = End(self.reactor, source)
        self.sink = End(self.reactor, sink)
        self.moved = 0
        self.left: list[int] = []

    def splice(self, octets: int) -> Splice:
        return Splice(self.source, self.sink, octets, self._count, self.left.append)

    def _count(self, octets: int) -> None:
        self.moved += octets

    def turn(self) -> None:
        """Let everybody read and write who wants to."""
        for descriptor in tuple(self.reactor.readers):
            descriptor.doRead()
        for descriptor in tuple(self.reactor.writers - {self.sink}):
            descriptor.doWrite()

    def received(self) -> bytes:
        data = b""
        try:
            while piece := self.receiver.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return data

    def close(self) -> None:
        for one in (self.sender, self.source.socket, self.sink.socket, self.receiver):
            one.close()


@pytest.fixture
def wires() -> Iterator[Wires]:
    before = len(os.listdir("/proc/self/fd"))
    splice._spare.clear()
    made = Wires()
    yield made
    made.close()
    for pipe in splice._spare:
        splice._close(pipe)
    splice._spare.clear()
    assert len(os.listdir("/proc/self/fd")) == before


def test_short_bodies_are_not_worth_it(wires: Wires) -> None:
    assert can_splice(wires.source, wires.sink, WORTHWHILE)
    assert not can_splice(wires.source, wires.sink, WORTHWHILE - 1)


def test_other_transports_cannot(wires: Wires) -> None:
    assert not can_splice(object(), wires.sink, WORTHWHILE)
    assert not can_splice(wires.source, object(), WORTHWHILE)


@pytest.mark.parametrize("end", ["source", "sink"])
def test_tls_cannot(wires: Wires, end: str) -> None:
    getattr(wires, end).TLS = True
    assert not can_splice(wires.source, wires.sink, WORTHWHILE)


def test_what_waits_in_the_sink_must_not_be_overtaken(wires: Wires) -> None:
    wires.sink.dataBuffer = b"waiting"
    assert not can_splice(wires.source, wires.sink, WORTHWHILE)


def test_the_octets_arrive_and_the_source_reads_again(wires: Wires) -> None:
    wires.splice(10)
    assert not wires.source.is_reading
    wires.sender.send(b"0123456789and more")
    wires.turn()
    assert wires.received() == b"0123456789"
    assert (wires.moved, wires.left) == (10, [0])
    assert wires.source.is_reading
    assert wires.source.socket.recv(100) == b"and more"
    assert not wires.reactor.readers
    assert len(splice._spare) == 1


def test_a_source_that_ends_early_leaves_the_rest(wires: Wires) -> None:
    wires.splice(10)
    wires.sender.send(b"0123")
    wires.sender.shutdown(socket.SHUT_WR)
    wires.turn()
    assert wires.received() == b"0123"
    assert wires.left == [6]
    assert wires.source.is_reading


def test_a_sink_that_takes_no_more_stops_the_reading(wires: Wires) -> None:
    transfer = wires.splice(64 * PIPE_SIZE)
    sent = 0
    for _ in range(1000):
        try:
            sent += wires.sender.send(bytes(65536))
        except BlockingIOError:
            break
        wires.turn()
    assert transfer.waits_for_sink
    assert not wires.reactor.readers
    assert sent < 4 * PIPE_SIZE
    transfer.stop()


def test_a_sink_that_fails_ends_it_and_its_pipe(wires: Wires) -> None:
    wires.splice(10)
    wires.receiver.close()
    wires.sender.send(b"0123456789")
    wires.turn()
    assert wires.left == [10]
    assert not wires.source.is_reading
    assert wires.sink in wires.reactor.writers
    assert splice._spare == []


def test_stopping_says_nothing_and_a_second_time_does_nothing(wires: Wires) -> None:
    transfer = wires.splice(10)
    transfer.stop()
    transfer.stop()
    assert wires.left == []
    assert wires.source.is_reading
    assert len(splice._spare) == 1


def test_without_descriptors_nothing_has_happened(wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(splice.os, "dup", none_left)
    with pytest.raises(OSError, match="Too many"):
        wires.splice(10)
    assert wires.source.is_reading
    assert not wires.reactor.readers


def test_only_so_many_pipes_are_kept(wires: Wires) -> None:
    pipes = [os.pipe() for _ in range(MAX_SPARE + 2)]
    for pipe in pipes:
        splice._put_back(pipe)
    assert len(splice._spare) == MAX_SPARE


def test_one_sees_whether_there_is_something_to_read(wires: Wires) -> None:
    assert not has_more(wires.source)
    wires.sender.send(b"x")
    assert has_more(wires.source)
    assert wires.source.socket.recv(1) == b"x"
    wires.sender.close()
    assert has_more(wires.source)
