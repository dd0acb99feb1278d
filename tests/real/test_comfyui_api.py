"""Scripts that use the API of a real ComfyUI, through the proxy in front of two of them.

The proxy runs with its defaults, but where a test is about placement by client.
"""

import asyncio
import json
import time
import urllib.parse
import urllib.request
import uuid
from collections import Counter

import aiohttp
import pytest
import requests
import websockets.asyncio.client
import websockets.exceptions
import websockets.sync.client
import yarl
from real_peers import installed
from real_peers.comfyui import (
    MAX_UPLOAD_MIB,
    ComfyUI,
    output_images,
    owner_of,
    port_of,
    run_picture,
    script_client,
    start_endless_job,
)
from real_peers.curl import curl
from real_peers.pools import released
from real_peers.proxy import DIRECT, Front, StartProxy, websocket_url
from real_peers.workflows import Workflow, picture, preview_of_upload, unique

pytestmark = [pytest.mark.real, pytest.mark.timeout(90, func_only=True)]

ALL_TAKEN_FOR_UP = ("--probe", "none")
"""For tests that count who gets what: a server that a busy machine keeps from answering is passed over."""

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def pool(comfyuis: tuple[ComfyUI, ...]) -> tuple[ComfyUI, ...]:
    """The servers behind the address under test: both, or only the first when there is no proxy."""
    return comfyuis[:1] if DIRECT else comfyuis


@pytest.fixture(scope="module")
def url(front: Front, pool: tuple[ComfyUI, ...]) -> str:
    """The address under test."""
    return front(*(server.url for server in pool))


@pytest.fixture(scope="module")
def url_by_client(front: Front, pool: tuple[ComfyUI, ...]) -> str:
    """The address under test of a proxy that leaves each client on one server."""
    return front(*(server.url for server in pool), options=("--placement", "client", *ALL_TAKEN_FOR_UP))


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_script_gets_its_events_its_history_and_its_picture(
    url: str, pool: tuple[ComfyUI, ...], prefix: str
) -> None:
    async with script_client(f"{url}{prefix}") as client:
        prompt_id = await client.queue(picture(0x3366CC, prefix=unique("script")))
        events = await client.events_of(prompt_id)
        record = await client.history(prompt_id)
        [image] = output_images(record)
        received = await client.view(image)

    kinds = [event["type"] for event in events]
    assert kinds.index("execution_start") < kinds.index("executed") < kinds.index("execution_success")
    [executed] = [event["data"] for event in events if event["type"] == "executed"]
    assert executed["output"]["images"] == [image]
    assert record["status"]["status_str"] == "success"
    assert received.startswith(PNG)
    assert received == owner_of(prompt_id, pool).file(image)


def run_official_script(url: str, colour: int, prefix: str) -> tuple[str, dict[str, str], bytes]:
    """What ComfyUI's own websockets_api_example.py does: urllib, a WebSocket with a clientId, and no cookies.

    Returns the prompt id, the image that its history names, and the bytes that GET /view gave for it.
    """

    def get(path: str, **query: str) -> bytes:
        with urllib.request.urlopen(f"{url}{path}?{urllib.parse.urlencode(query)}", timeout=20) as answer:
            body: bytes = answer.read()
            return body

    client_id = str(uuid.uuid4())
    with websockets.sync.client.connect(f"{websocket_url(url)}/ws?clientId={client_id}") as socket:
        body = {"prompt": picture(colour, prefix=prefix), "client_id": client_id}
        request = urllib.request.Request(f"{url}/prompt", data=json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=20) as answer:
            prompt_id = json.load(answer)["prompt_id"]
        while True:
            message = json.loads(socket.recv(timeout=20))
            if message["type"] == "executing" and message["data"] == {"node": None, "prompt_id": prompt_id}:
                break
    [image] = output_images(json.loads(get(f"/history/{prompt_id}"))[prompt_id])
    return prompt_id, image, get("/view", **image)


def test_scripts_that_keep_no_cookies_get_their_own_pictures_though_names_repeat(
    url: str, pool: tuple[ComfyUI, ...]
) -> None:
    """Two servers count their files alike: every second script's picture has the name of another's."""
    prefix = unique("official")
    for colour in (0xCC0000, 0x00CC00, 0x0000CC, 0xCCCCCC):
        prompt_id, image, received = run_official_script(url, colour, prefix)
        assert received == owner_of(prompt_id, pool).file(image)


def test_a_stateless_script_polls_its_prompt_to_the_end(url: str) -> None:
    """No WebSocket, no client_id, no cookies: the prompt id is all that ties the requests to one server."""
    workflow = picture(0x336633, prefix=unique("stateless"))
    prompt_id = requests.post(f"{url}/prompt", json={"prompt": workflow}, timeout=20).json()["prompt_id"]
    deadline = time.monotonic() + 30
    while not (history := requests.get(f"{url}/history/{prompt_id}", timeout=20).json()):
        assert time.monotonic() < deadline, (
            "30 s of GET /history/{prompt_id}, and the prompt is in no history"
        )
        time.sleep(0.05)
    assert history[prompt_id]["status"]["completed"] is True


async def test_eight_clients_at_once_each_get_their_own_events_from_evenly_used_servers(
    url_by_client: str, pool: tuple[ComfyUI, ...]
) -> None:
    async def two_pictures(number: int) -> tuple[list[str], set[str]]:
        async with script_client(url_by_client) as client:
            prompts = [await client.queue(picture(number, prefix=unique(f"eight{number}"))) for _ in "ab"]
            events = [event for prompt_id in prompts for event in await client.events_of(prompt_id)]
            return prompts, {event["data"]["prompt_id"] for event in events if "prompt_id" in event["data"]}

    results = await asyncio.gather(*(two_pictures(number) for number in range(8)))

    for prompts, seen in results:
        assert seen == set(prompts)
    owners = [[owner_of(prompt, pool).port for prompt in prompts] for prompts, _ in results]
    assert all(first == second for first, second in owners), "a client's two prompts ran on different servers"
    assert Counter(first for first, _ in owners) == {server.port: 8 // len(pool) for server in pool}


async def test_clients_whose_servers_give_the_same_file_name_each_get_their_own_picture(url: str) -> None:
    prefix = unique("same-name")
    async with script_client(url) as one, script_client(url) as other:
        runs = run_picture(one, 0xFF0000, prefix), run_picture(other, 0x00FF00, prefix)
        (_, red), (_, green) = await asyncio.gather(*runs)
    assert red != green


async def test_an_uploaded_picture_can_be_loaded_by_a_workflow_of_the_same_client(url: str) -> None:
    async with script_client(url) as client:
        _, drawn = await run_picture(client, 0x123456, unique("to-upload"))
        name = f"{unique('upload')}.png"
        form = aiohttp.FormData()
        form.add_field("image", drawn, filename=name, content_type="image/png")
        async with client.session.post(f"{url}/upload/image", data=form) as response:
            assert await response.json() == {"name": name, "subfolder": "", "type": "input"}
        prompt_id = await client.queue(preview_of_upload(name))
        await client.events_of(prompt_id)
        [image] = output_images(await client.history(prompt_id))
        assert image["type"] == "temp"
        assert (await client.view(image)).startswith(PNG)
        assert await client.view({"filename": name, "subfolder": "", "type": "input"}) == drawn


@pytest.mark.parametrize("keeps_cookies", [True, False], ids=["same session", "only the prompt id"])
async def test_a_running_job_is_interrupted_by_its_prompt_id(url: str, keeps_cookies: bool) -> None:
    async with script_client(url) as client, aiohttp.ClientSession() as other:
        prompt_id = await start_endless_job(client)
        session = client.session if keeps_cookies else other
        async with session.post(f"{url}/interrupt", json={"prompt_id": prompt_id}) as response:
            assert response.status == 200
        events = await client.events_of(prompt_id)
        record = await client.history(prompt_id)
    assert "execution_interrupted" in [event["type"] for event in events]
    assert record["status"]["completed"] is False


async def test_an_interrupt_without_an_id_stops_only_the_server_of_the_client_that_sent_it(
    url: str, pool: tuple[ComfyUI, ...]
) -> None:
    if len(pool) < 2:
        pytest.skip("needs two servers")
    async with script_client(url) as impatient, script_client(url) as patient:
        interrupted, undisturbed = await start_endless_job(impatient), await start_endless_job(patient)
        async with impatient.session.post(f"{url}/interrupt", json={}) as response:
            assert response.status == 200
        await impatient.events_of(interrupted)
        with released(pool):
            await patient.events_of(undisturbed)
        assert (await impatient.history(interrupted))["status"]["completed"] is False
        assert (await patient.history(undisturbed))["status"]["completed"] is True


async def test_a_waiting_job_is_taken_from_the_queue(url_by_client: str) -> None:
    """Where each client has one server: elsewhere a second job need not wait."""
    url = url_by_client
    async with script_client(url) as client:
        running = await start_endless_job(client)
        waiting = await client.queue(picture(0, prefix=unique("never")))
        await client.session.post(f"{url}/queue", json={"delete": [waiting]})
        await client.session.post(f"{url}/interrupt", json={"prompt_id": running})
        await client.events_of(running)
        async with client.session.get(f"{url}/queue") as response:
            assert await response.json() == {"queue_running": [], "queue_pending": []}
        async with client.session.get(f"{url}/history/{waiting}") as response:
            assert await response.json() == {}


async def test_a_client_that_reconnects_during_its_job_gets_the_rest_of_its_events(
    url: str, pool: tuple[ComfyUI, ...]
) -> None:
    client_id = uuid.uuid4().hex
    async with script_client(url, client_id=client_id) as client:
        prompt_id = await start_endless_job(client)
    async with script_client(url, client_id=client_id) as client:
        *before, at_once = await client.events_until("executing")
        assert at_once["data"]["node"], (
            "ComfyUI tells a client that comes back which node of its job is executing"
        )
        assert all(event["data"]["prompt_id"] == prompt_id for event in before), (
            "what else may be said first tells of that job again: a pool does, ComfyUI does not"
        )
        with released(pool):
            events = await client.events_of(prompt_id)
        assert "execution_success" in [event["type"] for event in events]
        assert len(output_images(await client.history(prompt_id))) == 1


async def test_a_picture_is_served_with_ranges_heads_and_revalidation(url: str) -> None:
    async with script_client(url) as client:
        prompt_id = await client.queue(picture(0x808080, prefix=unique("view")))
        await client.events_of(prompt_id)
        [image] = output_images(await client.history(prompt_id))
        whole = await client.view(image)
        view, session = f"{url}/view", client.session

        async with session.get(view, params=image, headers={"Range": "bytes=8-23"}) as response:
            assert response.status == 206
            assert response.headers["Content-Range"] == f"bytes 8-23/{len(whole)}"
            assert await response.read() == whole[8:24]
        async with session.get(view, params=image, headers={"Range": f"bytes={len(whole)}-"}) as response:
            assert response.status == 416
        async with session.head(view, params=image) as response:
            assert response.status == 200
            assert int(response.headers["Content-Length"]) == len(whole)
            etag = response.headers["ETag"]
        async with session.get(view, params=image, headers={"If-None-Match": etag}) as response:
            assert response.status == 304
            assert await response.read() == b""
        assert await client.view(image) == whole, "the connection still works after answers without a body"


async def test_a_workflow_saved_under_a_path_with_an_encoded_slash_is_found_again(url: str) -> None:
    """ComfyUI takes one segment, `workflows%2Fa.json`: a proxy that decodes the path makes it a 404."""
    path = f"/api/userdata/workflows%2F{unique('saved')}.json"
    address = yarl.URL(f"{url}{path}", encoded=True)
    async with script_client(url) as client:
        async with client.session.post(address, json={"nodes": []}) as response:
            assert response.status == 200
        async with client.session.get(address) as response:
            assert await response.json(content_type=None) == {"nodes": []}


def test_the_whole_list_of_node_types_arrives(url: str, pool: tuple[ComfyUI, ...]) -> None:
    """Some megabyte of JSON, which ComfyUI takes half a second to make."""
    through, straight = (
        requests.get(f"{base}/object_info", timeout=20).json() for base in (url, pool[0].url)
    )
    assert through.keys() == straight.keys()


@pytest.mark.parametrize("path", ["/prompt", "/upload/image"])
def test_a_body_over_the_limit_of_comfyui_gets_its_413(url: str, path: str) -> None:
    limit = MAX_UPLOAD_MIB * 2**20
    form = {"image": ("large.png", bytes(limit + 1), "image/png")}
    response = requests.post(f"{url}{path}", files=form, timeout=30)
    assert response.status_code == 413
    assert str(limit) in response.text


def test_an_invalid_workflow_gets_the_explanation_of_comfyui(url: str) -> None:
    workflow: Workflow = {"1": {"class_type": "NoSuchNode", "inputs": {}}}
    response = requests.post(f"{url}/prompt", json={"prompt": workflow}, timeout=20)
    assert response.status_code == 400
    assert "NoSuchNode" in response.json()["error"]["message"]


@pytest.mark.skipif(installed.why_no_curl() is not None, reason=str(installed.why_no_curl()))
def test_curl_six_times_visits_the_servers_in_turn_and_the_console_says_so(
    comfyuis: tuple[ComfyUI, ...], proxy: StartProxy
) -> None:
    urls = ",".join(server.url for server in comfyuis)
    balancer = proxy("--placement", "client", *ALL_TAKEN_FOR_UP, "--url", urls)

    answers = [json.loads(curl(f"{balancer.url}/system_stats").stdout) for _ in range(6)]

    first, second = (server.port for server in comfyuis)
    assert [port_of(answer) for answer in answers] == [first, second] * 3
    for index, server in enumerate(comfyuis):
        balancer.process.wait_for_log(f"[LoadBalancer] Routing request to {server.url} ({index}/2)")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 200, id="a script"),
        pytest.param({"Origin": "{url}", "Sec-Fetch-Site": "same-origin"}, 200, id="the page itself"),
        pytest.param({"Sec-Fetch-Site": "none"}, 200, id="typed in the address bar"),
        pytest.param(
            {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403, id="another site"
        ),
        pytest.param(
            {"Sec-Fetch-Site": "cross-site"},
            403,
            id="a link from another site",
            marks=pytest.mark.skipif(DIRECT, reason="this ComfyUI is older than that check (0.19)"),
        ),
        pytest.param({"Origin": "http://evil.example"}, 403, id="another site, old browser"),
        pytest.param({"Origin": "http://127.0.0.1:9"}, 403, id="another port of this machine"),
        pytest.param(
            {"Host": "comfy.example", "Origin": "https://comfy.example", "Sec-Fetch-Site": "same-origin"},
            200,
            id="the page itself, by a public name and through TLS",
        ),
    ],
)
def test_requests_of_other_sites_are_refused_and_those_of_the_page_are_not(
    url: str, headers: dict[str, str], status: int
) -> None:
    given = {name: value.format(url=url) for name, value in headers.items()}
    workflow = picture(0, prefix=unique("origin"))
    assert requests.get(f"{url}/queue", headers=given, timeout=20).status_code == status
    assert (
        requests.post(f"{url}/prompt", json={"prompt": workflow}, headers=given, timeout=20).status_code
        == status
    )


async def test_a_websocket_of_another_site_is_refused(url: str) -> None:
    address = f"{websocket_url(url)}/ws?clientId={uuid.uuid4().hex}"
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await websockets.asyncio.client.connect(address, origin=websockets.Origin("http://evil.example"))
    assert refused.value.response.status_code == 403
    async with websockets.asyncio.client.connect(address, origin=websockets.Origin(url)) as socket:
        assert json.loads(await socket.recv())["type"] == "status"
