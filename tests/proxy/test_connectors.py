"""Connections to one backend: made over every address its name has, kept while idle, given out once."""

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.connectors import MAX_IDLE, Connector, Dialer
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.upstream import Upstream
from comfyproxy.testing import MemoryNetwork, ScriptedBackend


class Waiter:
    """Who wants a connection, and what it was told."""

    def __init__(self) -> None:
        self.ready: list[Upstream] = []
        self.failures: list[str] = []
        self.told: Deferred[None] = Deferred()

    def connection_ready(self, upstream: Upstream) -> None:
        self.ready.append(upstream)
        self.told.callback(None)

    def connect_failed(self, error: Exception) -> None:
        self.failures.append(str(error))
        self.told.callback(None)


@pytest.fixture
def network():
    return MemoryNetwork()


@pytest.fixture
def server(network):
    server = ScriptedBackend()
    network.listenTCP(8188, server, interface="10.0.0.1")
    return server


@pytest.fixture
def make(network):
    """Makes connectors on the network."""

    def make(host: str = "10.0.0.1", port: int = 8188, **timeouts: float) -> Connector:
        backend = Backend(Address("http", host, port))
        return Connector(network, backend, Deadlines(network), Timeouts(**timeouts))

    return make


def dial(network: MemoryNetwork, connector: Connector, timeout: float = 5) -> tuple[Waiter, Dialer]:
    waiter = Waiter()
    dialer = connector.dial(waiter, timeout)
    network.run()
    return waiter, dialer


def test_a_connection_that_is_made_is_handed_over(network, make, server):
    connector = make()
    waiter, _ = dial(network, connector)
    assert (len(waiter.ready), waiter.failures) == (1, [])
    assert connector.open == set(waiter.ready)
    assert network.getDelayedCalls() == []


def test_one_that_is_refused_says_so(network, make):
    connector = make()
    waiter, _ = dial(network, connector)
    assert (waiter.ready, waiter.failures) == ([], ["connection refused"])
    assert (network.getDelayedCalls(), connector.open) == ([], set())


def test_one_that_takes_too_long_is_given_up(network, make, server):
    network.silent.add("10.0.0.1")
    waiter, _ = dial(network, make(), timeout=5)
    network.advance(4.9)
    assert waiter.failures == []
    network.advance(0.2)
    assert waiter.failures == ["no connection within 5 s"]
    network.silent.clear()
    network.advance(10)
    assert (waiter.ready, server.connections) == ([], [])


def test_a_timeout_of_zero_waits_for_ever(network, make):
    network.silent.add("10.0.0.1")
    waiter, dialer = dial(network, make(), timeout=0)
    network.advance(100_000)
    assert waiter.failures == []
    dialer.cancel()


@pytest.mark.parametrize("host", ["10.0.0.1", "gpu1"])
def test_one_that_is_cancelled_tells_nobody(network, make, server, host):
    network.names["gpu1"] = ["10.0.0.1"]
    waiter = Waiter()
    dialer = make(host).dial(waiter, 5)
    dialer.cancel()
    network.run()
    assert (waiter.ready, waiter.failures, network.getDelayedCalls()) == ([], [], [])
    assert [one for one in server.connections if not one.is_gone] == []


def test_the_addresses_of_a_name_are_tried_in_order(network, make, server):
    network.names["gpu1"] = ["10.0.0.9", "fd00::9", "10.0.0.1"]
    tried = []
    connect = network.connectTCP
    network.connectTCP = lambda host, *rest, **options: (tried.append(host), connect(host, *rest, **options))[
        1
    ]
    waiter, _ = dial(network, make("gpu1"))
    assert len(waiter.ready) == 1
    assert tried == ["10.0.0.9", "fd00::9", "10.0.0.1"]


def test_when_none_of_them_answers_the_last_reason_is_told(network, make):
    network.names["gpu1"] = ["10.0.0.8", "10.0.0.9"]
    waiter, _ = dial(network, make("gpu1"))
    assert waiter.failures == ["connection refused"]


def test_the_time_is_for_all_of_them_together(network, make):
    network.names["gpu1"] = ["10.0.0.8", "10.0.0.9"]
    network.silent |= {"10.0.0.8", "10.0.0.9"}
    waiter, _ = dial(network, make("gpu1"), timeout=5)
    network.advance(5.1)
    assert waiter.failures == ["no connection within 5 s"]


def test_a_name_without_addresses_says_so(network, make):
    waiter, _ = dial(network, make("nowhere"))
    assert waiter.failures == ["its name has no address"]


def test_a_name_is_looked_up_for_each_new_connection(network, make, server):
    connector = make("gpu1")
    network.names["gpu1"] = ["10.0.0.1"]
    dial(network, connector)
    network.listenTCP(8188, moved := ScriptedBackend(), interface="10.0.0.2")
    network.names["gpu1"] = ["10.0.0.2"]
    dial(network, connector)
    assert (len(server.connections), len(moved.connections)) == (1, 1)


def idle(network: MemoryNetwork, connector: Connector, count: int = 1) -> list[Upstream]:
    """So many connections that were used and given back."""
    made = [dial(network, connector)[0].ready[0] for _ in range(count)]
    for upstream in made:
        connector.put_back(upstream)
    return made


def test_the_one_that_was_used_last_is_taken_first(network, make, server):
    connector = make()
    first, second, third = idle(network, connector, 3)
    assert [connector.take_idle() for _ in range(4)] == [third, second, first, None]


def test_those_that_stay_idle_are_closed(network, make, server):
    connector = make(backend_keepalive=55)
    idle(network, connector)
    for _ in range(54):
        network.advance(1)
    assert len(connector.open) == 1
    for _ in range(2):
        network.advance(1)
    assert (connector.open, connector.take_idle(), server.open_connections) == (set(), None, [])


@pytest.mark.parametrize("end", ["close", "reset"])
def test_one_that_the_backend_ends_is_never_taken(network, make, server, end):
    connector = make()
    idle(network, connector, 2)
    getattr(server.connections[1], end)()
    network.run()
    assert (len(connector.open), connector.take_idle() is not None, connector.take_idle()) == (1, True, None)


def test_one_that_says_something_unasked_is_never_taken(network, make, server):
    connector = make()
    (upstream,) = idle(network, connector)
    upstream.dataReceived(b"HTTP/1.1 200 OK\r\n")
    assert connector.take_idle() is None
    network.run()
    assert connector.open == set()


def test_more_than_are_useful_are_not_kept(network, make, server):
    connector = make()
    idle(network, connector, MAX_IDLE + 3)
    network.run()
    assert len(connector.open) == len(server.open_connections) == MAX_IDLE


def test_those_of_a_removed_backend_are_not_kept(network, make, server):
    connector = make()
    (upstream,) = (dial(network, connector)[0].ready[0],)
    connector.backend.removed = True
    connector.put_back(upstream)
    network.run()
    assert (connector.open, connector.take_idle()) == (set(), None)


def test_those_of_a_backend_that_gets_nothing_more_are_not_kept(network, make, server):
    connector = make()
    upstream = dial(network, connector)[0].ready[0]
    connector.backend.takes_pins = False
    connector.put_back(upstream)
    network.run()
    assert (connector.open, connector.take_idle()) == (set(), None)


def test_all_that_are_idle_can_be_closed(network, make, server):
    connector = make()
    idle(network, connector, 3)
    busy = dial(network, connector)[0].ready[0]
    connector.close_idle()
    network.run()
    assert connector.open == {busy}
    assert connector.take_idle() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest_twisted.ensureDeferred
async def test_a_real_backend_is_reached_by_address_and_by_name(running_reactor, host):
    server = ScriptedBackend()
    port = running_reactor.listenTCP(0, server, interface="::1" if host == "::1" else "127.0.0.1")
    backend = Backend(Address("http", host, port.getHost().port))
    connector = Connector(running_reactor, backend, Deadlines(running_reactor), Timeouts())
    waiter = Waiter()
    connector.dial(waiter, 5)
    await waiter.told
    (upstream,) = waiter.ready
    await server.connected()
    upstream.close()
    await server.connections[0].until(None)
    connector.deadlines.stop()
    port.stopListening()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest_twisted.ensureDeferred
async def test_a_real_port_that_nobody_listens_on_refuses(running_reactor, host):
    port = running_reactor.listenTCP(0, ScriptedBackend(), interface="127.0.0.1")
    number = port.getHost().port
    await port.stopListening()
    backend = Backend(Address("http", host, number))
    connector = Connector(running_reactor, backend, Deadlines(running_reactor), Timeouts())
    waiter = Waiter()
    connector.dial(waiter, 5)
    await waiter.told
    assert (waiter.ready, len(waiter.failures)) == ([], 1)
    assert "refused" in waiter.failures[0]
