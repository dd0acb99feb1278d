"""The rig puts a whole proxy between its peers, and finds what the proxy leaves behind."""

from comfyproxy.core.balancing.backend import Lease
from comfyproxy.testing import Rig, ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_request_goes_through_and_nothing_is_left():
    rig = Rig()
    client = rig.ask(GET)
    assert client.received.endswith(b"\r\n\r\nok")
    assert len(rig.backend.requests) == 1
    assert rig.close() == []


def test_none_is_a_server_that_refuses():
    rig = Rig(None, ScriptedBackend([Step(send=OK)]))
    assert b" 200 OK" in rig.ask(GET).received
    assert [len(backend.requests) for backend in rig.backends if backend] == [1]
    assert rig.close() == []


def test_octets_that_the_proxy_has_read_and_not_sent_on_are_held():
    rig = Rig(ScriptedBackend())
    client = rig.ask(GET)
    before = rig.held
    rig.backend.connections[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
    client.pause()
    rig.backend.connections[0].send(b"x" * 9_000_000)
    rig.network.run()
    assert rig.held > before + 50_000
    client.resume()
    rig.network.run()
    assert abs(rig.held - before) < 1000
    assert rig.close() == []


def test_a_lease_that_nobody_releases_is_found():
    rig = Rig()
    Lease(rig.pool.backends[0])
    assert rig.close() == ["1 leases are held"]


def test_a_timer_that_nobody_cancels_is_found():
    rig = Rig()
    rig.network.callLater(1000, print)
    (left,) = rig.close()
    assert left.startswith("a timer was left: <DelayedCall")


def test_what_is_logged_can_be_read():
    rig = Rig(log="routing")
    rig.ask(GET)
    rig.advance(1)
    assert rig.logged == b"[LoadBalancer] Routing request to http://10.0.0.1:8188 (0/1)\n"
    assert rig.close() == []
