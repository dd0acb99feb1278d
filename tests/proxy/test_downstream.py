"""The daemon's own server, where it may differ from others: limits, ends, clients that are slow to read."""

import json

import pytest

from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.proxy.downstream import MAX_HELD
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.network import WINDOW

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def status(client) -> int:
    """The status of the only answer that a client has got."""
    assert client.received.count(b"HTTP/1.1 ") == 1
    return int(client.received.split()[1])


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(
    "limits", [Limits(head=100), Limits(head=100, line=50), Limits(head=100, line=99_999)]
)
def test_the_limit_on_fields_is_the_same_however_they_arrive(make_rig, limits, piece):
    for size, expected in ((100, 200), (101, 431)):
        rig = make_rig(limits=limits)
        padding = b"x" * (size - len(b"\r\nHost: a\r\nX: \r\n\r\n"))
        client = rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + padding + b"\r\n\r\n", piece)
        assert status(client) == expected


@pytest.mark.parametrize("piece", [0, 1])
def test_the_limit_on_the_request_line_is_the_same_however_it_arrives(make_rig, piece):
    for size, expected in ((40, 200), (41, 414)):
        rig = make_rig(limits=Limits(line=40))
        target = b"/" + b"x" * (size - len(b"GET / HTTP/1.1"))
        client = rig.ask(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n", piece)
        assert status(client) == expected


@pytest.mark.parametrize("fields", [b"Content-Length: 99\r\n", b"A: 1\r\n" * 30])
def test_a_refusal_is_in_the_form_that_the_client_accepts_if_it_could_say_so(make_rig, fields):
    rig = make_rig(limits=Limits(body=10, fields=20))
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n" + fields + b"\r\n")
    assert json.loads(client.received.partition(b"\r\n\r\n")[2])["status"] == status(client)


def test_a_refusal_of_head_has_no_body(make_rig):
    rig = make_rig(limits=Limits(fields=3))
    client = rig.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n" + b"A: 1\r\n" * 9 + b"\r\n")
    assert status(client) == 431
    assert client.received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("combined", b'192.0.2.1 - - [01/Jan/1970:00:00:00 +0000] "-" 400 36 "-" "-" - 0.000\n'),
        ("json", b'"status": 400'),
    ],
)
def test_what_could_not_be_read_is_logged_too(make_rig, log, line):
    rig = make_rig(log=log)
    client = rig.ask(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
    assert status(client) == 400
    rig.advance(1)
    assert rig.logged.count(b"\n") == 1
    assert line in rig.logged


def test_who_finishes_sending_before_it_is_answered_has_left(make_rig):
    rig = make_rig(ScriptedBackend())
    client = rig.ask(GET)
    client.finish()
    rig.network.run()
    assert (client.ended, rig.leases, rig.backend.connections[0].ended) == ("reset", 0, "reset")


def test_who_finishes_sending_after_it_was_answered_gets_the_answer_whole(make_rig):
    size = WINDOW + 50_000
    rig = make_rig(
        ScriptedBackend([Step(send=b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)])
    )
    client = rig.client()
    client.pause()
    rig.ask(GET, client=client)
    client.finish()
    rig.network.run()
    client.resume()
    rig.network.run()
    assert client.received.endswith(b"x" * size)
    assert client.ended == "closed"


def test_an_empty_line_before_a_request_is_not_counted_as_its_beginning(make_rig):
    rig = make_rig(timeouts=Timeouts(keepalive=75))
    client = rig.ask(GET)
    client.take()
    rig.ask(b"\r\n" + GET, client=client)
    assert status(client) == 200


def test_a_client_that_reads_nothing_and_asks_for_more_is_closed_after_the_keepalive_time(make_rig):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
    rig = make_rig(ScriptedBackend([Step(send=answer)]), timeouts=Timeouts(keepalive=75))
    client = rig.client()
    client.pause()
    rig.ask(GET * 20, client=client)
    asked = len(rig.backend.requests)
    assert asked < 10
    rig.advance(110)
    assert rig.proxy.connections == set()
    client.resume()
    rig.network.run()
    assert client.ended == "reset"
    assert len(rig.backend.requests) == asked


def test_held_requests_go_on_when_the_client_has_read(make_rig):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
    rig = make_rig(ScriptedBackend([Step(send=answer)]))
    client = rig.client()
    client.pause()
    rig.ask(GET * 20, client=client)
    client.send(GET * 20)
    client.resume()
    rig.network.run()
    assert client.received.count(b"HTTP/1.1 200 OK") == 40


def test_more_than_is_held_is_read_when_its_time_has_come(make_rig):
    count = 3 * MAX_HELD // len(GET)
    rig = make_rig()
    client = rig.ask(GET * count)
    assert client.received.count(b"HTTP/1.1 200 OK") == count


@pytest.mark.parametrize("draining", [False, True])
def test_a_connection_that_drains_is_not_kept(make_rig, draining):
    rig = make_rig()
    rig.proxy.draining = draining
    client = rig.ask(GET)
    assert (b"\r\nConnection: close\r\n" in client.received) == draining
    assert client.ended == ("closed" if draining else "")


def test_draining_lets_a_tunnel_and_a_closing_connection_be(make_rig):
    rig = make_rig()
    client = rig.client()
    client.stays_open = True
    rig.ask(b"nonsense\r\n\r\n", client=client)
    (connection,) = rig.proxy.connections
    connection.drain()
    rig.network.run()
    assert status(client) == 400
    client.close()
    rig.network.run()


@pytest.mark.parametrize("silence", [0, 20])
def test_the_first_head_has_its_time_from_the_connection_on_however_it_trickles_in(make_rig, silence):
    rig = make_rig(timeouts=Timeouts(head=30))
    client = rig.client()
    rig.advance(silence)
    for octet in GET[: 25 - silence]:
        rig.ask(bytes((octet,)), client=client)
        rig.advance(1)
    assert client.received == b""
    rig.advance(7)
    assert status(client) == 408
    assert rig.proxy.admission.refused == {"slow_head": 1}


def test_a_later_head_has_its_time_from_its_first_octet_on(make_rig):
    rig = make_rig(timeouts=Timeouts(head=30, keepalive=75))
    client = rig.ask(GET)
    client.take()
    rig.advance(70)
    for octet in GET[:24]:
        rig.ask(bytes((octet,)), client=client)
        rig.advance(1)
    assert client.received == b""
    rig.advance(8)
    assert status(client) == 408


def test_a_connection_is_kept_for_so_many_requests(make_rig):
    rig = make_rig(limits=Limits(requests=3))
    client = rig.ask(GET)
    rig.ask(GET, client=client)
    assert b"Connection: close" not in client.received
    rig.ask(GET * 2, client=client)
    assert client.received.count(b"HTTP/1.1 200 OK") == 3
    assert b"Connection: close\r\n" in client.received
    assert client.ended == "closed"
