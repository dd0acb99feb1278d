"""Accepting clients: no more than there is room for, and none while descriptors are short."""

import socket
from errno import EMFILE
from unittest.mock import Mock

import pytest
import pytest_twisted
from twisted.internet import defer
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Port

from comfyproxy.proxy.gate import BREATH, TIGHT, Gate
from comfyproxy.proxy.transports import EagerPort, EagerServer


class Ports:
    """Remembers whether it may accept."""

    def __init__(self) -> None:
        self.is_open = True

    def pauseProducing(self) -> None:
        assert self.is_open
        self.is_open = False

    def resumeProducing(self) -> None:
        assert not self.is_open
        self.is_open = True


class Scene:
    """A gate with two ports."""

    def __init__(self, limit: int = 0) -> None:
        self.clock = Clock()
        self.asked_for_room = 0
        self.gate = Gate(self.clock, self.make_room)
        self.gate.limit = limit
        self.ports = [Ports(), Ports()]
        for port in self.ports:
            self.gate.add(port)

    def make_room(self) -> None:
        self.asked_for_room += 1

    @property
    def is_open(self) -> bool:
        (is_open,) = {port.is_open for port in self.ports}
        assert is_open != self.gate.is_shut
        return is_open


def test_at_its_limit_nobody_is_accepted_until_one_is_gone():
    scene = Scene(limit=2)
    scene.gate.entered()
    assert scene.is_open
    scene.gate.entered()
    assert (scene.is_open, scene.gate.pauses, scene.asked_for_room) == (False, 1, 1)
    scene.gate.left()
    assert (scene.is_open, scene.clock.getDelayedCalls()) == (True, [])


def test_without_a_limit_it_stays_open():
    scene = Scene()
    for _ in range(1000):
        scene.gate.entered()
    assert scene.is_open


def test_while_it_is_at_its_limit_it_asks_for_room_again_and_again():
    scene = Scene(limit=1)
    scene.gate.entered()
    scene.clock.advance(TIGHT)
    scene.clock.advance(TIGHT)
    assert (scene.asked_for_room, scene.is_open, scene.gate.pauses) == (3, False, 1)
    scene.gate.left()
    assert scene.clock.getDelayedCalls() == []


def test_more_than_its_limit_may_be_there_already():
    scene = Scene(limit=2)
    for _ in range(4):
        scene.gate.entered()
    scene.gate.left()
    scene.gate.left()
    assert not scene.is_open
    scene.gate.left()
    assert scene.is_open


def test_another_limit_holds_at_once():
    scene = Scene(limit=5)
    for _ in range(3):
        scene.gate.entered()
    scene.gate.limit = 3
    scene.gate.look()
    assert not scene.is_open
    scene.gate.limit = 0
    scene.gate.look()
    assert scene.is_open


def test_without_descriptors_it_takes_a_breath():
    scene = Scene()
    scene.gate.run_short()
    assert (scene.is_open, scene.gate.is_short, scene.asked_for_room) == (False, True, 1)
    scene.clock.advance(BREATH)
    assert (scene.is_open, scene.gate.is_short, scene.clock.getDelayedCalls()) == (True, False, [])


def test_what_is_given_back_in_a_shortage_is_not_for_new_clients():
    scene = Scene(limit=3)
    scene.gate.entered()
    scene.gate.run_short()
    scene.gate.run_short()
    scene.gate.left()
    assert (scene.is_open, scene.gate.pauses, scene.asked_for_room) == (False, 1, 1)
    scene.clock.advance(BREATH)
    assert (scene.is_open, scene.clock.getDelayedCalls()) == (True, [])


def test_with_descriptors_again_it_may_still_be_at_its_limit():
    scene = Scene(limit=1)
    scene.gate.run_short()
    scene.gate.entered()
    scene.clock.advance(BREATH)
    assert not scene.is_open
    scene.gate.left()
    assert scene.is_open


def test_a_port_that_is_not_twisteds_is_left_alone():
    gate = Gate(Clock(), lambda: None)
    gate.limit = 1
    gate.add(object())
    gate.entered()
    gate.stop()


def test_once_stopped_it_leaves_no_timer():
    scene = Scene(limit=1)
    scene.gate.entered()
    scene.gate.stop()
    assert scene.clock.getDelayedCalls() == []


class Listening:
    """A port on loopback that counts its connections in at ``gate``."""

    def __init__(self, kind: type[Port], gate: Gate | None, reactor) -> None:
        self.reactor = reactor
        self.gate = gate
        self.served: list[Protocol] = []
        self.clients: list[Protocol] = []
        self.refuses = False
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self._build  # type: ignore[method-assign]
        self.port = kind(0, factory, 50, "127.0.0.1", reactor)
        self.port.startListening()
        if gate is not None:
            gate.add(self.port)

    def _build(self, addr):
        if self.refuses:
            return None
        listening = self

        class Served(Protocol):
            def connectionMade(self):
                listening.served.append(self)
                if listening.gate is not None:
                    listening.gate.entered()

            def connectionLost(self, reason=None):
                listening.served.remove(self)
                if listening.gate is not None:
                    listening.gate.left()

        return Served()

    async def connect(self, count: int) -> None:
        """Let so many clients connect; the kernel lets them, whether they are accepted or not."""
        for _ in range(count):
            made = defer.Deferred()
            client = Protocol()
            client.connectionMade = lambda made=made: made.callback(None)  # type: ignore[method-assign]
            factory = ClientFactory()
            factory.noisy = False
            factory.buildProtocol = lambda addr, client=client: client  # type: ignore[method-assign]
            self.reactor.connectTCP("127.0.0.1", self.port.getHost().port, factory)
            await made
            self.clients.append(client)
        await self.turns()

    async def turns(self) -> None:
        for _ in range(20):
            await deferLater(self.reactor, 0)

    async def close(self) -> None:
        for client in self.clients:
            client.transport.abortConnection()
        if self.gate is not None:
            self.gate.limit = 0
            self.gate.look()
        while self.served:
            await deferLater(self.reactor, 0)
        if self.gate is not None:
            self.gate.stop()
        await defer.maybeDeferred(self.port.stopListening)


@pytest.fixture
def reactor():
    from twisted.internet import reactor

    return reactor


@pytest_twisted.ensureDeferred
async def test_a_port_accepts_exactly_as_many_as_there_is_room_for(reactor):
    gate = Gate(reactor, lambda: None)
    gate.limit = 3
    listening = Listening(EagerPort, gate, reactor)
    await listening.connect(7)
    assert len(listening.served) == 3
    assert all(isinstance(one.transport, EagerServer) for one in listening.served)
    listening.served[0].transport.abortConnection()
    await listening.turns()
    assert len(listening.served) == 3
    gate.limit = 0
    gate.look()
    await listening.turns()
    assert len(listening.served) == 6
    await listening.close()


@pytest_twisted.ensureDeferred
async def test_ports_that_find_no_descriptor_wait_together_and_recover(reactor, monkeypatch):
    gate = Gate(clock := Clock(), lambda: None)
    first, second = Listening(EagerPort, gate, reactor), Listening(EagerPort, gate, reactor)
    accept, failing = socket.socket.accept, [EMFILE]

    def accept_or_fail(listening):
        if failing:
            raise OSError(failing.pop(), "Too many open files")
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", accept_or_fail)
    monkeypatch.setattr(EagerPort, "_log", Mock())
    await first.connect(2)
    await second.connect(1)
    assert (first.served, second.served, gate.is_short, gate.pauses) == ([], [], True, 1)
    clock.advance(BREATH)
    await first.turns()
    assert (len(first.served), len(second.served), gate.is_short) == (2, 1, False)
    await first.close()
    await second.close()


@pytest_twisted.ensureDeferred
async def test_a_stock_port_may_accept_some_too_many(reactor):
    gate = Gate(reactor, lambda: None)
    gate.limit = 1
    listening = Listening(Port, gate, reactor)
    await listening.connect(1)
    await listening.connect(1)
    assert len(listening.served) == 1
    await listening.close()
