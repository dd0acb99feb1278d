"""Scripted backends and raw clients do what they are told and remember what they saw."""

import pytest
import pytest_twisted

from comfyproxy.testing import MemoryNetwork, RawClient, ScriptedBackend, Step


def joined(network: MemoryNetwork, backend: ScriptedBackend) -> RawClient:
    network.listenTCP(80, backend, interface="10.0.0.1")
    return network.connect(RawClient(), "10.0.0.1", 80)


def test_a_script_answers_what_it_waited_for_and_begins_again(network):
    backend = ScriptedBackend([Step(after=b"a", send=b"1"), Step(after=b"b", send=b"2")])
    client = joined(network, backend)
    client.send(b"xaybza")
    network.run()
    assert client.received == b"121"
    assert backend.requests == [b"xa", b"yb", b"za"]


def test_a_step_may_wait_for_nothing_and_comes_once(network):
    backend = ScriptedBackend([Step(after=b"", send=b"hello"), Step(after=b"?", send=b"!")])
    client = joined(network, backend)
    client.send(b"??")
    network.run()
    assert client.received == b"hello!"


@pytest.mark.parametrize(("end", "ended"), [("close", "closed"), ("finish", "closed"), ("reset", "reset")])
def test_a_step_ends_the_connection(network, end, ended):
    client = joined(network, ScriptedBackend([Step(after=b"x", end=end)]))
    client.send(b"x")
    network.run()
    assert client.ended == ended
    assert client.is_gone


def test_each_connection_takes_the_next_script_and_the_last_serves_the_rest(network):
    backend = ScriptedBackend([Step(after=b"", send=b"1")], [Step(after=b"", send=b"2")])
    clients = [joined(network, backend)]
    clients += [network.connect(RawClient(), "10.0.0.1", 80) for _ in range(2)]
    assert [client.take() for client in clients] == [b"1", b"2", b"2"]
    assert [client.take() for client in clients] == [b"", b"", b""]


def test_without_a_script_a_test_says_what_a_connection_does(network):
    backend = ScriptedBackend()
    client = joined(network, backend)
    client.send(b"hello")
    network.run()
    (connection,) = backend.connections
    assert (connection.received, client.received) == (b"hello", b"")
    connection.send(b"yes")
    network.run()
    assert client.received == b"yes"
    assert backend.open_connections == [connection]
    connection.close()
    network.run()
    assert backend.open_connections == []


def test_a_peer_that_stays_open_goes_on_sending_after_the_other_has_finished(network):
    backend = ScriptedBackend(stays_open=True)
    client = joined(network, backend)
    client.finish()
    network.run()
    assert (backend.connections[0].ended, client.is_gone) == ("closed", False)
    backend.connections[0].send(b"late")
    network.run()
    assert client.received == b"late"


@pytest_twisted.ensureDeferred
async def test_waiting_for_a_connection_that_stands_or_is_to_come(network):
    backend = ScriptedBackend()
    second = backend.connected(1)
    joined(network, backend)
    assert await backend.connected() is backend.connections[0]
    assert not second.called
    network.connect(RawClient(), "10.0.0.1", 80)
    assert await second is backend.connections[1]
