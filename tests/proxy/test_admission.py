"""Who is let in, seen by clients, and what is counted of those who are not."""

import json

import pytest

from comfyproxy.core.balancing.ratelimits import RateLimit, RateLimiter
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.testing import RawClient, ScriptedBackend, Step
from comfyproxy.testing.rig import HERE, OK, PORT

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
TOLD = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.%d\r\n\r\n"


def limited(rig, *limits: RateLimit, comfyui: bool = False, **settings) -> None:
    """Let the only route of ``rig`` have these limits."""
    limiters = tuple(map(RateLimiter, limits))
    route = Route(b"/", rig.balancer, Timeouts(), comfyui, rate_limits=limiters, **settings)
    rig.proxy.routes = RouteTable([route])


def statuses(client) -> list[int]:
    return [int(part.split()[0]) for part in client.received.split(b"HTTP/1.1 ")[1:]]


def close(rig, *clients) -> None:
    for client in clients:
        client.close()
    rig.network.run()


class TestConnections:
    def test_past_the_limit_clients_wait_and_are_served_when_others_go(self, make_rig):
        rig = make_rig(ScriptedBackend(), limits=Limits(connections=2))
        first, second, third = rig.ask(GET), rig.ask(GET), rig.ask(GET)
        assert (len(rig.proxy.connections), len(rig.backend.connections)) == (2, 2)
        close(rig, first)
        assert (len(rig.proxy.connections), len(rig.backend.connections)) == (2, 3)
        assert rig.proxy.admission.gate.pauses == 2
        close(rig, second, third)

    def test_idle_ones_make_room(self, make_rig):
        rig = make_rig(ScriptedBackend([Step(send=OK)], [Step(send=OK)]), limits=Limits(connections=2))
        idle, silent = rig.ask(GET), rig.client()
        newcomer = rig.ask(GET)
        assert (statuses(idle), statuses(newcomer), idle.ended, silent.ended) == ([200], [], "", "")
        rig.advance(2)
        assert (statuses(newcomer), idle.ended, silent.ended) == ([200], "closed", "closed")

    def test_those_that_are_at_work_do_not(self, make_rig):
        rig = make_rig(ScriptedBackend(), limits=Limits(connections=2))
        waiting, sending = rig.ask(GET), rig.ask(b"GET / HT")
        newcomer = rig.ask(GET)
        rig.advance(5)
        assert (waiting.ended, sending.ended, statuses(newcomer)) == ("", "", [])

    def test_those_that_have_been_idle_for_longest_are_closed_first(self, make_rig):
        rig = make_rig(limits=Limits(connections=50), timeouts=Timeouts(keepalive=75))
        clients = []
        for _ in range(49):
            clients.append(rig.ask(GET))
            rig.advance(0.5)
        last = rig.ask(GET)
        assert [client.ended for client in clients] == ["closed"] * 32 + [""] * 17
        assert (statuses(last), last.ended) == ([200], "")

    def test_from_one_address_more_are_answered_429_and_closed(self, make_rig):
        rig = make_rig(limits=Limits(connections_per_address=2))
        allowed = [rig.ask(GET), rig.ask(GET)]
        refused = rig.client()
        rig.network.run()
        other = rig.ask(GET, client=rig.client("192.0.2.2"))
        assert [statuses(one) for one in (*allowed, refused, other)] == [[200], [200], [429], [200]]
        assert b"Connection: close\r\n" in refused.received
        assert refused.ended == "closed"
        assert rig.proxy.admission.refused == {"connections_per_address": 1}

    def test_what_a_refused_one_sends_is_dropped_and_its_answer_still_seen(self, make_rig):
        rig = make_rig(limits=Limits(connections_per_address=1))
        rig.client()
        refused = rig.client()
        refused.stays_open = True
        rig.ask(GET, client=refused)
        assert statuses(refused) == [429]
        assert rig.backend.requests == []
        close(rig, refused)

    def test_of_a_flood_from_one_address_most_are_cut_without_a_word(self, make_rig):
        rig = make_rig(limits=Limits(connections_per_address=2))
        clients = [RawClient() for _ in range(6)]
        for client in clients:
            client.stays_open = True
            rig.network.connect(client, HERE, PORT, "192.0.2.1")
        assert [client.ended for client in clients[:2]] == ["", ""]
        assert [statuses(client) for client in clients[2:]] == [[429], [429], [], []]
        assert clients[5].ended == "reset"
        close(rig, *clients)

    def test_when_one_has_gone_another_may_come(self, make_rig):
        rig = make_rig(limits=Limits(connections_per_address=1))
        close(rig, rig.ask(GET))
        assert statuses(rig.ask(GET)) == [200]

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", [429]),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", [200]),
            ("192.0.2.9", "::ffff:192.0.2.9", [429]),
        ],
    )
    def test_of_ipv6_the_network_counts(self, make_rig, first, second, expected):
        rig = make_rig(limits=Limits(connections_per_address=1))
        rig.ask(GET, client=rig.client(first))
        client = rig.client(second)
        client.send(GET)
        rig.network.run()
        assert statuses(client) == expected

    def test_a_trusted_proxy_has_as_many_as_it_wants(self, make_rig):
        rig = make_rig(limits=Limits(connections_per_address=1), trusted=("192.0.2.0/24",))
        assert [statuses(rig.ask(GET)) for _ in range(5)] == [[200]] * 5

    def test_another_limit_counts_those_that_are_there(self, make_rig):
        rig = make_rig()
        rig.client()
        rig.client()
        rig.proxy.admission.adopt(Limits(connections_per_address=2))
        client = rig.client()
        rig.network.run()
        assert statuses(client) == [429]

    def test_nothing_is_kept_of_those_that_are_gone(self, make_rig):
        rig = make_rig(limits=Limits(connections_per_address=1))
        close(rig, rig.ask(GET), rig.client(), rig.client())
        rig.advance(5)
        assert (rig.proxy.admission.gate.count, rig.proxy.admission._places) == (0, {})


class TestRates:
    def test_who_asks_too_often_is_told_when_to_come_back(self, make_rig):
        rig = make_rig()
        limited(rig, RateLimit(10, "m", 2))
        client = rig.ask(GET * 3)
        assert statuses(client) == [200, 200, 429]
        answer = client.received.rpartition(b"HTTP/1.1 ")[2]
        assert b"\r\nRetry-After: 6\r\n" in answer
        assert b"This client asks more often than it may. Wait before you try again" in answer
        assert client.ended == ""
        rig.advance(6)
        assert statuses(rig.ask(GET, client=client))[3:] == [200]
        assert rig.proxy.admission.refused == {"rate_limit": 1}

    def test_on_comfyuis_paths_it_has_comfyuis_shape(self, make_rig):
        rig = make_rig(comfyui=True)
        limited(rig, RateLimit(1, "h", 1), comfyui=True)
        post = b"POST /prompt HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
        client = rig.ask(post * 2)
        body = json.loads(client.received.rpartition(b"\r\n\r\n")[2])
        assert body["error"]["message"] == "This client asks more often than it may."
        assert body["error"]["type"] == "comfyproxy_too_many_requests"

    def test_a_handshake_of_a_websocket_is_a_request(self, make_rig):
        rig = make_rig()
        limited(rig, RateLimit(1, "h", 1))
        client = rig.ask(
            GET + b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert statuses(client) == [200, 429]
        assert len(rig.backend.requests) == 1

    def test_behind_a_trusted_proxy_it_is_the_client_behind_it_that_counts(self, make_rig):
        rig = make_rig(trusted=("192.0.2.1",))
        limited(rig, RateLimit(1, "h", 1))
        asked = [
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.%d\r\n\r\n" % host for host in (1, 2, 1)
        ]
        assert statuses(rig.ask(b"".join(asked))) == [200, 200, 429]

    def test_what_an_untrusted_client_says_of_itself_is_not_believed(self, make_rig):
        rig = make_rig()
        limited(rig, RateLimit(1, "h", 1))
        asked = [
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.%d\r\n\r\n" % host for host in (1, 2)
        ]
        assert statuses(rig.ask(b"".join(asked))) == [200, 429]

    def test_a_body_of_a_refused_request_is_not_waited_for(self, make_rig):
        rig = make_rig()
        limited(rig, RateLimit(1, "h", 1))
        client = rig.ask(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 500)
        assert statuses(client) == [200, 429]
        assert client.ended == "closed"

    def test_all_limits_hold_and_what_one_refuses_counts_with_none(self, make_rig):
        rig = make_rig()
        limited(rig, RateLimit(3, "h", 3), RateLimit(1, "s", 1))
        assert statuses(rig.ask(GET * 5)) == [200, 429, 429, 429, 429]
        for expected in ([200], [200], [429]):
            rig.advance(1)
            assert statuses(rig.ask(GET)) == expected

    def test_another_route_has_its_own(self, make_rig):
        rig = make_rig()
        strict = Route(b"/a", rig.balancer, Timeouts(), rate_limits=(RateLimiter(RateLimit(1, "h", 1)),))
        free = Route(b"/", rig.balancer, Timeouts())
        rig.proxy.routes = RouteTable([strict, free])
        client = rig.ask(GET.replace(b"/ ", b"/a ", 1) * 2 + GET * 3)
        assert statuses(client) == [200, 429, 200, 200, 200]


class TestBodies:
    POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

    @pytest.mark.parametrize(
        ("of_all", "of_route", "expected"), [(50, None, 413), (50, 200, 200), (200, 50, 413), (50, 0, 200)]
    )
    def test_the_limit_is_the_routes_or_that_of_all(self, make_rig, of_all, of_route, expected):
        for body in (self.POST + b"x" * 100, self.CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n"):
            rig = make_rig(ScriptedBackend([Step(send=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]))
            rig.proxy.limits = Limits(body=of_all)
            limited(rig, max_body=of_route)
            client = rig.ask(body)
            if expected == 413:
                assert statuses(client) == [413]
                assert b"larger than the 50 octets it may have" in client.received
                assert rig.proxy.admission.refused == {"body": 1}
            else:
                assert (statuses(client), rig.proxy.admission.refused) == ([200], {})

    def test_it_is_told_before_any_of_it_is_sent(self, make_rig):
        rig = make_rig(limits=Limits(body=50))
        assert statuses(rig.ask(self.POST)) == [413]
        assert rig.backend.connections == []


def test_heads_are_counted_by_what_was_wrong(make_rig):
    rig = make_rig(limits=Limits(line=20, head=50, fields=3), timeouts=Timeouts(head=10))
    rig.ask(b"GET /" + b"x" * 50 + b" HTTP/1.1\r\n")
    rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 50 + b"\r\n\r\n")
    rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: 1\r\n" * 4 + b"\r\n")
    rig.ask(b"GET")
    rig.advance(11)
    assert rig.proxy.admission.refused == {"line": 1, "head": 2, "slow_head": 1}
