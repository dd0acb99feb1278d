"""How answers end: a moment of lingering, and clients that read them slowly."""

import pytest

from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.proxy.answering import LINGER
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.network import WINDOW

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def status(client) -> int:
    """The status of the only answer that a client has got."""
    assert client.received.count(b"HTTP/1.1 ") == 1
    return int(client.received.split()[1])


def test_lingering_reads_and_drops_what_comes(make_rig):
    rig = make_rig()
    client = rig.client()
    client.stays_open = True
    rig.ask(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", client=client)
    for _ in range(10):
        rig.ask(b"x" * 100_000, client=client)
    assert (status(client), client.ended, client.transport.line.outgoing.dropped) == (400, "closed", 0)
    client.close()
    rig.network.run()
    assert rig.proxy.connections == set()


def test_lingering_has_its_time(make_rig):
    rig = make_rig()
    client = rig.client()
    client.stays_open = True
    rig.ask(b"nonsense\r\n\r\n", client=client)
    rig.advance(LINGER - 0.5)
    assert len(rig.proxy.connections) == 1
    rig.advance(2)
    assert rig.proxy.connections == set()
    client.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 No\r\nContent-Length: 100000\r\n\r\n"])
def test_a_client_that_is_behind_is_lingered_for_too(make_rig, answer):
    size = WINDOW + 100_000
    rig = make_rig(
        ScriptedBackend([Step(send=b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)])
    )
    client = rig.client()
    client.stays_open = True
    client.pause()
    rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n", client=client)
    client.send(b"y" * 2_000_000)
    client.resume()
    rig.network.run()
    assert client.received.endswith(b"x" * size)
    assert (client.ended, client.transport.line.outgoing.dropped) == ("closed", 0)
    client.close()
    rig.network.run()


def behind(make_rig, rate: int, **timeouts: float):
    """A rig, a client that has been sent more than it takes for now, and how much."""
    size = WINDOW + 1_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    rig = make_rig(
        ScriptedBackend([Step(send=answer)]), limits=Limits(min_rate=rate), timeouts=Timeouts(**timeouts)
    )
    client = rig.client()
    client.transport.line.incoming.piece = 1000
    client.pause()
    rig.ask(GET, client=client)
    return rig, client, size


def take(rig, client, octets: int) -> None:
    """Let a client read so many octets, more or less."""
    incoming = client.transport.line.incoming
    before = len(client.received)
    while len(client.received) < before + octets and incoming.data:
        client.transport.doRead()
    rig.network.run()


@pytest.mark.parametrize("taken", [0, 500])
def test_who_reads_too_slowly_is_cut_when_the_idle_time_is_over(make_rig, taken):
    rig, client, size = behind(make_rig, rate=1000, idle=60, keepalive=600)
    for _ in range(55):
        rig.advance(1)
        take(rig, client, taken)
    assert len(rig.proxy.connections) == 1
    rig.advance(70)
    assert rig.proxy.connections == set()
    client.resume()
    rig.network.run()
    assert len(client.received) < size
    assert rig.leases == 0


def test_who_reads_fast_enough_gets_all_of_it(make_rig):
    rig, client, size = behind(make_rig, rate=1000, idle=60)
    for _ in range(1500):
        rig.advance(1)
        take(rig, client, 2000)
    assert client.received.endswith(b"x")
    assert len(client.received) > size
    assert rig.proxy.admission.refused == {}
