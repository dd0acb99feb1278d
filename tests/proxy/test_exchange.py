"""What an exchange does beyond the rules: routes, and what a router may ask of it."""

import pytest

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.balancing.routing import Default, Rewrite
from comfyproxy.core.config import Timeouts
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def get(target: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"GET " + target + b" HTTP/1.1", b"Host: a", *fields, b"", b""))


def answering(*answers: bytes) -> ScriptedBackend:
    return ScriptedBackend([Step(send=answer) for answer in answers])


class Router:
    """Decides as it is told, and remembers what it was asked and shown."""

    drop = frozenset((b"origin",))
    message_key = None

    def __init__(self, decision=None, rewrite=None):
        self.decision = decision or Default()
        self.rewrite = rewrite
        self.placed = []
        self.learned = []

    def route(self, head, body, now):
        return self.decision

    def place(self, head, body, backend, now):
        self.placed.append(backend.url)
        return self.rewrite

    def learn(self, answer, body, backend, now):
        self.learned.append((answer.status, body, backend.url))

    def cookies(self, value):
        return b"; ".join(one for one in value.split(b"; ") if not one.startswith(b"ours="))


@pytest.fixture
def routed(make_rig):
    """A rig with ``/api`` on its first server and everything else nowhere, or on the second."""

    def make(*rest: str, **settings):
        rig = make_rig(answering(OK), answering(OK), **settings)
        pools = [
            Pool(name, [address]) for name, address in zip(("api", "rest"), rig.pool.addresses, strict=True)
        ]
        routes = [Route(b"/api", Balancer(pools[0]), Timeouts(response=10))]
        routes += [Route(prefix.encode(), Balancer(pools[1]), Timeouts(response=100)) for prefix in rest]
        rig.proxy.routes = RouteTable(routes)
        return rig

    return make


def test_a_path_goes_to_the_pool_of_its_route(routed):
    rig = routed("/")
    for target in (b"/api", b"/api/x?y", b"/apix", b"/"):
        assert b"200 OK" in rig.ask(get(target)).received
    assert [len(backend.requests) for backend in rig.backends] == [2, 2]


def test_a_path_without_a_route_is_404_and_the_connection_stays(routed):
    rig = routed()
    client = rig.ask(get(b"/elsewhere") + get(b"/api"))
    first, second = client.received.split(b"HTTP/1.1 ")[1:]
    assert (first[:3], second[:3], client.ended) == (b"404", b"200", "")


def test_each_route_has_its_own_timeouts(routed):
    rig = routed("/")
    rig.backends[0]._scripts = rig.backends[1]._scripts = [()]
    api, rest = rig.ask(get(b"/api")), rig.ask(get(b"/"))
    rig.advance(11)
    assert b" 504 " in api.received
    assert b"within 10 seconds" in api.received
    assert rest.received == b""
    rig.advance(90)
    assert b" 504 " in rest.received


def test_a_reload_changes_routes_for_the_next_request(routed):
    rig = routed("/")
    client = rig.ask(get(b"/"))
    rig.proxy.routes = RouteTable(())
    rig.ask(get(b"/"), client=client)
    assert [part[:3] for part in client.received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404"]


def test_what_a_router_rewrites_is_rewritten_on_every_attempt(make_rig):
    rewrite = Rewrite(target=b"/other?x", body=b"new body", answer_fields=b"Set-Cookie: ours=1\r\nX: 2\r\n")
    router = Router(rewrite=rewrite)
    rig = make_rig(None, ScriptedBackend([Step(after=b"new body", send=OK)]), router=router)
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\nContent-Length: 0\r\n\r\n")
    (request,) = rig.backends[1].requests
    assert request.startswith(b"POST /other?x HTTP/1.1\r\n")
    assert request.endswith(b"Content-Length: 8\r\n\r\nnew body")
    assert b"Origin" not in request
    assert b"\r\nSet-Cookie: ours=1\r\nX: 2\r\n" in client.received
    assert router.placed == ["http://10.0.0.1:8188", "http://10.0.0.2:8188"]


def test_our_own_cookie_does_not_reach_a_backend(make_rig):
    rig = make_rig(router=Router())
    rig.ask(get(b"/", b"cookie: a=1; ours=2; b=3", b"Cookie: ours=4", b"Cookie:c=5"))
    lines = rig.backend.requests[0].split(b"\r\n")
    assert [line for line in lines if line.lower().startswith(b"cookie")] == [
        b"cookie: a=1; b=3",
        b"Cookie:c=5",
    ]


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(("size", "learned"), [(0, True), (5, True), (10, True), (11, False)])
def test_a_router_is_shown_answers_that_are_small_enough(make_rig, size, learned, piece):
    router = Router(rewrite=Rewrite(watch=10))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    rig = make_rig(ScriptedBackend([Step(send=answer, piece=piece)]), router=router)
    client = rig.ask(GET)
    assert client.received.endswith(b"\r\n\r\n" + b"x" * size)
    assert router.learned == ([(200, b"x" * size, "http://10.0.0.1:8188")] if learned else [])


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", b"\r\nx"])
def test_a_router_is_not_shown_answers_of_unknown_length(make_rig, framing):
    router = Router(rewrite=Rewrite(watch=10))
    rig = make_rig(ScriptedBackend([Step(send=b"HTTP/1.1 200 OK\r\n" + framing, end="close")]), router=router)
    rig.ask(GET)
    assert router.learned == []


def test_a_router_is_not_shown_half_an_answer(make_rig):
    router = Router(rewrite=Rewrite(watch=10))
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    rig = make_rig(ScriptedBackend([Step(send=half, end="close")]), router=router)
    rig.ask(GET)
    assert router.learned == []


@pytest.mark.parametrize("how", ["broken", "late"])
def test_a_body_that_fails_after_the_answer_began_cuts_the_answer_off(make_rig, how):
    rig = make_rig(ScriptedBackend(), timeouts=Timeouts(body=60))
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
    (backend,) = rig.backend.connections
    backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n")
    rig.network.run()
    if how == "broken":
        rig.ask(b"nonsense\r\n", client=client)
    else:
        rig.advance(62)
    assert client.received.endswith(b"1\r\ny\r\n")
    assert client.is_gone
    assert (backend.ended, rig.leases) == ("reset", 0)
