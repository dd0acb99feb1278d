"""curl, requests and aiohttp through the proxy to aiohttp and to Flask under gunicorn.

The proxy runs as for any plain service: `--app http`.
"""

import asyncio
import gzip
import hashlib
import random
import uuid
from collections.abc import AsyncIterator

import aiohttp
import pytest
import requests
from real_peers import installed
from real_peers.content import LARGE, MIB, Content, sha256
from real_peers.curl import curl
from real_peers.processes import ServerProcesses
from real_peers.proxy import Front
from real_peers.services import AiohttpService, GunicornService

pytestmark = [pytest.mark.real, pytest.mark.timeout(60, func_only=True)]

needs_curl = pytest.mark.skipif(installed.why_no_curl() is not None, reason=str(installed.why_no_curl()))


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
