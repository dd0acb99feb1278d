"""How a request comes by a server, beyond the rules: who waits for room, and for descriptors."""

import pytest

from comfyproxy.core.balancing.routing import Default
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.attempts import MOMENT
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK
from tests.routers import PlainRouter

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def answering(*answers: bytes) -> ScriptedBackend:
    return ScriptedBackend([Step(send=answer) for answer in answers])


def test_without_a_descriptor_for_a_server_the_client_is_told_and_no_server_blamed(make_rig):
    rig = make_rig(answering(OK), answering(OK))
    client = rig.client()
    rig.network.is_short = True
    rig.ask(GET, client=client)
    assert client.received == b""
    rig.advance(MOMENT)
    assert client.received.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in client.received
    assert b"too many connections open to make one more to a server" in client.take()
    assert (rig.leases, [len(backend.connections) for backend in rig.backends]) == (0, [0, 0])
    assert rig.proxy.admission.refused == {"descriptors": 1}
    assert (rig.proxy.admission.gate.is_short, all(one.usable for one in rig.pool.backends)) == (True, True)
    rig.network.is_short = False
    assert rig.ask(GET, client=client).received.endswith(b"ok")
    rig.advance(1)
    assert not rig.proxy.admission.gate.is_shut


def test_without_a_descriptor_idle_connections_to_servers_are_given_up(make_rig):
    rig = make_rig(answering(OK), answering(OK))
    client, other = rig.ask(GET), rig.client()
    assert len(rig.backends[0].open_connections) == 1
    rig.network.is_short = True
    rig.ask(GET, client=client)
    rig.ask(GET, client=other)
    assert rig.backends[0].open_connections == []
    rig.network.is_short = False
    rig.advance(MOMENT)
    assert other.received.endswith(b"ok")


@pytest.mark.parametrize("ends", [True, False])
def test_who_leaves_while_descriptors_are_short_leaves_nothing_behind(make_rig, ends):
    rig = make_rig(answering(OK))
    client = rig.client()
    rig.network.is_short = True
    rig.ask(GET, client=client)
    if ends:
        client.close()
    rig.network.run()
    rig.network.is_short = False
    rig.advance(1)
    assert (rig.leases, len(rig.backend.connections)) == (0, 0 if ends else 1)


def test_who_cannot_go_on_when_there_is_room_does_no_harm_to_who_made_it(make_rig, flush_logged_errors):
    class Failing(PlainRouter):
        def route(self, head, body, now):
            return Default()

        def place(self, head, body, backend, now):
            if head.path == b"/fails":
                raise ZeroDivisionError

    given = [Address("http", "10.0.0.1", 8188, max_conns=1)]
    rig = make_rig(ScriptedBackend(), addresses=given, router=Failing())
    first = rig.ask(GET)
    failing, last = rig.ask(GET.replace(b"/ ", b"/fails ")), rig.ask(GET)
    for _ in range(2):
        rig.backends[0].connections[0].send(OK)
        rig.network.run()
    assert [client.received[9:12] for client in (first, failing, last)] == [b"200", b"500", b"200"]
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    assert (rig.leases, len(rig.balancer.waiting)) == (0, 0)
