"""The PROXY protocol with HAProxy, whose it is: before this proxy as the sender, behind it as the receiver.

client 127.0.0.2 ──▶ HAProxy ──▶ comfyproxy ──▶ HAProxy, which answers with what it was told
"""

import datetime
import http.client
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from real_peers import installed
from real_peers.processes import ServerProcesses, free_port
from real_peers.proxy import DIRECT, StartProxy

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(60, func_only=True),
    pytest.mark.skipif(installed.why_no_haproxy() is not None, reason=str(installed.why_no_haproxy())),
    pytest.mark.skipif(DIRECT, reason="this is about the proxy itself"),
]

CLIENT = "127.0.0.2"
SENDING = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v2 with fields": "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
    "v2 over TLS": "send-proxy-v2-ssl-cn",
}

CONFIGURATION = """\
defaults
  timeout connect 5s
  timeout client 5s
  timeout server 5s
{sending}
frontend behind
  mode http
  bind 127.0.0.1:{behind} accept-proxy
  bind 127.0.0.1:{behind_tls} accept-proxy ssl crt {certificate}
  unique-id-format %ci
  http-request return status 200 content-type text/plain lf-string "{answer}"
"""

SENDER = """
frontend before-{number}
  mode tcp
  unique-id-format %ci
  bind 127.0.0.1:{port}{tls}
  default_backend us-{number}
backend us-{number}
  mode tcp
  server us 127.0.0.1:{us} {how}
"""

ANSWER = "%ci %[req.hdr(x-forwarded-for)] %[req.hdr(x-forwarded-proto)]"


class HAProxies:
    """The ports of one HAProxy that stands before and behind port ``us``."""

    def __init__(self, processes: ServerProcesses, directory: Path) -> None:
        self.us = free_port()
        self.before = {name: free_port() for name in SENDING}
        self.behind, self.behind_tls = free_port(), free_port()
        certificate = directory / "both.pem"
        write_certificate(certificate)
        sending = "".join(
            SENDER.format(
                number=number,
                port=self.before[name],
                us=self.us,
                how=how,
                tls=f" ssl crt {certificate}" if "TLS" in name else "",
            )
            for number, (name, how) in enumerate(SENDING.items())
        )
        configuration = directory / "haproxy.cfg"
        configuration.write_text(
            CONFIGURATION.format(
                sending=sending,
                behind=self.behind,
                behind_tls=self.behind_tls,
                certificate=certificate,
                answer=ANSWER,
            )
        )
        process = processes.start("haproxy", ["haproxy", "-db", "-f", configuration])
        process.wait_for_port(self.behind)


def write_certificate(path: Path) -> None:
    """A key and a certificate that it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture(scope="module", params=["v1", "v2", "v1 before TLS"])
def haproxies(
    request: pytest.FixtureRequest,
    processes: ServerProcesses,
    tmp_path_factory: pytest.TempPathFactory,
    start_proxy: StartProxy,
) -> HAProxies:
    """HAProxy before and behind, and the daemon between, which sends each version in turn."""
    haproxies = HAProxies(processes, tmp_path_factory.mktemp("haproxy"))
    version, _, tls = request.param.partition(" ")
    server = f"https://127.0.0.1:{haproxies.behind_tls}" if tls else f"http://127.0.0.1:{haproxies.behind}"
    start_proxy(
        *("--url", server, "--app", "http", "--insecure-backends", "--send-proxy-protocol", version),
        *("--listen", f"tcp:{haproxies.us}:interface=127.0.0.1"),
        *("--trusted-proxy", "127.0.0.1", "--accept-proxy-protocol"),
    )
    return haproxies


@pytest.mark.parametrize("sender", SENDING)
def test_haproxy_and_we_agree_on_whose_a_connection_is(haproxies: HAProxies, sender: str) -> None:
    port = haproxies.before[sender]
    client: http.client.HTTPConnection
    if "TLS" in sender:
        context = ssl._create_unverified_context()
        client = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=10, source_address=(CLIENT, 0), context=context
        )
    else:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(CLIENT, 0))
    scheme = "https" if "TLS" in sender else "http"
    for _ in range(3):
        client.request("GET", "/")
        answer = client.getresponse()
        assert (answer.status, answer.read().decode()) == (200, f"{CLIENT} {CLIENT} {scheme}")
    client.close()
