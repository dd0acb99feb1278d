"""One line for each request, whatever clients put into it, written many at a time."""

import json
import re
from base64 import b64encode
from hashlib import sha1

import pytest
from twisted.internet.task import Clock

from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.accesslog import FLUSH_AFTER, FLUSH_SIZE, FORMATS, RoutingLog
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET /view?filename=a.png HTTP/1.1\r\nHost: a\r\nReferer: http://a/\r\nUser-Agent: curl/8.1\r\n\r\n"

HOSTILE = [
    b'"',
    b"\\",
    b'" 200 5 "-" "-" http://evil:1 0.000',
    b"\xff\xfe\xc3\xa9",
    b"\xe2\x80\xa8\xe2\x80\xae",
    b"%0d%0aGET",
    b'","status":200,"x":"',
    b"<script>alert(1)</script>",
    b"[LoadBalancer] Routing request to http://evil:1 (0/1)",
    b"{format} %(a)s",
]


def lines(rig) -> list[bytes]:
    rig.advance(1)
    assert rig.logged.endswith(b"\n")
    return rig.logged.split(b"\n")[:-1]


def test_the_console_line_of_a_routed_request(make_rig):
    backends = [ScriptedBackend([Step(send=OK)]) for _ in range(3)]
    addresses = [Address("http", f"server{number}", 8188) for number in (1, 2, 3)]
    rig = make_rig(*backends, addresses=addresses, log="routing")
    for number in (1, 2, 3):
        rig.network.names[f"server{number}"] = [f"10.0.0.{number}"]
        rig.network.listenTCP(8188, backends[number - 1], interface=f"10.0.0.{number}")
    for _ in range(4):
        rig.ask(GET)
    assert lines(rig) == [
        b"[LoadBalancer] Routing request to http://server1:8188 (0/3)",
        b"[LoadBalancer] Routing request to http://server2:8188 (1/3)",
        b"[LoadBalancer] Routing request to http://server3:8188 (2/3)",
        b"[LoadBalancer] Routing request to http://server1:8188 (0/3)",
    ]


def test_each_server_that_is_tried_has_its_console_line(make_rig):
    rig = make_rig(None, ScriptedBackend([Step(send=OK)]), log="routing")
    rig.ask(GET)
    assert [line.split()[-2] for line in lines(rig)] == [b"http://10.0.0.1:8188", b"http://10.0.0.2:8188"]


def test_combined(make_rig):
    rig = make_rig(log="combined")
    rig.network.advance(1_700_000_000)
    rig.ask(GET)
    assert lines(rig) == [
        b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /view?filename=a.png HTTP/1.1" 200 2 '
        b'"http://a/" "curl/8.1" http://10.0.0.1:8188 0.000'
    ]


def test_combined_without_the_optional_fields(make_rig):
    rig = make_rig(log="combined")
    rig.ask(b"GET / HTTP/1.0\r\n\r\n")
    (line,) = lines(rig)
    assert line.endswith(b'"GET / HTTP/1.0" 200 2 "-" "-" http://10.0.0.1:8188 0.000')


def test_json(make_rig):
    rig = make_rig(log="json")
    rig.network.advance(1_700_000_000)
    rig.ask(GET)
    (line,) = lines(rig)
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.000+00:00",
        "client": "192.0.2.1",
        "method": "GET",
        "target": "/view?filename=a.png",
        "host": "a",
        "status": 200,
        "sent": 2,
        "seconds": 0.0,
        "server": "http://10.0.0.1:8188",
        "user_agent": "curl/8.1",
        "referer": "http://a/",
        "request_id": None,
    }


def test_none_writes_nothing_and_sets_no_timer(make_rig):
    rig = make_rig(log="none")
    timers = len(rig.network.getDelayedCalls())
    rig.ask(GET)
    assert rig.logged == b""
    assert len(rig.network.getDelayedCalls()) <= timers + 1


@pytest.mark.parametrize("log", ["combined", "json"])
@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_that_a_client_sends_breaks_out_of_its_place(make_rig, log, value):
    rig = make_rig(log=log)
    fields = b"\r\n".join(name + b": " + value for name in (b"Referer", b"User-Agent", b"X-Request-ID"))
    target = b"/" + re.sub(rb"[^!\"$-~]", b"x", value)
    client = rig.ask(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n")
    assert b" 200 OK" in client.received
    (line,) = lines(rig)
    assert all(0x20 <= octet < 0x7F for octet in line)
    if log == "combined":
        parts = re.fullmatch(
            rb'192\.0\.2\.1 - - \[[^]]+\] "([^"]*)" 200 2 "([^"]*)" "([^"]*)" http://10\.0\.0\.1:8188 0\.000',
            line,
        )
        unquoted = [
            re.sub(rb"\\x([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), one)
            for one in parts.groups()
        ]
        assert unquoted == [b"GET " + target + b" HTTP/1.1", value, value]
    else:
        record = json.loads(line)
        assert record["target"].encode("latin-1") == target
        assert record["user_agent"].encode("latin-1") == record["referer"].encode("latin-1") == value
        assert record["status"] == 200


@pytest.mark.parametrize(
    ("log", "status", "server"),
    [("combined", b" 503 ", b'"-" "-" - '), ("json", b'"status": 503', b'"server": null')],
)
def test_a_request_that_reached_no_server_is_logged_too(make_rig, log, status, server):
    rig = make_rig(log=log)
    rig.balancer.apply(diff(rig.pool.addresses, ()))
    client = rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    (line,) = lines(rig)
    assert status in line
    assert server in line
    if log == "json":
        assert json.loads(line)["request_id"].encode() in client.received


def test_a_tunnel_is_logged_when_it_ends(make_rig):
    key = b"dGhlIHNhbXBsZSBub25jZQ=="
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    answer = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: " + accept
    rig = make_rig(ScriptedBackend([Step(send=answer + b"\r\n\r\n")]), log="combined")
    client = rig.ask(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    rig.advance(100)
    assert rig.logged == b""
    client.close()
    rig.network.run()
    (line,) = lines(rig)
    assert b'"GET /ws HTTP/1.1" 101 0 ' in line
    assert line.endswith(b" 100.000")


class Written:
    """Collects what is written."""

    def __init__(self, log: str) -> None:
        self.clock = Clock()
        self.calls: list[bytes] = []
        self.log = FORMATS[log](self.clock, self.calls.append)


def test_lines_wait_and_are_written_together():
    written = Written("routing")
    backend = type("Backend", (), {"url": "http://a:1", "index": 0})
    for _ in range(3):
        written.log.routed(backend, 1)
    written.clock.advance(FLUSH_AFTER - 0.01)
    assert written.calls == []
    written.clock.advance(0.02)
    assert written.calls == [b"[LoadBalancer] Routing request to http://a:1 (0/1)\n" * 3]
    assert written.clock.getDelayedCalls() == []


def test_many_lines_are_written_without_waiting():
    written = Written("routing")
    backend = type("Backend", (), {"url": "http://a:1", "index": 0})
    count = FLUSH_SIZE // len(b"[LoadBalancer] Routing request to http://a:1 (0/1)\n") + 1
    for _ in range(count):
        written.log.routed(backend, 1)
    assert len(written.calls) == 1
    assert written.clock.getDelayedCalls() == []


def test_flush_writes_what_waits_and_leaves_no_timer():
    written = Written("routing")
    assert isinstance(written.log, RoutingLog)
    written.log.flush()
    assert written.calls == []
    written.log.routed(type("Backend", (), {"url": "http://a:1", "index": 0}), 1)
    written.log.flush()
    assert (len(written.calls), written.clock.getDelayedCalls()) == (1, [])
