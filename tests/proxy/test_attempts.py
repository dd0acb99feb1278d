"""How a request comes by a server, beyond the rules: searches, and who waits for room."""

import pytest

from comfyproxy.core.balancing.routing import Default, Search
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.attempts import MOMENT
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nmissing"


def answering(*answers: bytes) -> ScriptedBackend:
    return ScriptedBackend([Step(send=answer) for answer in answers])


class Searching:
    """A router that has every request looked for."""

    drop = frozenset()
    message_key = None

    def route(self, head, body, now):
        return Search()

    def place(self, head, body, backend, now):
        return None

    def cookies(self, value):
        return value


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_search_goes_on_until_one_server_has_it(make_rig, method):
    missing, found = (MISSING, OK) if method == b"GET" else (MISSING[:-7], OK[:-2])
    rig = make_rig(answering(missing), answering(missing), answering(found), router=Searching())
    client = rig.ask(GET.replace(b"GET", method))
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"missing" not in client.received
    assert [len(backend.requests) for backend in rig.backends] == [1, 1, 1]
    # The connections of those that did not have it are as good as ever.
    assert [len(backend.open_connections) for backend in rig.backends] == [1, 1, 1]


def test_a_search_that_nobody_ends_gives_the_last_404(make_rig):
    rig = make_rig(answering(MISSING), answering(MISSING), router=Searching())
    client = rig.ask(GET)
    assert client.received.startswith(b"HTTP/1.1 404 ")
    assert client.received.endswith(b"missing")
    assert [len(backend.requests) for backend in rig.backends] == [1, 1]
    assert rig.leases == 0


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 404 No\r\n\r\n", b"HTTP/1.1 404 No\r\nContent-Length: 999999\r\n\r\nlong"]
)
def test_a_search_does_not_wait_for_the_rest_of_a_404(make_rig, answer):
    rig = make_rig(answering(answer), answering(OK), router=Searching())
    assert rig.ask(GET).received.endswith(b"ok")
    assert rig.backends[0].open_connections == []


def test_a_search_passes_over_servers_that_fail(make_rig):
    dying = ScriptedBackend([Step(end="close")])
    rig = make_rig(None, dying, answering(MISSING), answering(OK), router=Searching())
    assert rig.ask(GET).received.endswith(b"ok")


def test_a_search_ends_with_any_other_answer(make_rig):
    failed = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
    rig = make_rig(answering(failed), answering(OK), router=Searching())
    assert b" 500 Oh" in rig.ask(GET).received
    assert rig.backends[1].requests == []


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
    class Failing(Searching):
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
