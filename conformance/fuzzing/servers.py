"""Targets that read what servers say which nobody proxies: name servers, and answers to probes."""

from ipaddress import ip_address
from typing import Any

from twisted.internet.task import Clock
from twisted.names import dns

from comfyproxy.core.balancing.probing import MAX_BODY, AnswerReader
from comfyproxy.core.names import is_usable, parse_hosts, parse_resolv_conf
from comfyproxy.errors import ProtocolError
from comfyproxy.proxy.nameservers import MAX_ADDRESSES, Found, Question
from conformance.fuzzing.messages import octet_by_octet

NAME = "gpu1"


class Wire(Clock):
    """A reactor whose only socket keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def listenUDP(self, port: int, protocol: Any, **options: Any) -> "Wire":
        """As `IReactorUDP.listenUDP`."""
        protocol.makeConnection(self)
        return self

    def connect(self, host: str, port: int) -> None:
        """As `IUDPTransport.connect`."""

    def write(self, datagram: bytes) -> None:
        """As `IUDPTransport.write`."""
        self.sent.append(datagram)

    def stopListening(self) -> None:
        """As `IListeningPort.stopListening`."""


def name_server(data: bytes) -> None:
    """Datagrams of a name server, under the numbers that it was asked by: addresses, or none."""
    wire = Wire()
    question = Question(wire, ("192.0.2.53", 53), NAME, 1.0)
    found: list[Found | None] = []
    question.answer.addCallback(found.append)
    half = len(data) // 2
    for asked, answer in zip(wire.sent, (data[:half], data[half:]), strict=True):
        if not found:
            question.datagramReceived(asked[:2] + answer, ("192.0.2.53", 53))
    wire.advance(2)
    assert len(found) == 1
    assert wire.getDelayedCalls() == []
    if found[0] is not None:
        addresses, ttl = found[0]
        assert all(str(ip_address(one)) and is_usable(one) for one in addresses)
        assert len(addresses) <= 2 * MAX_ADDRESSES
        assert ttl >= 0


def reply(family: int, *records: Any) -> bytes:
    """What a name server says, without its number."""
    message = dns.Message(answer=1)
    message.addQuery(NAME.encode(), family)
    message.answers = list(records)
    octets: bytes = message.toStr()
    return octets[2:]


def probe_answer(data: bytes) -> None:
    """The answer to a probe: understood alike however it arrives."""
    whole, slow = _read_answer([data]), _read_answer(octet_by_octet(data))
    if whole is None or slow is None:
        assert whole == slow
        return
    assert whole[:2] == slow[:2]
    assert whole[2].startswith(slow[2])
    assert len(slow[2]) <= MAX_BODY


def _read_answer(pieces: list[bytes]) -> tuple[int, bool, bytes] | None:
    """The status, whether it is all there, and the body; ``None`` if it is refused."""
    reader = AnswerReader()
    done = False
    try:
        for piece in pieces:
            if not done:
                done = reader.feed(piece)
    except ProtocolError:
        return None
    return reader.head.status if reader.head else 0, done, reader.body


def names(data: bytes) -> None:
    """``/etc/resolv.conf`` and ``/etc/hosts``: whatever is in them, what is taken are addresses."""
    text = data.decode(errors="replace")
    assert all(ip_address(host) and 0 < port < 65_536 for host, port in parse_resolv_conf(text).servers)
    assert all(ip_address(one) for found in parse_hosts(text).values() for one in found)
