"""Servers that listen, and stop without a trace (`clean_reactor` looks after each test)."""

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.web.client import Agent, HTTPConnectionPool

from comfyproxy.demo.bodies import read_body
from comfyproxy.demo.queue import QueuedPrompt
from comfyproxy.demo.server import SimulatedComfyUI, start_demo_servers, stop_all


@pytest_twisted.ensureDeferred
async def test_demo_servers_have_names_ports_and_colours_of_their_own() -> None:
    servers = await start_demo_servers(reactor, 3, jobs_api=False)
    assert [server.name for server in servers] == ["gpu-1", "gpu-2", "gpu-3"]
    assert len({server.port for server in servers}) == 3
    assert all(server.url == f"http://127.0.0.1:{server.port}" for server in servers)
    hues = sorted(server.machine.installation.hue for server in servers)
    assert min(second - first for first, second in zip(hues, [*hues[1:], hues[0] + 1], strict=True)) > 0.2
    assert not any(server.machine.installation.jobs_api for server in servers)
    await stop_all(servers)


@pytest_twisted.ensureDeferred
async def test_servers_that_did_listen_are_stopped_when_another_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listen, listening = SimulatedComfyUI.listen, []

    def listen_twice_at_most(self: SimulatedComfyUI, *arguments: Any) -> Any:
        if len(listening) == 2:
            return listen(self, listening[0].port)
        listening.append(self)
        return listen(self, *arguments)

    monkeypatch.setattr(SimulatedComfyUI, "listen", listen_twice_at_most)
    with pytest.raises(CannotListenError):
        await start_demo_servers(reactor, 3)
    with pytest.raises(RuntimeError, match="not listening"):
        print(listening[0].url)


@pytest_twisted.ensureDeferred
async def test_a_stopped_server_is_gone_with_its_idle_connections(lab: Any) -> None:
    server = await lab.serve()
    pool = HTTPConnectionPool(reactor)
    url = f"{server.url}/prompt".encode()
    await read_body(await Agent(reactor, pool=pool).request(b"GET", url))
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await Agent(reactor).request(b"GET", url)
    await pool.closeCachedConnections()


@pytest_twisted.ensureDeferred
async def test_a_stopped_server_leaves_a_running_prompt(lab: Any, sampled_picture: dict[str, Any]) -> None:
    server = await lab.serve(speed=0.001)
    client = await lab.connect(server, "?clientId=me")
    server.machine.queue.put(QueuedPrompt(0, "p", sampled_picture, {"client_id": "me"}, ("2",), {}))
    server.machine.worker.wake()
    await client.next("executing")
    await server.stop()
    assert server.machine.queue.running is not None


@pytest_twisted.ensureDeferred
async def test_another_server_can_take_the_same_port(lab: Any) -> None:
    first = await lab.serve()
    port = first.port
    await first.stop()
    second = SimulatedComfyUI("again", reactor)
    await second.listen(port)
    assert second.port == port
    await second.stop()


def test_a_server_that_does_not_listen_has_no_address() -> None:
    server = SimulatedComfyUI("gpu-1", Clock())
    with pytest.raises(RuntimeError, match="gpu-1 is not listening"):
        print(server.port)
    stopped: list[None] = []
    server.stop().addCallback(stopped.append)
    assert stopped == [None]


def test_a_servers_colour_comes_from_its_name() -> None:
    hues = [SimulatedComfyUI(name, Clock()).machine.installation.hue for name in ("a", "a", "b")]
    assert hues[0] == hues[1] != hues[2]
