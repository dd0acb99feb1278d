"""How a request comes by a server, beyond the rules: searches."""

import pytest

from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK
from tests.routers import Searching

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nmissing"


def answering(*answers: bytes) -> ScriptedBackend:
    return ScriptedBackend([Step(send=answer) for answer in answers])


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
