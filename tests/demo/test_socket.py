"""The WebSocket on the wire."""

import json
import struct
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread
from websockets.sync.client import connect

from comfyproxy.demo.events import Event
from comfyproxy.demo.socket import MAXIMUM_MESSAGE

FLAGS = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


def prompt(graph: Any, **fields: Any) -> bytes:
    return json.dumps({"prompt": graph, **fields}).encode()


@pytest_twisted.ensureDeferred
async def test_a_client_without_an_id_is_given_one(lab: Any) -> None:
    server = await lab.serve()
    first, second = await lab.connect(server), await lab.connect(server)
    sids = [(await client.next())["data"]["sid"] for client in (first, second)]
    assert len(set(sids)) == 2
    assert all(len(sid) == 32 for sid in sids)


@pytest_twisted.ensureDeferred
async def test_a_client_keeps_the_id_it_comes_with(lab: Any) -> None:
    client = await lab.connect(await lab.serve(), "?clientId=me")
    assert await client.next() == {
        "type": "status",
        "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "me"},
    }


@pytest_twisted.ensureDeferred
async def test_a_client_that_comes_back_in_mid_job_is_told_the_node(
    lab: Any, sampled_picture: dict[str, Any]
) -> None:
    server = await lab.serve(speed=0.001)
    first = await lab.connect(server, "?clientId=me")
    await lab.ask(server, "POST", "/prompt", prompt(sampled_picture, client_id="me"))
    await first.next("executing")
    await first.leave()
    again = await lab.connect(server, "?clientId=me")
    assert (await again.next())["data"]["status"] == {"exec_info": {"queue_remaining": 1}}
    assert await again.next() == {"type": "executing", "data": {"node": "1"}}


@pytest_twisted.ensureDeferred
async def test_features_are_exchanged_in_the_first_message_only(lab: Any) -> None:
    server = await lab.serve()
    client = await lab.connect(server, "?clientId=me")
    client.sendMessage(b"not json")
    client.sendMessage(b"binary", isBinary=True)
    client.say(FLAGS)
    assert (await client.next("feature_flags"))["data"] == server.machine.installation.features
    assert server.machine.clients.supports("me", "supports_preview_metadata")
    late = await lab.connect(server, "?clientId=late")
    late.say({"type": "hello"})
    late.say(FLAGS)
    await late.leave()
    assert [message["type"] for message in late.received] == ["status"]


@pytest_twisted.ensureDeferred
async def test_a_job_is_followed_to_its_end_with_previews(lab: Any, sampled_picture: dict[str, Any]) -> None:
    server = await lab.serve()
    client = await lab.connect(server, "?clientId=me")
    client.say(FLAGS)
    await client.next("feature_flags")
    await lab.ask(server, "POST", "/api/prompt", prompt(sampled_picture, client_id="me"))
    while (await client.next("executing"))["data"]["node"] is not None:
        pass
    previews = [message for message in client.received if isinstance(message, bytes)]
    assert [struct.unpack_from(">I", frame)[0] for frame in previews] == [4, 4]
    assert previews[-1].rpartition(b"}")[2].startswith(b"\x89PNG")


@pytest.mark.parametrize(("size", "code"), [(MAXIMUM_MESSAGE, 1000), (MAXIMUM_MESSAGE + 1, 1009)])
@pytest_twisted.ensureDeferred
async def test_a_message_of_four_mebibytes_is_too_big(lab: Any, size: int, code: int) -> None:
    client = await lab.connect(await lab.serve())
    client.sendMessage(b"x" * size)
    if code == 1000:
        client.sendClose(1000)
    assert await client.closed == code


@pytest_twisted.ensureDeferred
async def test_a_second_socket_of_one_client_is_lost_with_the_first(lab: Any) -> None:
    server = await lab.serve()
    clients = server.machine.clients
    first, second = [await lab.connect(server, "?clientId=me") for _ in range(2)]
    await second.next("status")
    clients.publish(Event("reaches-the-second", {}), "me")
    assert (await second.next())["type"] == "reaches-the-second"
    await first.leave()
    clients.publish(Event("reaches-nobody", {}), "me")
    await second.leave()
    assert [message["type"] for message in first.received] == ["status"]
    assert [message["type"] for message in second.received] == ["status", "reaches-the-second"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_holds_up_the_others(lab: Any) -> None:
    server = await lab.serve()
    stalled, healthy = await lab.connect(server, "?clientId=stalled"), await lab.connect(server)
    await stalled.next("status")
    stalled.transport.pauseProducing()
    big = Event("big", {"text": "x" * 16_000_000})
    for event in (big, Event("late", {})):
        server.machine.clients.publish(event, None)
    await healthy.next("big")
    healthy.say(FLAGS)
    await healthy.next("feature_flags")  # an answer does not wait in the line
    assert "late" not in [message["type"] for message in healthy.received]
    stalled.transport.resumeProducing()
    await healthy.next("late")
    await stalled.next("late")


@pytest_twisted.ensureDeferred
async def test_a_stalled_client_that_goes_frees_the_others(lab: Any) -> None:
    server = await lab.serve()
    stalled, healthy = await lab.connect(server, "?clientId=stalled"), await lab.connect(server)
    await stalled.next("status")
    stalled.transport.pauseProducing()
    for event in (Event("big", {"text": "x" * 16_000_000}), Event("late", {})):
        server.machine.clients.publish(event, None)
    await healthy.next("big")
    stalled.transport.abortConnection()
    await healthy.next("late")


@pytest_twisted.ensureDeferred
async def test_a_client_of_another_make_gets_compression_and_no_subprotocol(lab: Any) -> None:
    server = await lab.serve()

    def talk() -> tuple[str, str | None, dict[str, Any], dict[str, Any]]:
        url = f"ws://127.0.0.1:{server.port}/api/ws?clientId=me"
        with connect(url, subprotocols=["chat"], proxy=None) as socket:  # type: ignore[list-item]
            extensions = socket.response.headers.get("Sec-WebSocket-Extensions", "")  # type: ignore[union-attr]
            status = json.loads(socket.recv())
            socket.send(json.dumps(FLAGS))
            assert socket.ping().wait(10)
            return extensions, socket.subprotocol, status, json.loads(socket.recv())

    extensions, subprotocol, status, flags = await deferToThread(talk)
    assert "permessage-deflate" in extensions
    assert subprotocol is None
    assert (status["data"]["sid"], flags["type"]) == ("me", "feature_flags")


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_with_events_unread_gets_them_first(lab: Any) -> None:
    server = await lab.serve()
    client = await lab.connect(server)
    await client.next("status")
    client.transport.pauseProducing()
    server.machine.clients.publish(Event("big", {"text": "x" * 16_000_000}), None)
    client.sendClose(1000)
    await lab.ask(server, "GET", "/prompt")  # by its answer the server has seen the close as well
    client.transport.resumeProducing()
    assert await client.closed == 1000
    assert [message["type"] for message in client.received] == ["status", "big"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_about_to_leave_is_sent_nothing_more(lab: Any) -> None:
    server = await lab.serve()
    leaving, staying = await lab.connect(server), await lab.connect(server)
    await staying.next("status")
    leaving.sendMessage(b"x" * (MAXIMUM_MESSAGE + 1))
    while not leaving.closed.called:
        server.machine.clients.publish(Event("tick", {}), None)
        await staying.next("tick")
    assert await leaving.closed == 1009


@pytest_twisted.ensureDeferred
async def test_a_handshake_without_a_key_is_refused(lab: Any) -> None:
    server = await lab.serve()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert (await lab.ask(server, "GET", "/ws?clientId=me", fields=upgrade))[0] == 400
    assert len(server.machine.clients) == 0
