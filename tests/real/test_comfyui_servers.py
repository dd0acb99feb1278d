"""Real ComfyUI servers that are missing, die, come back and are taken out while clients work."""

import asyncio
from pathlib import Path

import pytest
import requests
from real_peers.comfyui import (
    ComfyUI,
    output_images,
    owner_of,
    port_of,
    run_picture,
    script_client,
    start_endless_job,
)
from real_peers.processes import free_port
from real_peers.proxy import StartProxy
from real_peers.workflows import picture, unique

pytestmark = [pytest.mark.real, pytest.mark.timeout(90, func_only=True)]


async def test_a_server_that_refuses_connections_costs_a_client_nothing(
    comfyuis: tuple[ComfyUI, ...], proxy: StartProxy
) -> None:
    nobody, nobody_else = (f"http://127.0.0.1:{free_port()}" for _ in "ab")
    balancer = proxy("--url", f"{nobody},{comfyuis[0].url},{nobody_else}")
    for _ in range(3):
        async with script_client(balancer.url) as client:
            await run_picture(client, 0, unique("refused"))


async def test_events_pass_message_by_message_as_they_do_frame_by_frame(
    comfyuis: tuple[ComfyUI, ...], proxy: StartProxy
) -> None:
    balancer = proxy("--url", ",".join(server.url for server in comfyuis), "--websocket", "messages")
    async with script_client(balancer.url) as client:
        prompt_id, received = await run_picture(client, 0xABCDEF, unique("messages"))
        [image] = output_images(await client.history(prompt_id))
    assert received == owner_of(prompt_id, comfyuis).file(image)


async def test_a_client_of_a_server_that_is_taken_out_works_on_until_it_leaves(
    comfyuis: tuple[ComfyUI, ...], proxy: StartProxy, tmp_path: Path
) -> None:
    servers = tmp_path / "servers.txt"
    servers.write_text(comfyuis[0].url)
    balancer = proxy("--file", servers)
    async with script_client(balancer.url) as client:
        prompt_id = await start_endless_job(client)
        servers.write_text(comfyuis[1].url)
        balancer.reload()
        await asyncio.to_thread(balancer.process.wait_for_log, comfyuis[1].url)
        with comfyuis[0].released():
            events = await client.events_of(prompt_id)
        assert "execution_success" in [event["type"] for event in events]
        await run_picture(client, 0, unique("still-there"))

    async with script_client(balancer.url) as client:
        prompt_id, _ = await run_picture(client, 0, unique("after"))
    assert owner_of(prompt_id, comfyuis) is comfyuis[1]


async def test_the_clients_of_a_server_that_dies_go_on_with_another_until_it_is_back(
    comfyuis: tuple[ComfyUI, ...], proxy: StartProxy
) -> None:
    """Where each client has one server: what placement by prompt does is in one_comfyui/test_servers.py."""
    balancer = proxy("--placement", "client", "--url", ",".join(server.url for server in comfyuis))
    async with script_client(balancer.url) as client:
        await start_endless_job(client)
        dies, survives = sorted(comfyuis, key=ComfyUI.is_idle)
        dies.kill()
        with pytest.raises(AssertionError, match="the WebSocket ended"):
            await client.events_until("execution_success")
        client_id = client.client_id
    async with script_client(balancer.url, client_id=client_id) as client:
        prompt_id, _ = await run_picture(client, 0, unique("survived"))
        assert owner_of(prompt_id, (survives,)) is survives

        await asyncio.to_thread(dies.restart)
        another = await client.queue(picture(0, prefix=unique("stays")))
        await client.events_of(another)
        assert owner_of(another, comfyuis) is survives, "the client's WebSocket is there"

    def strangers_get_either() -> bool:
        answers = [requests.get(f"{balancer.url}/system_stats", timeout=10).json() for _ in range(4)]
        return {port_of(answer) for answer in answers} == {dies.port, survives.port}

    await asyncio.to_thread(
        balancer.process.wait_until, strangers_get_either, "work for the one that is back"
    )
