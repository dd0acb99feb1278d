"""curl, requests and aiohttp through the proxy to aiohttp and to Flask under gunicorn.

The proxy runs as for any plain service: `--app http`.
"""

import asyncio
import gzip
import hashlib
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import requests
from real_peers import installed
from real_peers.curl import curl
from real_peers.load import steady_load
from real_peers.processes import ServerProcesses
from real_peers.proxy import Front, StartProxy
from real_peers.services import AiohttpService, GunicornService

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

MIB = 2**20
LARGE = 64 * MIB

needs_curl = pytest.mark.skipif(installed.why_no_curl() is not None, reason=str(installed.why_no_curl()))


@dataclass(frozen=True)
class Content:
    """The large file that the services serve and the clients send."""

    path: Path
    data: bytes
    sha256: str


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """64 MiB in which a lost, doubled or swapped block changes the hash."""
    data = random.Random(0).randbytes(LARGE)
    path = tmp_path_factory.mktemp("content") / "large.bin"
    path.write_bytes(data)
    return Content(path, data, hashlib.sha256(data).hexdigest())


@pytest.fixture(scope="module")
def aiohttp_url(processes: ServerProcesses, content: Content, front: Front) -> str:
    """The address under test for the aiohttp service."""
    return front(AiohttpService(processes, content.path).url, options=("--app", "http"))


@pytest.fixture(scope="module")
def gunicorn_url(processes: ServerProcesses, content: Content, front: Front) -> str:
    """The address under test for Flask under gunicorn, with threads and kept connections."""
    return front(GunicornService(processes, content.path, "--threads", "32").url, options=("--app", "http"))


@pytest.fixture(params=["aiohttp", "gunicorn"])
def url(request: pytest.FixtureRequest) -> str:
    """The address under test, once for each service."""
    address: str = request.getfixturevalue(f"{request.param}_url")
    return address


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@needs_curl
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
@pytest.mark.parametrize("path", ["/file", "/stream"])
def test_curl_downloads(url: str, content: Content, version: str, path: str) -> None:
    assert sha256(curl(version, f"{url}{path}").stdout) == content.sha256


@needs_curl
def test_curl_waits_for_100_continue_and_then_uploads(url: str, content: Content) -> None:
    done = curl(
        *("--verbose", "--header", "Expect: 100-continue", "--expect100-timeout", "25"),
        *("--upload-file", str(content.path), f"{url}/digest"),
    )
    assert b"< HTTP/1.1 100 Continue" in done.stderr
    assert content.sha256.encode() in done.stdout


@needs_curl
def test_curl_keeps_its_body_when_the_service_refuses_it_first(aiohttp_url: str, content: Content) -> None:
    done = curl(
        *("--header", "Expect: 100-continue", "--expect100-timeout", "25", "--write-out", " %{size_upload}"),
        *("--data-binary", f"@{content.path}", f"{aiohttp_url}/refused"),
    )
    assert done.stdout == b"refused before the body 0"


@needs_curl
def test_curl_gets_an_answer_that_comes_before_its_body_is_sent(aiohttp_url: str, content: Content) -> None:
    done = curl(
        *("--header", "Expect:", "--write-out", " %{http_code}"),
        *("--data-binary", f"@{content.path}", f"{aiohttp_url}/refused"),
    )
    assert done.stdout == b"refused while the body came 413"


@needs_curl
def test_curl_uploads_in_chunks_what_it_reads_from_a_pipe(url: str, content: Content) -> None:
    answer = curl("--header", "Expect:", "--upload-file", "-", f"{url}/digest", stdin=content.data).stdout
    assert content.sha256.encode() in answer


@needs_curl
def test_curl_gets_a_range(url: str, content: Content) -> None:
    done = curl("--range", "1000000-1000999", "--write-out", "%{stderr}%{http_code}", f"{url}/file")
    assert done.stdout == content.data[1_000_000:1_001_000]
    assert done.stderr == b"206"


@needs_curl
def test_curl_gets_only_the_head(url: str) -> None:
    head = curl("--head", f"{url}/file").stdout.decode().lower()
    assert head.startswith("http/1.1 200")
    assert f"content-length: {LARGE}" in head


@needs_curl
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_gets_a_compressed_answer_as_the_service_made_it(url: str, version: str) -> None:
    raw = curl(version, "--header", "Accept-Encoding: gzip", f"{url}/compressed").stdout
    assert len(raw) < 10_000
    assert gzip.decompress(raw) == curl(version, "--compressed", f"{url}/compressed").stdout


@needs_curl
def test_curl_sends_several_requests_over_one_connection(url: str) -> None:
    requests_of_one_run = ["--output", "/dev/null", f"{url}/process"] * 5
    assert curl("--write-out", "%{num_connects} ", *requests_of_one_run).stdout == b"1 0 0 0 0 "


def connections_made(session: requests.Session) -> int:
    """How many connections a session for one server has made up to now."""
    adapter = session.get_adapter("http://")
    assert isinstance(adapter, requests.adapters.HTTPAdapter)
    pools = adapter.poolmanager.pools
    [pool] = [pools[key] for key in pools.keys()]  # noqa: SIM118, urllib3's container is no iterable
    made: int = pool.num_connections
    return made


def test_requests_keeps_its_connection(url: str) -> None:
    with requests.Session() as session:
        for _ in range(20):
            assert session.get(f"{url}/process", timeout=20).status_code == 200
        assert connections_made(session) == 1


def test_requests_uploads_from_a_generator(url: str, content: Content) -> None:
    blocks = (content.data[start : start + 100_000] for start in range(0, LARGE, 100_000))
    answer = requests.post(f"{url}/digest", data=blocks, timeout=30).json()
    assert (answer["sha256"], answer["length"]) == (content.sha256, LARGE)


def test_requests_uploads_a_file_with_its_length(url: str, content: Content) -> None:
    with content.path.open("rb") as file:
        answer = requests.put(f"{url}/digest", data=file, timeout=30).json()
    assert answer == {
        "sha256": content.sha256,
        "length": LARGE,
        "Content-Length": str(LARGE),
        "Transfer-Encoding": None,
    }


@pytest.mark.parametrize("path", ["/file", "/stream"])
def test_requests_downloads_block_by_block(url: str, content: Content, path: str) -> None:
    digest = hashlib.sha256()
    with requests.get(f"{url}{path}", stream=True, timeout=30) as response:
        for block in response.iter_content(100_000):
            digest.update(block)
    assert digest.hexdigest() == content.sha256


def test_requests_revalidates_and_keeps_its_connection_after_a_304(url: str) -> None:
    with requests.Session() as session:
        first = session.head(f"{url}/file", timeout=20)
        again = session.get(f"{url}/file", headers={"If-None-Match": first.headers["ETag"]}, timeout=20)
        assert (again.status_code, again.content) == (304, b"")
        assert session.get(f"{url}/process", timeout=20).status_code == 200
        assert connections_made(session) == 1


async def test_a_hundred_aiohttp_requests_at_once_get_the_answers_to_their_own_bodies(url: str) -> None:
    bodies = [random.Random(number).randbytes(100_000 + number) for number in range(100)]

    async def upload(session: aiohttp.ClientSession, body: bytes) -> str:
        async with session.post(f"{url}/digest", data=body) as response:
            digest: str = (await response.json())["sha256"]
            return digest

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session:
        digests = await asyncio.gather(*(upload(session, body) for body in bodies))
    assert digests == [sha256(body) for body in bodies]


async def test_aiohttp_uploads_in_chunks_and_downloads_on_one_connection(url: str, content: Content) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, 4 * MIB, 70_000):
            yield content.data[start : min(start + 70_000, 4 * MIB)]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for _ in range(3):
            async with session.post(f"{url}/digest", data=blocks()) as response:
                assert (await response.json())["sha256"] == sha256(content.data[: 4 * MIB])
            async with session.get(f"{url}/stream") as response:
                assert sha256(await response.read()) == content.sha256


async def test_server_sent_events_arrive_one_by_one(url: str) -> None:
    """The service sends a token only after the one before was acknowledged: one held back stops the test."""
    name = uuid.uuid4().hex
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession() as session,
        session.get(f"{url}/events/{name}", params={"count": "50"}) as events,
    ):
        assert events.content_type == "text/event-stream"
        for number in range(50):
            assert await events.content.readline() == f"data: token {number}\n".encode()
            assert await events.content.readline() == b"\n"
            async with session.post(f"{url}/acknowledge/{name}") as answer:
                assert answer.status == 200
        assert await events.content.read() == b""


async def test_new_gunicorn_workers_take_over_under_load_and_no_get_is_lost(
    processes: ServerProcesses, content: Content, proxy: StartProxy
) -> None:
    service = GunicornService(processes, content.path, "--threads", "16")
    balancer = proxy("--app", "http", "--url", service.url)
    async with steady_load(f"{balancer.url}/process", clients=8) as load:
        for _ in range(3):
            await load.answered(100)
            await asyncio.to_thread(service.restart_workers)
        await load.answered(100)
    assert load.failures == []
    assert len(load.answers) >= 4, "the answers name one process for each generation of workers"
    processes.stop(service.process)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_one_of_two_gunicorns_goes_and_comes_back_under_load_and_no_get_is_lost(
    processes: ServerProcesses, content: Content, proxy: StartProxy, end: str
) -> None:
    stays, goes = (GunicornService(processes, content.path, "--threads", "16") for _ in "ab")
    balancer = proxy("--app", "http", "--placement", "request", "--url", f"{stays.url},{goes.url}")
    async with steady_load(f"{balancer.url}/process", clients=8) as load:
        await load.answered(100)
        await asyncio.to_thread(getattr(goes.process, end))
        await load.answered(100)
        back = GunicornService(processes, content.path, "--threads", "16", port=goes.port)
        await load.answered_by(back.worker)
    assert load.failures == []
    for service in (stays, goes, back):
        processes.stop(service.process)


async def test_a_service_that_closes_idle_connections_after_a_second_costs_no_get(
    processes: ServerProcesses, content: Content, proxy: StartProxy
) -> None:
    """Pauses around gunicorn's keep-alive time make the proxy reuse connections just as they are closed."""
    service = GunicornService(processes, content.path, "--threads", "32", "--keep-alive", "1")
    balancer = proxy("--app", "http", "--url", service.url)
    pauses = random.Random(0)

    async def client(session: aiohttp.ClientSession) -> None:
        for _ in range(6):
            async with session.get(f"{balancer.url}/process") as response:
                assert response.status == 200
            await asyncio.sleep(pauses.uniform(0.9, 2.1))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(30)))
    processes.stop(service.process)


async def test_a_service_that_closes_after_every_answer_loses_no_request(
    processes: ServerProcesses, content: Content, proxy: StartProxy
) -> None:
    """gunicorn's sync worker keeps no connection."""
    service = GunicornService(processes, content.path, "--workers", "2", worker="sync")
    balancer = proxy("--app", "http", "--url", service.url)
    bodies = [b"%d" % number * 1000 for number in range(200)]

    async def upload(session: aiohttp.ClientSession, body: bytes) -> str:
        async with session.post(f"{balancer.url}/digest", data=body) as response:
            digest: str = (await response.json())["sha256"]
            return digest

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=8)) as session:
        digests = await asyncio.gather(*(upload(session, body) for body in bodies))
    assert digests == [sha256(body) for body in bodies]
    processes.stop(service.process)
