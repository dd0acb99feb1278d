"""Plain HTTP services that restart, die, close their connections, or stand behind TLS or plain TCP.

The proxy runs as for any plain service: `--app http`.
"""

import asyncio
import datetime
import ipaddress
import random
from pathlib import Path

import aiohttp
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from real_peers import installed
from real_peers.content import Content, sha256
from real_peers.curl import curl
from real_peers.load import steady_load
from real_peers.processes import ServerProcesses
from real_peers.proxy import StartProxy
from real_peers.services import AiohttpService, GunicornService

pytestmark = [pytest.mark.real, pytest.mark.timeout(60, func_only=True)]


@pytest.mark.parametrize("change", ["replace_worker", "kill_worker"])
async def test_a_new_gunicorn_worker_takes_over_under_load_and_no_get_is_lost(
    processes: ServerProcesses, content: Content, proxy: StartProxy, change: str
) -> None:
    service = GunicornService(processes, content.path, "--threads", "16")
    balancer = proxy("--app", "http", "--url", service.url)
    async with steady_load(f"{balancer.url}/process", clients=8) as load:
        for _ in range(3):
            await load.answered(100)
            await asyncio.to_thread(getattr(service, change))
        await load.answered(100)
    load.assert_nothing_lost(but_cut=change == "kill_worker")
    assert len(load.answers) >= 4, "the answers name one process for each worker there was"
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
    load.assert_nothing_lost(but_cut=end == "kill")
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
        for _ in range(3):
            async with session.get(f"{balancer.url}/process") as response:
                assert response.status == 200
            await asyncio.sleep(pauses.uniform(0.9, 2.1))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(60)))
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


@pytest.mark.skipif(installed.why_no_curl() is not None, reason=str(installed.why_no_curl()))
def test_plain_tcp_carries_uploads_and_downloads(
    processes: ServerProcesses, content: Content, proxy: StartProxy
) -> None:
    service = AiohttpService(processes, content.path)
    balancer = proxy("--tcp", "--url", service.url.replace("http", "tcp"))
    assert (
        content.sha256.encode() in curl("--upload-file", str(content.path), f"{balancer.url}/digest").stdout
    )
    assert sha256(curl("--http1.0", f"{balancer.url}/stream").stdout) == content.sha256
    processes.stop(service.process)


def test_a_service_with_tls_is_believed_only_if_its_certificate_is_good(
    processes: ServerProcesses, content: Content, proxy: StartProxy, tmp_path: Path
) -> None:
    certificate, key = self_signed_certificate(tmp_path)
    options = ("--certfile", certificate, "--keyfile", key, "--threads", "4")
    service = GunicornService(processes, content.path, *options)
    url = service.url.replace("http", "https")

    trusting = proxy("--app", "http", "--url", url, "--insecure-backends")
    answer = requests.put(f"{trusting.url}/digest", data=content.data, timeout=30).json()
    assert answer["sha256"] == content.sha256

    careful = proxy("--app", "http", "--url", url)
    assert requests.get(f"{careful.url}/process", timeout=20).status_code in {502, 503}
    processes.stop(service.process)


def self_signed_certificate(directory: Path) -> tuple[str, str]:
    """Make a key and a certificate for 127.0.0.1 that nobody vouches for; returns their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a service of the tests")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(addresses, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return str(paths[0]), str(paths[1])
