"""A port that has nothing to accept with waits, and tries again. tests/faults has a daemon that runs out."""

import socket
from collections.abc import Iterator
from errno import EMFILE
from typing import Any
from unittest.mock import Mock

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from comfyproxy.proxy.accepting import LOG_INTERVAL, PAUSE, ListeningSocket, PatientPort


class ReactorOfOnePort(Clock):
    """A clock, and the port that is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[Any] = []

    def addReader(self, port: Any) -> None:
        self.reads.append(port)

    def removeReader(self, port: Any) -> None:
        self.reads = [one for one in self.reads if one is not port]

    def removeWriter(self, port: Any) -> None:
        pass


@pytest.fixture
def reactor() -> ReactorOfOnePort:
    return ReactorOfOnePort()


@pytest.fixture
def port(reactor: ReactorOfOnePort, monkeypatch: pytest.MonkeyPatch) -> Iterator[PatientPort]:
    """A listening port; while `failing` is set on it, each accept fails so."""
    port = PatientPort(0, Factory.forProtocol(Protocol), interface="127.0.0.1", reactor=reactor)
    port.failing = 0  # type: ignore[attr-defined]
    accept = socket.socket.accept

    def accept_or_fail(listening: socket.socket) -> Any:
        if port.failing:  # type: ignore[attr-defined]
            raise OSError(port.failing, "Too many open files")  # type: ignore[attr-defined]
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", accept_or_fail)
    monkeypatch.setattr(PatientPort, "_log", Mock())
    port.startListening()
    yield port
    if port.connected:
        port.connectionLost()


def come(port: Any, client: socket.socket) -> None:
    client.connect(("127.0.0.1", port.getHost().port))


def test_a_client_that_comes_in_a_shortage_is_served_after_a_pause(
    port: Any, reactor: ReactorOfOnePort
) -> None:
    accepted: list[Any] = []
    port.factory.buildProtocol = lambda address: accepted.append(address)
    with socket.socket() as client:
        come(port, client)
        port.failing = EMFILE
        port.doRead()
        assert reactor.reads == []
        port.failing = 0
        reactor.advance(PAUSE)
        assert reactor.reads == [port]
        port.doRead()
    assert len(accepted) == 1
    assert reactor.getDelayedCalls() == []


def test_a_shortage_is_told_once_in_a_while(port: Any, reactor: ReactorOfOnePort) -> None:
    port.failing = EMFILE
    for _ in range(int(LOG_INTERVAL / PAUSE)):
        port.doRead()
        reactor.advance(PAUSE)
    assert port._log.warn.call_count == 1
    port.doRead()
    assert port._log.warn.call_count == 2
    assert port._log.warn.call_args.kwargs == {"error": "Too many open files"}


def test_a_port_that_closes_in_a_shortage_leaves_no_timer(port: Any, reactor: ReactorOfOnePort) -> None:
    port.failing = EMFILE
    port.doRead()
    port.connectionLost()
    assert reactor.getDelayedCalls() == []
    assert reactor.reads == []


def test_other_failures_are_the_ports_business() -> None:
    told: list[OSError] = []
    with ListeningSocket(socket.socket(), told.append) as listening, pytest.raises(OSError, match="nvalid"):
        listening.accept()
    assert told == []


def test_while_its_gate_is_shut_nobody_is_accepted(port: Any, reactor: ReactorOfOnePort) -> None:
    accepted: list[Any] = []
    port.factory.buildProtocol = lambda address: accepted.append(address)
    port.gate = Mock(is_shut=True)
    with socket.socket() as client:
        come(port, client)
        port.doRead()
        assert accepted == []
        port.gate.is_shut = False
        port.doRead()
    assert len(accepted) == 1


def test_a_shortage_is_the_gates_business_too(port: Any, reactor: ReactorOfOnePort) -> None:
    port.gate = Mock(is_shut=False)
    port.failing = EMFILE
    port.doRead()
    port.gate.run_short.assert_called_once_with()
    port.gate.is_shut = True
    reactor.advance(PAUSE)
    assert reactor.reads == []


def test_who_is_in_the_queue_of_a_port_that_closes_is_let_in(port: Any, reactor: ReactorOfOnePort) -> None:
    accepted: list[Any] = []
    port.factory.buildProtocol = lambda address: accepted.append(address)
    with socket.socket() as client:
        come(port, client)
        port.loseConnection()
        assert accepted == []
        reactor.advance(0)
    assert len(accepted) == 1
