"""Connections to the addresses of a name: in turn, side by side where one is silent, never two of them."""

from typing import Any

import pytest

from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.dialing import ATTEMPT_DELAY, HANDSHAKE, Attempt, Dialer
from comfyproxy.proxy.relay import RelayEnd
from comfyproxy.proxy.resolver import Resolver
from comfyproxy.testing import MemoryNetwork, ScriptedBackend


class Line(RelayEnd):
    """The connection that is wanted; with ``shakes`` it stands only when it is told so."""

    def __init__(self, attempt: Attempt, shakes: bool) -> None:
        self.attempt = attempt
        self._shakes = shakes

    def connectionMade(self) -> None:
        if not self._shakes:
            self.attempt.succeeded(self)


class Dialed:
    """Dials ``gpu1`` on a network, and notes what came of it."""

    def __init__(self, *addresses: str, shakes: bool = False) -> None:
        self.network = MemoryNetwork()
        self.network.names["gpu1"] = list(addresses)
        self.names = Resolver(self.network)
        self.servers = {address: ScriptedBackend() for address in addresses}
        self.tried: list[str] = []
        self.ready: list[Any] = []
        self.failures: list[str] = []
        self.lines: list[Line] = []
        self._shakes = shakes
        connect = self.network.connectTCP
        self.network.connectTCP = lambda host, *rest, **options: (  # type: ignore[method-assign]
            self.tried.append(host),
            connect(host, *rest, **options),
        )[1]
        for address, server in self.servers.items():
            self.network.listenTCP(8188, server, interface=address)

    def refuse(self, *addresses: str) -> None:
        for address in addresses:
            self.network.ports.pop((address, 8188))

    def dial(self, timeout: float = 5) -> Dialer:
        address = Address("http", "gpu1", 8188)
        dialer = Dialer(self.network, address, self._build, self, timeout, names=self.names)
        if self._shakes:
            # What TLS would be: a handshake above the connection that the test ends when it wants.
            dialer.tls = lambda: None  # type: ignore[assignment,return-value]
        dialer.dial()
        self.network.run()
        return dialer

    def _build(self, attempt: Attempt) -> Line:
        self.lines.append(Line(attempt, self._shakes))
        return self.lines[-1]

    def connection_ready(self, upstream: Any) -> None:
        self.ready.append(upstream)

    def connect_failed(self, error: Exception) -> None:
        self.failures.append(str(error))

    def check_one_line(self) -> None:
        """One connection stands, to whom it was made, and nothing else is left."""
        assert (len(self.ready), self.failures) == (1, [])
        standing = [server for server in self.servers.values() if server.open_connections]
        assert len(standing) == 1
        assert self.network.getDelayedCalls() == []


def test_a_silent_address_costs_a_quarter_of_a_second() -> None:
    dialed = Dialed("10.0.0.1", "10.0.0.2")
    dialed.network.silent.add("10.0.0.1")
    dialed.dial()
    dialed.network.advance(ATTEMPT_DELAY - 0.01)
    assert (dialed.tried, dialed.ready) == (["10.0.0.1"], [])
    dialed.network.advance(0.02)
    dialed.check_one_line()
    assert dialed.tried == ["10.0.0.1", "10.0.0.2"]


def test_and_not_again_while_its_name_is_known() -> None:
    dialed = Dialed("10.0.0.1", "10.0.0.2", "10.0.0.3")
    dialed.network.silent.add("10.0.0.1")
    dialed.dial()
    dialed.network.advance(ATTEMPT_DELAY)
    del dialed.tried[:]
    for _ in range(6):
        dialed.dial()
    assert set(dialed.tried) == {"10.0.0.2", "10.0.0.3"}
    assert len(dialed.ready) == 7


def test_one_that_answers_late_is_waited_for_beside_the_next() -> None:
    dialed = Dialed("10.0.0.1", "10.0.0.2", "10.0.0.3")
    dialed.network.silent |= {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    dialed.dial()
    dialed.network.advance(ATTEMPT_DELAY)
    dialed.network.advance(ATTEMPT_DELAY)
    assert dialed.tried == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    dialed.network.advance(4.4)
    assert dialed.failures == []
    dialed.network.advance(0.2)
    assert dialed.failures == ["no connection within 5 s"]
    assert dialed.network.getDelayedCalls() == []


def test_one_that_refuses_costs_nothing() -> None:
    dialed = Dialed("10.0.0.1", "10.0.0.2")
    dialed.refuse("10.0.0.1")
    dialed.dial()
    dialed.check_one_line()


def test_a_refusal_while_another_is_silent_brings_the_next_at_once() -> None:
    dialed = Dialed("10.0.0.1", "10.0.0.2", "10.0.0.3")
    dialed.network.silent.add("10.0.0.1")
    dialed.refuse("10.0.0.2")
    dialed.dial()
    dialed.network.advance(ATTEMPT_DELAY)
    dialed.check_one_line()
    assert dialed.tried == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_when_all_have_refused_but_one_that_is_silent_that_one_has_the_time() -> None:
    dialed = Dialed("10.0.0.1", "10.0.0.2")
    dialed.network.silent.add("10.0.0.1")
    dialed.refuse("10.0.0.2")
    dialed.dial()
    dialed.network.advance(1)
    assert dialed.failures == []
    dialed.network.advance(4)
    assert dialed.failures == ["no connection within 5 s"]


def test_connections_begin_with_each_address_in_turn() -> None:
    dialed = Dialed("10.0.0.1", "10.0.0.2", "10.0.0.3")
    for _ in range(6):
        dialed.dial()
    assert dialed.tried == ["10.0.0.1", "10.0.0.2", "10.0.0.3"] * 2


@pytest.mark.parametrize("when", [0, ATTEMPT_DELAY])
def test_cancelling_breaks_off_every_attempt(when: float) -> None:
    dialed = Dialed("10.0.0.1", "10.0.0.2")
    dialed.network.silent |= {"10.0.0.1", "10.0.0.2"}
    dialer = dialed.dial()
    dialed.network.advance(when)
    dialer.cancel()
    dialed.network.silent.clear()
    dialed.network.advance(10)
    assert (dialed.ready, dialed.failures, dialed.network.getDelayedCalls()) == ([], [], [])
    assert not any(server.open_connections for server in dialed.servers.values())


def test_cancelling_while_the_name_is_asked_for_tells_nobody() -> None:
    dialed = Dialed("10.0.0.1")
    dialer = Dialer(
        dialed.network, Address("http", "gpu1", 8188), dialed._build, dialed, 5, names=dialed.names
    )
    dialer.dial()
    dialer.cancel()
    dialed.network.run()
    assert (dialed.tried, dialed.ready, dialed.failures) == ([], [], [])


@pytest.fixture
def shaking(monkeypatch: pytest.MonkeyPatch) -> Dialed:
    """Two addresses whose connections shake hands above TCP."""
    monkeypatch.setattr(
        "comfyproxy.proxy.dialing.TLSMemoryBIOFactory", lambda creator, is_client, factory, clock: factory
    )
    return Dialed("10.0.0.1", "10.0.0.2", shakes=True)


def test_a_handshake_has_its_share_of_the_time_before_the_next_is_tried(shaking: Dialed) -> None:
    shaking.dial(timeout=5)
    shaking.network.advance(2.4)
    assert shaking.tried == ["10.0.0.1"]
    shaking.network.advance(0.2)
    assert shaking.tried == ["10.0.0.1", "10.0.0.2"]
    shaking.lines[1].attempt.succeeded(shaking.lines[1])
    shaking.network.run()
    shaking.check_one_line()


def test_without_a_limit_for_all_a_handshake_has_some_seconds(shaking: Dialed) -> None:
    dialer = shaking.dial(timeout=0)
    shaking.network.advance(HANDSHAKE / 2 - 0.1)
    assert shaking.tried == ["10.0.0.1"]
    shaking.network.advance(0.2)
    assert shaking.tried == ["10.0.0.1", "10.0.0.2"]
    dialer.cancel()
    shaking.network.run()
    assert shaking.network.getDelayedCalls() == []


def test_a_handshake_that_fails_brings_the_next_at_once(shaking: Dialed) -> None:
    shaking.dial()
    shaking.lines[0].attempt.failed("its certificate is not good")
    shaking.network.run()
    shaking.lines[1].attempt.failed("its certificate is not good either")
    shaking.network.run()
    assert shaking.failures == ["its certificate is not good either"]


def test_who_is_told_of_an_end_that_nobody_waits_for_is_closed(shaking: Dialed) -> None:
    dialer = shaking.dial()
    line = shaking.lines[0]
    dialer.cancel()
    assert line.attempt.greeting == b""
    line.attempt.reached()
    line.attempt.failed("too late")
    line.attempt.succeeded(line)
    shaking.network.run()
    assert (shaking.ready, shaking.failures) == ([], [])
    assert not any(server.open_connections for server in shaking.servers.values())


def test_a_want_of_descriptors_is_no_fault_of_any_address() -> None:
    dialed = Dialed("10.0.0.1", "10.0.0.2")
    dialed.network.is_short = True
    dialed.dial()
    assert (dialed.tried, dialed.failures) == (["10.0.0.1"], ["too many open files"])
    dialed.network.is_short = False
    dialed.failures.clear()
    dialed.dial()
    dialed.dial()
    assert (set(dialed.tried), len(dialed.ready), dialed.failures) == ({"10.0.0.1", "10.0.0.2"}, 2, [])
