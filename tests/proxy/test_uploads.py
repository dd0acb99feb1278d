"""The body of a request while it comes: its time, and who is waited for."""

import pytest

from comfyproxy.core.config import Timeouts
from comfyproxy.testing import ScriptedBackend, Step

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("head", [POST, CHUNKED])
def test_who_sends_nothing_more_of_a_body_is_told_so_after_the_body_timeout(make_rig, head):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(body=60))
    client = rig.ask(head)
    rig.advance(59)
    assert client.received == b""
    rig.advance(3)
    assert client.received.startswith(b"HTTP/1.1 408 ")
    assert b"did not come in time" in client.received
    assert rig.leases == 0


@pytest.mark.parametrize("head", [POST, CHUNKED])
def test_each_piece_of_a_body_has_the_body_timeout(make_rig, head):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(body=60))
    client = rig.ask(head)
    for _ in range(5):
        rig.advance(50)
        rig.ask(b"8\r\nabcdefgh\r\n" * 1000, client=client)
    assert client.received == b""


def test_while_the_backend_is_not_there_the_client_has_all_time(make_rig):
    rig = make_rig(timeouts=Timeouts(body=10, connect=60))
    rig.network.silent.add("10.0.0.1")
    client = rig.ask(POST + b"x" * 1000)
    rig.ask(b"x" * 1000, client=client)
    rig.advance(50)
    assert client.received == b""
    rig.advance(20)
    assert client.received.startswith(b"HTTP/1.1 50")


def test_the_time_for_a_body_is_over_when_the_body_is(make_rig):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(body=10))
    client = rig.ask(POST + b"x" * 100_000)
    rig.advance(100)
    assert client.received == b""


def test_a_body_nobody_wants_any_more_keeps_nothing(make_rig):
    rig = make_rig(ScriptedBackend([Step(send=b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")]))
    client = rig.ask(POST + b"x" * 1000)
    assert client.received.startswith(b"HTTP/1.1 403 ")
    client.close()
    rig.network.run()
    assert len(rig.proxy.deadlines) == 0
