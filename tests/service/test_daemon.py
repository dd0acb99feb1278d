"""The service as a daemon runs it: listening, SIGHUP, and leaving nothing behind."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from comfyproxy.errors import ConfigError, Stopping
from comfyproxy.service.daemon import ProxyService
from comfyproxy.service.descriptors import possible_connections
from comfyproxy.service.sources import Sources
from comfyproxy.testing import RawClient
from tests.proxy.lying_name_servers import NameServer

Start = Callable[..., ProxyService]
Get = Callable[..., "Deferred[bytes]"]


@pytest_twisted.ensureDeferred
async def test_requests_rotate_over_the_servers_in_order(
    servers: Any, start_service: Start, get: Get
) -> None:
    urls = [servers.start(name) for name in ("a", "b", "c")]
    service = start_service(url=urls)
    answers = [(await get(service, "/x")).split()[0] for _ in range(6)]
    assert answers == [b"a", b"b", b"c", b"a", b"b", b"c"]


@pytest_twisted.ensureDeferred
async def test_reload_swaps_the_servers_and_says_what_changed(
    servers: Any, start_service: Start, get: Get, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c = (servers.start(name) for name in "abc")
    file = tmp_path / "servers.txt"
    file.write_text(f"{a}\n{b}\n")
    service = start_service(file=[str(file)])
    kept = service.proxy.routes.routes[0].balancer.pool.backends[1]
    file.write_text(f"{b}\n{c} weight=2\n")
    with caplog.at_level("INFO"):
        changes = service.reload()["default"]
    assert ([address.url for address in changes.added], [address.url for address in changes.removed]) == (
        [c],
        [a],
    )
    assert service.proxy.routes.routes[0].balancer.pool.backends[0] is kept
    assert f"+ {c}" in caplog.text
    assert f"- {a}" in caplog.text
    assert {(await get(service)).split()[0] for _ in range(3)} == {b"b", b"c"}


@pytest_twisted.ensureDeferred
async def test_a_broken_source_changes_nothing(
    servers: Any, start_service: Start, get: Get, tmp_path: Path
) -> None:
    file = tmp_path / "servers.txt"
    file.write_text(servers.start("a"))
    service = start_service(file=[str(file)])
    file.write_text("http://gpu[8-1]:8188\n")
    with pytest.raises(ConfigError, match=r"servers\.txt:1:"):
        service.reload()
    assert await get(service) == b"a /"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
@pytest_twisted.ensureDeferred
async def test_sighup_reloads_and_logs_a_mistake_with_its_place(
    servers: Any, start_service: Start, get: Get, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "servers.txt"
    file.write_text(servers.start("a"))
    service = start_service(file=[str(file)])
    file.write_text(servers.start("b"))
    await _hang_up()
    assert await get(service) == b"b /"
    file.write_text("\nnonsense here\n")
    await _hang_up()
    assert "Nothing changes" in caplog.text
    assert "servers.txt:2:" in caplog.text
    assert await get(service) == b"b /"


async def _hang_up() -> None:
    """Send SIGHUP and let the reactor take it."""
    os.kill(os.getpid(), signal.SIGHUP)
    for _ in range(3):
        await deferLater(global_reactor, 0)


@pytest_twisted.ensureDeferred
async def test_stopping_gives_the_old_signal_back(start_service: Start) -> None:
    before = signal.getsignal(signal.SIGHUP)
    service = start_service()
    assert signal.getsignal(signal.SIGHUP) != before
    await service.stopService()
    assert signal.getsignal(signal.SIGHUP) == before


@pytest_twisted.ensureDeferred
async def test_stopping_drains_and_being_stopped_again_means_at_once(
    start_service: Start, silent_server: str
) -> None:
    service = start_service(url=[silent_server])
    client = await _connect(service)
    client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    while not (service.proxy and service.proxy.routes.routes[0].balancer.pool.backends[0].leases):
        await deferLater(global_reactor, 0.01)
    first = service.stopService()
    await deferLater(global_reactor, 0.1)
    assert not first.called
    with pytest.raises(Stopping, match="The proxy is stopping"):
        service.reload()
    await service.stopService()
    await first
    assert client.received.startswith(b"HTTP/1.1 503 ")


@pytest_twisted.ensureDeferred
async def test_a_service_that_was_stopped_starts_again(servers: Any, start_service: Start, get: Get) -> None:
    service = start_service(url=[servers.start("a")])
    await service.stopService()
    service.startService()
    assert await get(service) == b"a /"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts and says nothing."""
    port = global_reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}"
    port.stopListening()


async def _connect(service: ProxyService) -> RawClient:
    endpoint = TCP4ClientEndpoint(global_reactor, "127.0.0.1", service.addresses[0].port)
    return await connectProtocol(endpoint, RawClient())


@pytest_twisted.ensureDeferred
async def test_names_are_asked_of_the_name_servers_that_are_configured(
    servers: Any, start_service: Start, get: Get, tmp_path: Path
) -> None:
    right, wrong = NameServer(global_reactor), NameServer(global_reactor)
    right.know("gpu1.test", "127.0.0.1")
    port = servers.start("a").rpartition(":")[2]
    (tmp_path / "tap.conf").write_text(f'name_server = "127.0.0.1:{wrong.at[1]}"\nresolve_interval = 0\n')
    service = start_service(url=[f"http://gpu1.test:{port}"], config=str(tmp_path / "tap.conf"))
    assert b"no server" in await get(service)
    (tmp_path / "tap.conf").write_text(f'name_server = "127.0.0.1:{right.at[1]}"\nresolve_interval = "1h"\n')
    service.reload()
    assert await get(service) == b"a /"
    assert service.proxy.names.interval == 3600
    for server in (right, wrong):
        await server.port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_taken_port_fails_the_start(start_service: Start, tmp_path: Path) -> None:
    port = start_service().addresses[0].port
    options = {"listen": [f"tcp:{port}:interface=127.0.0.1"]}
    other = ProxyService(global_reactor, Sources(options, {}, str(tmp_path)))
    with pytest.raises(CannotListenError):
        other.privilegedStartService()
    await other.stopService()


@pytest.mark.parametrize("description", ["tcp:abc", "ssl:0:privateKey=missing.pem", "unix:missing/socket"])
@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_makes_no_sense_is_a_mistake_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, description: str
) -> None:
    monkeypatch.chdir(tmp_path)
    service = ProxyService(global_reactor, Sources({"listen": [description]}, {}, str(tmp_path)))
    with pytest.raises(ConfigError, match=f"--listen: cannot listen on '{description}': "):
        service.privilegedStartService()
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_an_access_log_that_cannot_be_opened_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    options = {"access_log_file": "missing/access.log"}
    service = ProxyService(global_reactor, Sources(options, {}, str(tmp_path)))
    with pytest.raises(ConfigError, match=r"--access-log-file: .*access\.log cannot be opened: No such file"):
        service.privilegedStartService()
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_on_reload_it_changes_nothing_and_the_old_one_goes_on(
    servers: Any, start_service: Start, get: Get, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    conf = tmp_path / "tap.conf"
    settings = 'access_log = "combined"\naccess_log_file = "logs/access.log"\nurl = '
    conf.write_text(settings + f'"{servers.start("old")}"\n')
    service = start_service(access_log=None)
    conf.write_text(settings.replace("logs/", "missing/") + f'"{servers.start("new")}"\n')
    with pytest.raises(ConfigError, match="cannot be opened"):
        service.reload()
    assert await get(service, "/after") == b"old /after"
    await service.stopService()
    assert "GET /after" in (logs / "access.log").read_text()


@pytest_twisted.ensureDeferred
async def test_where_to_listen_needs_a_restart_and_says_so(
    start_service: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conf = tmp_path / "tap.conf"
    conf.write_text('listen = ["tcp:0:interface=127.0.0.1"]\n')
    service = start_service(listen=None)
    before = service.addresses
    conf.write_text('listen = ["tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.2"]\n')
    service.reload()
    assert service.addresses == before
    assert "takes a restart" in caplog.text


@pytest_twisted.ensureDeferred
async def test_seed_routes_go_to_the_pool_and_the_rest_to_the_frontend(
    servers: Any, start_service: Start, get: Get
) -> None:
    service = start_service(url=[servers.start("pool")], frontend=servers.start("frontend"))
    for path in (
        "/api/models",
        "/internal/logs",
        "/extensions/a.js",
        "/docs",
        "/templates/x",
        "/workflow_templates",
    ):
        assert (await get(service, path)).split()[0] == b"pool", path
    for path in ("/", "/apix", "/src/main.ts?import", "/@vite/client"):
        assert (await get(service, path)).split()[0] == b"frontend", path


@pytest_twisted.ensureDeferred
async def test_static_serves_a_directory_for_the_rest(
    servers: Any, start_service: Start, get: Get, tmp_path: Path
) -> None:
    pages = tmp_path / "dist"
    pages.mkdir()
    (pages / "index.html").write_text("<p>built</p>")
    service = start_service(url=[servers.start("pool")], static=str(pages))
    assert await get(service, "/") == b"<p>built</p>"
    assert (await get(service, "/api/x")).split()[0] == b"pool"
    assert b"No Such Resource" in await get(service, "/../servers.txt")


class Hello(Protocol):
    """Says what it is and hangs up."""

    def connectionMade(self) -> None:
        self.transport.write(b"hello")
        self.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_tcp_connections_are_balanced(start_service: Start) -> None:
    backend = global_reactor.listenTCP(0, Factory.forProtocol(Hello), interface="127.0.0.1")
    service = start_service(url=[f"tcp://127.0.0.1:{backend.getHost().port}"], tcp=True)
    done: Deferred[bytes] = Deferred()

    class Client(Protocol):
        received = b""

        def dataReceived(self, data: bytes) -> None:
            self.received += data

        def connectionLost(self, reason: Any = None) -> None:
            done.callback(self.received)

    from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

    await connectProtocol(
        TCP4ClientEndpoint(global_reactor, "127.0.0.1", service.addresses[0].port), Client()
    )
    assert await done == b"hello"
    await backend.stopListening()


@pytest_twisted.ensureDeferred
async def test_ten_thousand_servers_are_parsed_and_serving_within_a_second(
    start_service: Start, tmp_path: Path
) -> None:
    file = tmp_path / "servers.txt"
    file.write_text("http://10.[0-3].[0-49].[0-49]:8188\n")
    # Not by the clock: others may have the processor meanwhile.
    began = time.process_time()
    service = start_service(file=[str(file)])
    assert len(service.proxy.routes.routes[0].balancer.pool) == 10_000
    assert time.process_time() - began < 1.0


@pytest_twisted.ensureDeferred
async def test_limits_hold_from_the_start_and_change_with_a_reload(
    servers: Any, start_service: Start, tmp_path: Path
) -> None:
    conf = tmp_path / "limits.conf"
    conf.write_text('websocket = "messages"\nmax_message = "1M"\nmax_connections = 7\nrate_limit = "5/s"\n')
    service = start_service(url=[servers.start("a")], config=str(conf))
    proxy = service.proxy
    assert proxy is not None
    assert proxy.bridges is not None
    (before,) = proxy.routes.routes[0].rate_limits
    assert (proxy.admission.gate.limit, proxy.bridges.max_message) == (7, 1 << 20)
    conf.write_text('websocket = "messages"\nmax_body = "2K"\nrate_limit = ["5/s", "100/m"]\n')
    service.reload()
    (route,) = proxy.routes.routes
    assert proxy.admission.gate.limit == possible_connections()
    assert (proxy.bridges.max_message, route.max_body, route.min_rate) == (128 << 20, 2048, 100)
    assert (len(route.rate_limits), route.rate_limits[0] is before) == (2, True)


def test_more_connections_than_descriptors_are_warned_of(
    start_service: Start, caplog: pytest.LogCaptureFixture
) -> None:
    start_service(max_connections="999999999")
    assert f"enough for {possible_connections()} clients, not for 999999999" in caplog.text
