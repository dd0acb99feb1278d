"""Requests and answers on the wire."""

import json
from functools import partial
from socket import create_connection
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread
from twisted.web.client import ResponseFailed


@pytest_twisted.ensureDeferred
async def test_an_answer_is_typed(lab: Any) -> None:
    server = await lab.serve()
    code, fields, body = await lab.ask(server, "GET", "/api/prompt")
    assert (code, json.loads(body)) == (200, {"exec_info": {"queue_remaining": 0}})
    assert fields.getRawHeaders("Content-Type") == ["application/json; charset=utf-8"]


@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_told_in_chunks_of_nothing(lab: Any) -> None:
    server = await lab.serve()

    def ask() -> bytes:
        with create_connection(("127.0.0.1", server.port), 10) as connection:
            connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b"".join(iter(partial(connection.recv, 65536), b""))

    head, _, body = (await deferToThread(ask)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"content-length" not in head.lower()
    assert body == b"0\r\n\r\n"


@pytest_twisted.ensureDeferred
async def test_head_has_the_length_but_no_body(lab: Any) -> None:
    server = await lab.serve()
    code, fields, body = await lab.ask(server, "HEAD", "/prompt")
    assert (code, body) == (200, b"")
    assert fields.getRawHeaders("Content-Length") == ["37"]


@pytest_twisted.ensureDeferred
async def test_a_path_is_taken_as_it_was_sent(lab: Any) -> None:
    server = await lab.serve()
    code, _, body = await lab.ask(server, "POST", "/userdata/workflows%2Fa.json?full_info=true", b"{}")
    assert (code, json.loads(body)["path"]) == (200, "workflows/a.json")
    code, fields, _ = await lab.ask(server, "DELETE", "/userdata/workflows%2Fa.json")
    assert (code, fields.getRawHeaders("Content-Type")) == (204, None)


@pytest_twisted.ensureDeferred
async def test_a_file_can_be_revalidated(lab: Any, flat_picture: dict[str, Any]) -> None:
    server = await lab.serve()
    server.machine.files.save("input", "", "x.png", b"\x89PNG", 1_700_000_000.0)
    _, fields, body = await lab.ask(server, "GET", "/view?filename=x.png&type=input")
    assert body == b"\x89PNG"
    (tag,) = fields.getRawHeaders("ETag")
    code, fields, body = await lab.ask(
        server, "GET", "/view?filename=x.png&type=input", fields={"If-None-Match": tag}
    )
    assert (code, fields.getRawHeaders("ETag"), body) == (304, [tag], b"")


@pytest_twisted.ensureDeferred
async def test_a_body_over_the_limit_is_refused(lab: Any) -> None:
    server = await lab.serve(max_upload_size=1000)
    assert (await lab.ask(server, "POST", "/settings", b'"%s"' % (b"x" * 998)))[0] == 500
    code, _, body = await lab.ask(server, "POST", "/settings", b'"%s"' % (b"x" * 999))
    assert (code, body) == (413, b"Maximum request body size 1000 exceeded.")


@pytest.mark.parametrize("path", ["/", "/prompt", "/nowhere"])
@pytest_twisted.ensureDeferred
async def test_requests_from_another_site_are_forbidden_everywhere(lab: Any, path: str) -> None:
    server = await lab.serve()
    foreign = {"Origin": "http://example.com"}
    assert (await lab.ask(server, "GET", path, fields=foreign))[::2] == (403, b"")
    assert (await lab.ask(server, "GET", path, fields={"Sec-Fetch-Site": "cross-site"}))[0] == 403
    assert (await lab.ask(server, "GET", path, fields={"Origin": server.url}))[0] != 403


@pytest_twisted.ensureDeferred
async def test_a_websocket_from_another_site_is_forbidden_too(lab: Any) -> None:
    server = await lab.serve()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Origin": "http://example.com"}
    assert (await lab.ask(server, "GET", "/ws", fields=upgrade))[0] == 403


@pytest_twisted.ensureDeferred
async def test_the_check_can_be_switched_off(lab: Any) -> None:
    server = await lab.serve(origin_check=False)
    assert (await lab.ask(server, "GET", "/prompt", fields={"Origin": "http://example.com"}))[0] == 200


@pytest_twisted.ensureDeferred
async def test_a_mistake_of_the_simulation_is_a_500_and_logged(
    lab: Any, flush_logged_errors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await lab.serve()
    monkeypatch.delattr(server.machine, "queue")
    code, _, body = await lab.ask(server, "GET", "/queue")
    assert (code, body.startswith(b"500 Internal Server Error")) == (500, True)
    assert len(flush_logged_errors(AttributeError)) == 1


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_stopped_cuts_what_is_under_way(lab: Any) -> None:
    server = await lab.serve()
    client = await lab.connect(server)
    waiting = lab.ask(server, "GET", "/prompt")
    await server.stop()
    assert await client.closed == 1006
    with pytest.raises((ConnectionError, ResponseFailed, RuntimeError)):
        await waiting
