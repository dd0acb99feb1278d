"""TLS on either side: who is believed, what is logged, and that a connection over it ends as it should."""

import datetime
import ipaddress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from twisted.internet.protocol import ClientFactory
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOFactory

from comfyproxy.core.balancing.operations import Ask
from comfyproxy.core.balancing.probing import HttpProbe
from comfyproxy.core.config import Timeouts
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.proxy.asking import Question
from comfyproxy.proxy.probes import Check, ProbePlan
from comfyproxy.testing import RawClient, Rig, ScriptedBackend, Step
from comfyproxy.testing.rig import HERE, OK, PORT, daemon
from tests.proxy.session_peers import STATUS, Session
from tests.proxy.session_peers import Router as SessionRouter
from tests.proxy.websocket_peers import Backend

# Twisted's CertificateOptions still take the objects that pyOpenSSL would rather not.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"


class Authority:
    """Signs certificates, its own first."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("comfyproxy tests", self._key, [], is_authority=True)

    def server(self, *names: str) -> CertificateOptions:
        """What a server needs to be the one of these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(names[0], key, list(names))
        return CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(key),
            certificate=crypto.X509.from_cryptography(certificate),
        )

    def write(self, path: Path) -> Path:
        """Write the authority's certificate."""
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def _sign(self, name: str, key: Any, names: list[str], is_authority: bool = False) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if is_authority else self.certificate.subject
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(one) for one in names]), False
            )
        return builder.sign(self._key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch) -> Authority:
    """An authority that this machine trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path / "ca.pem")))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return authority


@pytest.fixture
def make_https(make_rig):
    """Makes rigs whose only backend is at ``https://HOST:8443`` and shows a certificate."""

    def make(
        backend: ScriptedBackend, certificate: CertificateOptions, host: str = "gpu1", **settings: Any
    ) -> Rig:
        rig = make_rig(backend, addresses=[Address("https", host, 8443)], **settings)
        rig.network.names["gpu1"] = ["10.0.0.1"]
        rig.network.ports.clear()
        listening = TLSMemoryBIOFactory(certificate, False, backend, rig.network)
        rig.network.listenTCP(8443, listening, interface=host if host != "gpu1" else "10.0.0.1")
        rig.network.listenTCP(PORT, rig.accepting, interface=HERE)
        return rig

    return make


def ok(**options: Any) -> ScriptedBackend:
    return ScriptedBackend([Step(send=OK, **options)])


@pytest.mark.parametrize("host", ["gpu1", "10.0.0.7", "fd00::7"])
def test_a_good_certificate_is_believed(make_https, trusted, host):
    rig = make_https(ok(), trusted.server(host), host)
    client = rig.ask(GET * 2)
    assert client.received.count(b"200 OK") == 2
    assert len(rig.backend.connections) == 1


@pytest.mark.parametrize(
    ("names", "host"), [(["other"], "gpu1"), (["gpu1.example"], "gpu1"), (["10.0.0.8", "gpu1"], "10.0.0.7")]
)
def test_a_certificate_of_another_name_is_not(make_https, trusted, caplog, names, host):
    rig = make_https(ok(), trusted.server(*names), host)
    client = rig.ask(POST)
    assert client.received.startswith(b"HTTP/1.1 503 ")
    assert rig.backend.requests == []
    assert "8443" in caplog.text


def test_a_certificate_of_an_unknown_authority_is_not(make_https, trusted, caplog):
    rig = make_https(ok(), Authority().server("gpu1"))
    client = rig.ask(GET)
    assert client.received.startswith(b"HTTP/1.1 503 ")
    assert rig.backend.requests == []
    assert "certificate" in caplog.text


@pytest.mark.parametrize("host", ["gpu1", "10.0.0.7"])
def test_without_verification_whoever_answers_is_believed(make_https, trusted, host):
    rig = make_https(ok(), Authority().server("anybody"), host, verify=False)
    assert rig.ask(GET).received.startswith(b"HTTP/1.1 200 OK")


def test_the_server_is_told_which_name_is_meant(make_https, trusted):
    options = trusted.server("gpu1")
    named = []
    options.getContext().set_tlsext_servername_callback(
        lambda connection: named.append(connection.get_servername())
    )
    rig = make_https(ok(), options, verify=False)
    rig.ask(GET)
    assert named == [b"gpu1"]


def test_what_is_not_tls_is_as_good_as_refused(make_rig, trusted):
    plain = ScriptedBackend([Step(after=b"", send=b"HTTP/1.1 400 This is plain HTTP\r\n\r\n")])
    rig = make_rig(plain, addresses=[Address("https", "10.0.0.1", 8443)])
    assert rig.ask(POST).received.startswith(b"HTTP/1.1 503 ")


def test_a_handshake_that_takes_too_long_is_as_good_as_refused(make_rig, trusted):
    silent = ScriptedBackend()
    rig = make_rig(silent, addresses=[Address("https", "10.0.0.1", 8443)], timeouts=Timeouts(connect=5))
    client = rig.ask(POST)
    rig.advance(4.9)
    assert client.received == b""
    rig.advance(0.2)
    assert client.received.startswith(b"HTTP/1.1 503 ")
    assert silent.open_connections == []


def test_a_client_that_leaves_during_the_handshake_ends_it(make_rig, trusted):
    silent = ScriptedBackend()
    rig = make_rig(silent, addresses=[Address("https", "10.0.0.1", 8443)])
    client = rig.ask(GET)
    client.close()
    rig.network.run()
    assert (silent.open_connections, rig.leases) == ([], 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
    ],
)
def test_a_connection_that_is_done_with_is_closed(make_https, trusted, answer):
    rig = make_https(ScriptedBackend([Step(send=answer)]), trusted.server("gpu1"))
    assert rig.ask(GET).received.endswith(b"\r\n\r\nok")
    assert rig.backend.open_connections == []


def test_an_idle_connection_is_closed_in_time(make_https, trusted):
    rig = make_https(ok(), trusted.server("gpu1"), timeouts=Timeouts(backend_keepalive=55))
    rig.ask(GET)
    rig.advance(54)
    assert len(rig.backend.open_connections) == 1
    rig.advance(2)
    assert rig.backend.open_connections == []


def test_an_answer_until_the_end_is_complete_when_tls_says_so(make_https, trusted):
    rig = make_https(
        ScriptedBackend([Step(send=b"HTTP/1.1 200 OK\r\n\r\nhello", end="close")]), trusted.server("gpu1")
    )
    assert rig.ask(GET).received.endswith(b"5\r\nhello\r\n0\r\n\r\n")


def test_an_answer_until_the_end_is_cut_short_when_only_the_connection_ended(make_https, trusted):
    rig = make_https(ScriptedBackend([Step(send=b"HTTP/1.1 200 OK\r\n\r\nhello")]), trusted.server("gpu1"))
    client = rig.ask(GET)
    # The socket under TLS is closed without the word of TLS.
    rig.backend.connections[0].transport.transport.loseConnection()
    rig.network.run()
    assert client.received.endswith(b"5\r\nhello\r\n")
    assert client.is_gone


def test_much_passes_both_ways(make_https, trusted):
    body = b"x" * 3_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + body
    rig = make_https(ScriptedBackend([Step(after=b"end", send=answer)]), trusted.server("gpu1"))
    client = rig.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000003\r\n\r\n" + body + b"end")
    assert client.received.endswith(body)
    assert rig.backend.requests[0].endswith(body + b"end")


def test_a_slow_client_stops_a_backend_over_tls(make_https, trusted):
    rig = make_https(ScriptedBackend(), trusted.server("gpu1"))
    client = rig.ask(GET)
    client.pause()
    backend = rig.backend.connections[0]
    backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000)
    rig.network.run()
    assert rig.held < 300_000
    client.resume()
    rig.network.run()
    assert client.received.endswith(b"x" * 5_000_000)


class SecureFront:
    """The daemon's front behind TLS."""

    def __init__(self, certificate: CertificateOptions) -> None:
        self._certificate = certificate

    def __call__(self, network: Any, balancer: Any, **settings: Any) -> tuple[Any, Any]:
        proxy, accepting = daemon(network, balancer, **settings)
        return proxy, TLSMemoryBIOFactory(self._certificate, False, accepting, network)


@pytest.fixture
def secure(make_rig, trusted):
    """Makes rigs whose clients come over TLS."""

    def make(*backends: Any, **settings: Any) -> Rig:
        return make_rig(*backends, front=SecureFront(trusted.server("here")), **settings)

    return make


def connect(rig: Rig, **options: Any) -> RawClient:
    """A client that has connected over TLS."""
    client = RawClient()
    factory = ClientFactory()
    factory.protocol = lambda: client
    wrapped = TLSMemoryBIOFactory(optionsForClientTLS("here", **options), True, factory, rig.network)
    rig.network.connectTCP(HERE, PORT, wrapped, timeout=None, bindAddress=("192.0.2.1", 0))
    rig.network.run()
    rig.clients.append(client)
    return client


def test_a_client_may_ask_for_protocols_of_which_one_is_ours(secure):
    rig = secure(ok())
    client = connect(rig, acceptableProtocols=[b"h2", b"http/1.1"])
    assert client.transport.negotiatedProtocol == b"http/1.1"
    assert rig.ask(GET, client=client).received.startswith(b"HTTP/1.1 200 ")


def test_a_client_over_tls_is_said_to_be_one(secure):
    rig = secure()
    client = rig.ask(GET, client=connect(rig))
    assert client.received.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\nX-Forwarded-Proto: https\r\n" in rig.backend.requests[0]
    assert b"\r\nX-Forwarded-For: 192.0.2.1\r\n" in rig.backend.requests[0]


def test_a_client_over_tls_may_keep_its_connection_or_close_it(secure):
    rig = secure()
    client = rig.ask(GET, client=connect(rig))
    rig.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), client=client)
    assert client.received.count(b"200 OK") == 2
    assert client.ended == "closed"


def test_a_client_over_tls_gets_to_read_a_refusal(secure):
    rig = secure()
    client = connect(rig)
    rig.ask(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n" + b"x" * 100_000, client=client)
    assert client.received.startswith(b"HTTP/1.1 400 ")
    assert client.ended == "closed"
    assert client.transport.line.outgoing.dropped == 0


def test_who_makes_no_handshake_is_closed_in_time(secure):
    rig = secure(timeouts=Timeouts(head=30))
    client = rig.client()
    rig.advance(31)
    assert (client.received, client.is_gone) == (b"", True)


def test_who_speaks_plainly_to_tls_is_closed(secure):
    rig = secure()
    assert rig.ask(GET).is_gone
    assert rig.backend.requests == []


def test_who_leaves_takes_the_request_along(secure):
    rig = secure(ScriptedBackend())
    client = rig.ask(GET, client=connect(rig))
    assert rig.leases == 1
    client.close()
    rig.network.run()
    assert (rig.leases, rig.backend.open_connections) == (0, [])


def checked(rig: Rig, probe: Any) -> tuple[bool, str, bool]:
    """What a check of the rig's only backend says."""
    said: list[tuple[bool, str, bool]] = []
    plan = ProbePlan(probe, timeout=5.0)
    Check(
        rig.network,
        rig.pool.backends[0],
        plan,
        lambda verdict, slow: said.append((verdict.ok, verdict.reason, slow)),
    ).start()
    rig.advance(6)
    assert rig.backend.open_connections == []
    return said[0]


@pytest.mark.parametrize("probe", [HttpProbe("/"), None])
def test_a_check_is_made_over_tls(make_https, trusted, probe):
    rig = make_https(ok(), trusted.server("gpu1"))
    assert checked(rig, probe)[0]


def test_a_check_of_a_server_with_anothers_certificate_fails(make_https, trusted):
    rig = make_https(ok(), trusted.server("other"))
    assert checked(rig, None) == (False, "its certificate is for another name", False)


def test_a_check_of_a_server_whose_certificate_nobody_knows_fails(make_https, trusted):
    rig = make_https(ok(), Authority().server("gpu1"))
    assert checked(rig, None) == (False, "TLS: certificate verify failed", False)


def test_a_check_of_a_server_that_leaves_in_the_handshake_fails(make_rig, trusted):
    leaves = ScriptedBackend([Step(after=b"", end="close")])
    rig = make_rig(leaves, addresses=[Address("https", "10.0.0.1", 8443)])
    assert checked(rig, None) == (False, "it closed the connection during the handshake", False)


def test_a_check_does_not_wait_for_a_server_that_never_ends_its_tls(make_https, trusted):
    rig = make_https(ScriptedBackend([Step(send=OK)], stays_open=True), trusted.server("gpu1"))
    assert checked(rig, HttpProbe("/"))[0]


def test_a_check_of_a_server_that_takes_the_connection_and_no_handshake_is_slow(make_rig, trusted):
    rig = make_rig(ScriptedBackend(), addresses=[Address("https", "10.0.0.1", 8443)])
    assert checked(rig, None) == (False, "no answer within 5 s", True)


def test_the_proxy_asks_over_tls_too(make_https, trusted):
    rig = make_https(ok(), trusted.server("gpu1"))
    replies = []
    ask = Ask(rig.pool.backends[0], b"GET", b"/queue")
    Question(rig.proxy, rig.balancer, ask, replies.append).start(ask.timeout)
    rig.network.run()
    assert (replies[0].status, replies[0].body) == (200, b"ok")


def test_a_certificate_that_is_not_believed_is_no_reply(make_https, trusted):
    rig = make_https(ok(), Authority().server("gpu1"))
    replies = []
    ask = Ask(rig.pool.backends[0], b"POST", b"/prompt")
    Question(rig.proxy, rig.balancer, ask, replies.append).start(ask.timeout)
    rig.network.run()
    assert (replies[0].status, replies[0].was_sent) == (0, False)


def test_a_session_s_connection_may_be_over_tls(make_https, trusted):
    session = Session()
    rig = make_https(Backend(), trusted.server("gpu1"), router=SessionRouter(session))
    rig.proxy.background.follow([rig.balancer])
    session.wanted = [rig.pool.backends[0]]
    rig.advance(1)
    rig.backends[0].socket.say(STATUS)
    session.sends[rig.pool.backends[0]](b"x" * 300_000, True)
    rig.network.run()
    assert session.heard == ["opened 0", (0, STATUS.encode(), False)]
    assert rig.backends[0].socket.messages == [b"x" * 300_000]
    session.wanted = []
    rig.advance(1)
    assert rig.backends[0].socket.closed_with[0] == 1000
    assert rig.backends[0].socket.is_gone
    rig.proxy.background.stop()
