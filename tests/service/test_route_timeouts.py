"""Each route has its own times: the example of the how-to, a health path with a second and the rest with half
an hour, on servers that do not answer."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import ensureDeferred

from comfyproxy.core.balancing.routes import Route
from comfyproxy.proxy.listeners import HTTPListener
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.service.routing import Routing
from comfyproxy.service.sources import Sources
from comfyproxy.testing import MemoryNetwork, RawClient, ScriptedBackend

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "set-timeouts-and-retries.md"


class Site:
    """The configuration of the guide, carrying traffic in memory; ``backends`` listen at its ports."""

    def __init__(self, directory: Path) -> None:
        (text,) = re.findall(r"```toml\n(.*?/api/system/health.*?)```", GUIDE.read_text(), re.DOTALL)
        (directory / "tap.conf").write_text(text)
        config = Sources({}, {}, str(directory)).load().config
        self.network = MemoryNetwork()
        self.backends = [ScriptedBackend() for _ in range(3)]
        for port, backend in enumerate(self.backends, 5000):
            self.network.listenTCP(port, backend)
        routing = Routing(self.network)
        routing.apply(config)
        self.table = routing.table
        self.proxy = Proxy(self.network, routing.table, timeouts=config.timeouts)
        self._port = self.network.listenTCP(8080, HTTPListener(self.proxy))

    def client(self) -> RawClient:
        return self.network.connect(RawClient(), "127.0.0.1", 8080)

    def ask(self, request: bytes, client: RawClient | None = None) -> RawClient:
        client = client or self.client()
        client.send(request)
        self.network.run()
        return client

    def route(self, target: bytes) -> Route:
        route = self.table.match(target)
        assert route is not None
        return route

    def close(self) -> None:
        self._port.stopListening()
        ensureDeferred(self.proxy.close())
        self.network.run()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def get(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"


def advance(site: Site, seconds: float, step: float = 0.25) -> None:
    end = site.network.seconds() + seconds
    while site.network.seconds() < end:
        site.network.advance(step)


def test_a_health_check_is_answered_within_a_second_whatever_the_server_does(site: Site) -> None:
    health, work = site.ask(get(b"/api/system/health")), site.ask(get(b"/api/documents"))
    advance(site, 0.75)
    assert health.received == b""
    advance(site, 1)
    assert health.received.startswith(b"HTTP/1.1 504 ")
    assert b"within 1 seconds" in health.received
    advance(site, 1790, step=10)
    assert work.received == b""
    advance(site, 20, step=1)
    assert work.received.startswith(b"HTTP/1.1 504 ")
    assert b"within 1800 seconds" in work.received


def test_an_answer_may_pause_for_half_an_hour_where_it_may_and_for_a_second_where_not(site: Site) -> None:
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun"
    health, work = site.ask(get(b"/api/system/health")), site.ask(get(b"/"))
    for backend in site.backends[:2]:
        backend.connections[0].send(begun)
    advance(site, 2)
    assert (health.ended, work.ended) == ("closed", "")
    advance(site, 1790, step=10)
    assert work.ended == ""
    site.backends[1].connections[0].send(b" end")
    site.network.run()
    assert work.received.endswith(b"begun end")


def test_an_upload_may_pause_for_half_an_hour_where_it_may_and_for_a_second_where_not(site: Site) -> None:
    post = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"
    health, work = site.ask(post % b"/api/system/health"), site.ask(post % b"/upload")
    advance(site, 2)
    # Client and server have the same time, and both let it pass.
    assert health.received[9:12] in (b"408", b"504")
    advance(site, 1790, step=10)
    assert work.received == b""
    advance(site, 20, step=1)
    assert work.received[9:12] in (b"408", b"504")


def test_a_server_that_does_not_answer_the_call_is_given_up_after_a_second_for_a_health_check(
    site: Site,
) -> None:
    health, work = site.client(), site.client()
    site.network.silent.add("127.0.0.1")
    site.ask(get(b"/api/system/health"), health)
    site.ask(get(b"/"), work)
    advance(site, 4)
    assert health.received.startswith(b"HTTP/1.1 503 ")
    assert work.received == b""
    advance(site, 130, step=1)
    assert work.received.startswith(b"HTTP/1.1 503 ")


def test_connections_are_kept_for_as_long_as_the_route_of_the_last_request_says(site: Site) -> None:
    """Towards the client and towards the server."""
    kept = site.route(b"/").timeouts
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    health, work = site.ask(get(b"/api/system/health")), site.ask(get(b"/"))
    for backend in site.backends[:2]:
        backend.connections[0].send(ok)
    site.network.run()
    advance(site, 6)
    assert (health.ended, work.ended) == ("closed", "")
    assert [len(backend.open_connections) for backend in site.backends[:2]] == [0, 1]
    advance(site, max(kept.keepalive, kept.backend_keepalive))
    assert work.ended == "closed"
    assert site.backends[1].open_connections == []


def test_every_other_route_has_what_is_set_for_all(site: Site) -> None:
    timeouts = site.route(b"/anything").timeouts
    assert (timeouts.connect, timeouts.body, timeouts.response, timeouts.idle) == (60, 1800, 1800, 1800)
    assert timeouts.queue == site.route(b"/").timeouts.queue == 30
