"""What pools `RoundRobinResource` takes, how they change, and how it stops."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource

from comfyproxy.comfyui.router import make_router
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.errors import ConfigError
from comfyproxy.proxy.accesslog import RoutingLog
from comfyproxy.web.resource import RoundRobinResource
from tests.web.messages import GET, OK, fields, get, line

MakeRig = Callable[..., Any]


class TestPool:
    @pytest.mark.parametrize(
        "pool",
        [
            "http://a:1, http://b:1",
            ["http://a:1", "http://b:1"],
            ["http://a:1;http://b:1", "http://a:1"],
            (Address("http", "a", 1), "b:1"),
            Pool("p", [Address("http", "a", 1), Address("http", "b", 1)]),
            Balancer(Pool("p", [Address("http", "a", 1), Address("http", "b", 1)])),
        ],
    )
    def test_it_comes_in_every_form(self, make_rig: MakeRig, pool: Any) -> None:
        rig = make_rig(lambda reactor: RoundRobinResource(pool, reactor=reactor))
        assert [one.url for one in rig.resource.balancer.pool.addresses] == ["http://a:1", "http://b:1"]

    def test_servers_that_do_not_parse_are_told_at_once(self) -> None:
        with pytest.raises(ConfigError, match="RoundRobinResource"):
            RoundRobinResource("http://a:0")

    def test_a_pool_without_servers_answers_503(self, make_rig: MakeRig) -> None:
        rig = make_rig(lambda reactor: RoundRobinResource([], reactor=reactor))
        assert line(rig.ask(GET).read()) == b"HTTP/1.1 503 Service Unavailable"

    def test_without_a_reactor_it_is_the_default_one(self) -> None:
        from twisted.internet import reactor

        resource = RoundRobinResource("http://a:1")
        assert resource.reactor is reactor
        assert IReactorTime.providedBy(resource.reactor)

    def test_a_resource_below_another_takes_turns_with_it_through_a_shared_balancer(
        self, make_rig: MakeRig
    ) -> None:
        balancer = Balancer(Pool("p", [Address("http", "10.0.0.1", 1), Address("http", "10.0.0.2", 1)]))
        root = Resource()

        def build(reactor: Any) -> Resource:
            for place in (b"api", b"ws"):
                root.putChild(place, RoundRobinResource(balancer, reactor=reactor))
            return root

        rig = make_rig(build)
        rig.ask(get(b"/api/x"))
        rig.ask(get(b"/ws"))
        assert rig.dialled == [("10.0.0.1", 1), ("10.0.0.2", 1)]

    def test_a_router_keeps_clients_on_their_servers(self, make_rig: MakeRig) -> None:
        pool = Pool("gpus", [Address("http", f"10.0.0.{number}", 8188) for number in (1, 2, 3)])
        balancer = Balancer(pool, router=make_router("client", pool), keep_host=False)
        rig = make_rig(lambda reactor: RoundRobinResource(balancer, reactor=reactor, comfyui=True))
        body = b'{"client_id": "me", "prompt": {}}'
        prompt = b"POST /prompt HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        client = rig.ask(prompt)
        rig.ask(get(b"/other"))
        rig.ask(prompt)
        assert rig.dialled == [("10.0.0.1", 8188), ("10.0.0.2", 8188), ("10.0.0.1", 8188)]
        server = rig.accept()
        assert b"Host: 10.0.0.1:8188" in fields(server.read())
        server.send(OK)
        assert client.read().endswith(b"ok")

    def test_rates_are_limited(self, make_rig: MakeRig) -> None:
        rig = make_rig(
            lambda reactor: RoundRobinResource(
                "http://10.0.0.1:8188", reactor=reactor, rate_limits=["1/h", "off"]
            )
        )
        rig.ask(get(b"/"))
        answer = rig.ask(get(b"/")).read()
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 3600\r\n" in answer
        assert rig.dialled == [("10.0.0.1", 8188)]

    def test_each_routed_request_has_its_line(self, make_rig: MakeRig) -> None:
        written: list[bytes] = []
        rig = make_rig(
            lambda reactor: RoundRobinResource(
                "http://10.0.0.1:8188", reactor=reactor, log=RoutingLog(reactor, written.append)
            )
        )
        rig.ask(GET)
        rig.reactor.advance(1)
        assert written == [b"[LoadBalancer] Routing request to http://10.0.0.1:8188 (0/1)\n"]


class TestReload:
    def test_survivors_keep_their_connections(self, rig: Any) -> None:
        client = rig.ask(GET)
        first = rig.accept()
        first.send(OK)
        changes = rig.resource.reload("http://10.0.0.1:8188")
        assert [one.host for one in changes.removed] == ["10.0.0.2", "10.0.0.3"]
        first.read()
        client.send(GET)
        assert line(first.read()) == b"GET / HTTP/1.1"

    def test_idle_connections_to_who_went_are_closed_and_answers_on_the_way_are_not(self, rig: Any) -> None:
        rig.ask(GET)
        idle = rig.accept()
        idle.send(OK)
        client = rig.ask(GET)
        busy = rig.accept()
        rig.resource.reload(["http://10.0.0.3:8188"])
        rig.reactor.turn()
        assert (idle.how_closed, busy.how_closed) == ("closed", "")
        busy.send(OK)
        assert client.read() == OK
        assert busy.how_closed == "closed"

    def test_the_new_take_their_turns(self, rig: Any) -> None:
        rig.resource.reload("http://10.0.0.9:1")
        rig.ask(GET)
        assert rig.dialled == [("10.0.0.9", 1)]

    def test_a_mistake_changes_nothing(self, rig: Any) -> None:
        with pytest.raises(ConfigError):
            rig.resource.reload(["http://10.0.0.9:1", "ftp://x"])
        assert len(rig.resource.balancer.pool) == 3

    def test_changes_can_be_seen_before_they_are_applied(self, rig: Any) -> None:
        pool = rig.resource.balancer.pool
        rig.resource.apply(diff(pool.addresses, [Address("http", "10.0.0.9", 1)]))
        assert [one.host for one in pool.addresses] == ["10.0.0.9"]


class TestStop:
    @staticmethod
    def done(rig: Any, stopping: "Deferred[None]") -> bool:
        rig.reactor.turn(5)
        return bool(stopping.called)

    def test_nothing_is_left(self, rig: Any) -> None:
        client = rig.ask(GET)
        server = rig.accept()
        server.send(OK)
        client.leave()
        assert self.done(rig, rig.resource.stop())
        assert server.how_closed == "closed"
        assert rig.timers == []

    def test_requests_without_an_answer_get_503(self, rig: Any) -> None:
        client = rig.ask(GET)
        server = rig.accept()
        stopping = rig.resource.stop()
        assert self.done(rig, stopping)
        assert line(client.read()) == b"HTTP/1.1 503 Service Unavailable"
        assert client.how_closed == "closed"
        assert server.how_closed == "aborted"
        assert rig.timers == []

    def test_answers_on_the_way_are_cut(self, rig: Any) -> None:
        client = rig.ask(GET)
        rig.accept().send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        assert self.done(rig, rig.resource.stop())
        assert client.how_closed == "closed"
        assert rig.timers == []

    def test_what_comes_later_is_refused(self, rig: Any) -> None:
        rig.resource.stop()
        client = rig.ask(GET)
        assert line(client.read()) == b"HTTP/1.1 503 Service Unavailable"
        assert rig.dialled == []
