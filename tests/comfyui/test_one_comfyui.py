"""What breaks when a client's requests are spread over several ComfyUI servers, and does not break here."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.core.balancing.backend import Lease

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
PAGE = ("Accept: text/html,application/xhtml+xml,*/*;q=0.8",)
MakeProxy = Callable[..., Any]


def open_socket(proxy: Any, client: str, *lines: str) -> Any:
    return proxy.send("GET", f"/ws?clientId={client}", *UPGRADE, *lines)


def submit(proxy: Any, client: str | None = None, *lines: str, prompt: str | None = None) -> Any:
    members: dict[str, Any] = {"prompt": {}, "client_id": client, "prompt_id": prompt}
    body = json.dumps({name: value for name, value in members.items() if value is not None}).encode()
    return proxy.send("POST", "/prompt", *lines, body=body)


def minted_client(sent: Any) -> str:
    """The id that ComfyUI tells the page in its first status message."""
    return str(sent.rewrite.target.decode().rpartition("=")[2])


def minted_prompt(sent: Any) -> str:
    """The id that ComfyUI answers a submission with."""
    return str(json.loads(sent.rewrite.body)["prompt_id"])


def test_a_client_without_identity_rotates(proxy: Any, servers_of: Callable[..., list[str]]) -> None:
    sent = [proxy.send("GET", "/api/system_stats", "User-Agent: curl/8", "Accept: */*") for _ in range(6)]
    assert servers_of(sent) == ["server1", "server2", "server3"] * 2
    assert {one.cookie for one in sent} == {None}


def test_the_websocket_comes_first_and_the_submissions_follow(proxy: Any) -> None:
    for client in ("mine", "yours", "theirs", "ours"):
        home = open_socket(proxy, client).backend
        assert [submit(proxy, client).backend for _ in range(3)] == [home] * 3


def test_the_submission_comes_first_and_the_websocket_follows(proxy: Any) -> None:
    for client in ("mine", "yours", "theirs", "ours"):
        home = submit(proxy, client).backend
        assert open_socket(proxy, client).backend is home


def test_two_clients_are_on_two_servers(proxy: Any, servers_of: Callable[..., list[str]]) -> None:
    assert servers_of(open_socket(proxy, name) for name in ("a", "b", "c")) == [
        "server1",
        "server2",
        "server3",
    ]


def test_a_result_is_looked_for_where_it_is(proxy: Any) -> None:
    submitted = [submit(proxy) for _ in range(6)]
    assert len({one.backend for one in submitted}) == 3
    for one in submitted:
        assert proxy.send("GET", f"/history/{minted_prompt(one)}").backend is one.backend
        assert proxy.send("GET", f"/api/jobs/{minted_prompt(one)}").backend is one.backend


def test_a_client_that_reconnects_comes_back_to_its_server(proxy: Any) -> None:
    first = proxy.send("GET", "/ws", *UPGRADE)
    proxy.send("GET", "/api/system_stats")
    client = minted_client(first)
    assert open_socket(proxy, client).backend is first.backend
    assert submit(proxy, client).backend is first.backend


def test_a_browser_has_its_page_its_websocket_and_its_files_from_one_server(proxy: Any) -> None:
    page = proxy.send("GET", "/", *PAGE)
    cookie = f"Cookie: {page.cookie}"
    socket = proxy.send("GET", "/ws", *UPGRADE, cookie)
    job = submit(proxy, minted_client(socket), cookie)
    rest = [
        proxy.send("GET", "/assets/index-abc.js", cookie),
        proxy.send("POST", "/upload/image", cookie),
        proxy.send("GET", "/api/userdata/workflows%2Fa.json", cookie),
        proxy.send("PATCH", "/internal/logs/subscribe", cookie, body=b'{"clientId": "x", "enabled": true}'),
        proxy.send("GET", f"/api/jobs/{minted_prompt(job)}", cookie),
    ]
    assert {one.backend for one in (page, socket, job, *rest)} == {page.backend}
    assert {one.cookie for one in (socket, job, *rest)} == {None}


def test_a_subscription_to_logs_goes_to_the_websocket(proxy: Any) -> None:
    home = open_socket(proxy, "mine").backend
    body = b'{"clientId": "mine", "enabled": true}'
    assert proxy.send("PATCH", "/internal/logs/subscribe", body=body).backend is home


def test_two_processes_agree_on_all_that_the_proxy_minted(make_proxy: MakeProxy) -> None:
    here, there = make_proxy(), make_proxy()
    there.send("GET", "/")
    for _ in range(3):
        page = here.send("GET", "/", *PAGE)
        socket = here.send("GET", "/ws", *UPGRADE, f"Cookie: {page.cookie}")
        job = submit(here, minted_client(socket))
        assert there.send("GET", "/api/queue", f"Cookie: {page.cookie}").server == page.server
        assert submit(there, minted_client(socket)).server == page.server
        assert open_socket(there, minted_client(socket)).server == page.server
        assert there.send("GET", f"/history/{minted_prompt(job)}").server == page.server


def test_a_process_with_the_same_servers_in_another_order_agrees_too(make_proxy: MakeProxy) -> None:
    here, there = make_proxy(), make_proxy(servers="http://server3:8188,http://server[1-2]:8188")
    for _ in range(3):
        job = submit(here)
        assert there.send("GET", f"/history/{minted_prompt(job)}").server == job.server


@pytest.mark.parametrize("client", ["minted", "chosen"])
def test_a_removed_server_keeps_its_clients_while_they_are_connected(proxy: Any, client: str) -> None:
    page = proxy.send("GET", "/", *PAGE)
    cookie = f"Cookie: {page.cookie}"
    if client == "minted":
        client = minted_client(proxy.send("GET", "/ws", *UPGRADE, cookie))
    else:
        open_socket(proxy, client, cookie)
    job = submit(proxy, client, cookie, prompt="my-own-id")
    socket = Lease(page.backend)
    assert page.server == job.server == "server1"

    proxy.reload("http://server[2-4]:8188")
    assert proxy.send("GET", "/api/queue", cookie).server == "server1"
    assert submit(proxy, client, cookie).server == "server1"
    assert proxy.send("GET", "/history/my-own-id").server == "server1"
    assert proxy.send("GET", "/", *PAGE).server != "server1"

    socket.release()
    moved = open_socket(proxy, client, cookie)
    assert moved.server != "server1"
    assert moved.cookie == f"comfyproxy={moved.backend.fingerprint}"
    assert submit(proxy, client).server == moved.server
    assert proxy.send("GET", "/api/queue", f"Cookie: {moved.cookie}").server == moved.server


def test_a_client_whose_server_fails_is_whole_again_on_another(proxy: Any) -> None:
    page = proxy.send("GET", "/", *PAGE)
    client = minted_client(proxy.send("GET", "/ws", *UPGRADE, f"Cookie: {page.cookie}"))
    proxy.refusing.add(page.server)
    moved = open_socket(proxy, client, f"Cookie: {page.cookie}")
    job = submit(proxy, client, f"Cookie: {moved.cookie}")
    assert moved.server == job.server != page.server
    assert proxy.send("GET", "/api/queue", f"Cookie: {moved.cookie}").server == moved.server
    assert proxy.send("GET", f"/history/{minted_prompt(job)}").server == moved.server
