"""Servers come and go with SIGHUP while the daemon works: nothing is lost, and what runs goes on."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from real_peers.load import steady_load
from real_peers.named_service import BLOCK, NamedService, serve_named
from real_peers.proxy import DIRECT, BackgroundProxy, StartProxy

pytestmark = [pytest.mark.real, pytest.mark.timeout(60, func_only=True)]


class ServersFile:
    """The file that names the servers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def name(self, *services: NamedService) -> None:
        """Write a line for each of these; the file is replaced in one step, as editors and tools do."""
        new = self.path.with_suffix(".new")
        new.write_text("# the pool\n" + "".join(f"{service.url}\n" for service in services))
        new.replace(self.path)


@pytest.fixture
def servers_file(tmp_path: Path) -> ServersFile:
    return ServersFile(tmp_path / "servers.txt")


PLAIN = ("--app", "http", "--placement", "request")


async def test_servers_come_and_go_under_load_and_no_request_is_lost(
    proxy: StartProxy, servers_file: ServersFile
) -> None:
    async with serve_named("a", "b", "c") as [a, b, c]:
        servers_file.name(a, b)
        balancer = proxy(*PLAIN, "--file", servers_file.path)
        async with steady_load(f"{balancer.url}/name", clients=8) as load:
            await load.answered_by("a", times=20)
            await load.answered_by("b", times=20)
            assert load.answers["c"] == 0
            for _ in range(5):
                servers_file.name(b, c)
                balancer.reload()
                await load.answered_by("c", times=load.answers["c"] + 20)
                await load.answered_without("a")
                servers_file.name(a, b)
                balancer.reload()
                await load.answered_by("a", times=load.answers["a"] + 20)
                await load.answered_without("c")
        load.assert_nothing_lost()


async def test_a_websocket_and_a_download_live_on_when_their_server_is_removed(
    proxy: StartProxy, servers_file: ServersFile
) -> None:
    async with serve_named("old", "new") as [old, new], aiohttp.ClientSession() as session:
        servers_file.name(old)
        balancer = proxy(*PLAIN, "--file", servers_file.path)
        async with (
            session.ws_connect(f"{balancer.url}/echo") as socket,
            session.get(f"{balancer.url}/slow", params={"blocks": "20"}) as download,
        ):
            old.let_go(10)
            assert await download.content.readexactly(10 * len(BLOCK)) == BLOCK * 10

            servers_file.name(new)
            balancer.reload()
            async with steady_load(f"{balancer.url}/name", clients=1) as load:
                await load.answered_by("new")
            load.assert_nothing_lost()

            await socket.send_str("still there?")
            assert await socket.receive_str(timeout=10) == "old: still there?"
            old.let_go(10)
            assert await download.content.read() == BLOCK * 10


async def test_a_broken_file_changes_nothing_and_the_log_says_where_it_is_broken(
    proxy: StartProxy, servers_file: ServersFile
) -> None:
    async with serve_named("a", "b") as [a, b]:
        servers_file.name(a)
        balancer = proxy(*PLAIN, "--file", servers_file.path)
        servers_file.path.write_text(f"{b.url}\nhttp://127.0.0.1:818[8-0]\n")
        async with steady_load(f"{balancer.url}/name", clients=2) as load:
            await load.answered(10)
            balancer.reload()
            where = f"{servers_file.path.name}:2"
            log = await asyncio.to_thread(balancer.process.wait_for_log, where)
            await load.answered(20)
            assert load.answers["b"] == 0
            servers_file.name(b)
            balancer.reload()
            await load.answered_by("b")
        load.assert_nothing_lost()
        assert "backwards" in log


async def test_a_file_that_is_gone_changes_nothing(proxy: StartProxy, servers_file: ServersFile) -> None:
    async with serve_named("a") as [a]:
        servers_file.name(a)
        balancer = proxy(*PLAIN, "--file", servers_file.path)
        printed = len(balancer.process.log_text())
        servers_file.path.unlink()
        balancer.reload()
        await asyncio.to_thread(balancer.process.wait_for_log, servers_file.path.name, after=printed)
        async with steady_load(f"{balancer.url}/name", clients=1) as load:
            await load.answered(5)
        load.assert_nothing_lost()
        assert list(load.answers) == ["a"]


def test_the_difference_is_logged(proxy: StartProxy, servers_file: ServersFile) -> None:
    servers_file.path.write_text("http://127.0.0.1:[9001-9003]\n")
    balancer = proxy(*PLAIN, "--file", servers_file.path)
    printed = len(balancer.process.log_text())
    servers_file.path.write_text("http://127.0.0.1:[9002-9004]\n")
    balancer.reload()
    log = balancer.process.wait_for_log("http://127.0.0.1:9004", after=printed)
    assert "http://127.0.0.1:9001" in log
    assert "http://127.0.0.1:9002" not in log, "what stays is no difference"


@pytest.fixture
def background_proxy(tmp_path: Path) -> Iterator[Callable[..., BackgroundProxy]]:
    """Starts one daemon in the background, from `home` and with paths relative to it."""
    if DIRECT:
        pytest.skip("COMFYPROXY_REAL_DIRECT is set, and this is about the proxy itself")
    started: list[BackgroundProxy] = []
    (tmp_path / "run").mkdir()

    def start(home: Path, *arguments: str, **environment: str) -> BackgroundProxy:
        started.append(BackgroundProxy(home, tmp_path / "run", arguments, environment))
        started[-1].wait()
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()


@pytest.mark.parametrize("way", ["option", "environment", ".env"])
async def test_a_daemon_in_the_background_finds_its_relative_file_again(
    tmp_path: Path, background_proxy: Callable[..., BackgroundProxy], way: str
) -> None:
    """It was started in `home` and works in `run`: the file in `home` is meant, then and later."""
    home = tmp_path / "home"
    (home / "conf").mkdir(parents=True)
    servers_file = ServersFile(home / "conf" / "servers.txt")
    arguments = ["--file", "conf/servers.txt"] if way == "option" else []
    environment = {"DEV_SERVER_COMFYUI_FILE": "conf/servers.txt"} if way == "environment" else {}
    if way == ".env":
        (home / ".env").write_text("DEV_SERVER_COMFYUI_FILE=conf/servers.txt\n")
    async with serve_named("before", "after") as [before, after]:
        servers_file.name(before)
        daemon = await asyncio.to_thread(background_proxy, home, *PLAIN, *arguments, **environment)
        async with steady_load(f"{daemon.url}/name", clients=2) as load:
            await load.answered_by("before")
            servers_file.name(after)
            daemon.reload()
            await load.answered_by("after")
        load.assert_nothing_lost()
