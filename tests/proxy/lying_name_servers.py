"""Name servers that answer what a test tells them to, on loopback."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns

Answer = Callable[[dns.Message], bytes | None]
"""What is sent for a question, if anything."""


def record(name: str, value: str, ttl: int = 60) -> dns.RRHeader:
    """An A, AAAA or (for a ``value`` that is a name) CNAME record."""
    payload: Any
    if ":" in value:
        payload = dns.Record_AAAA(value, ttl)
    elif value.replace(".", "").isdigit():
        payload = dns.Record_A(value, ttl)
    else:
        payload = dns.Record_CNAME(value, ttl)
    return dns.RRHeader(name.encode(), payload.TYPE, ttl=ttl, payload=payload)


def reply(
    question: dns.Message, records: Sequence[dns.RRHeader] = (), code: int = 0, trunc: int = 0
) -> dns.Message:
    """An answer to ``question``, in due form."""
    message = dns.Message(id=question.id, answer=1, rCode=code, trunc=trunc, maxSize=0)
    message.queries = question.queries
    message.answers = list(records)
    return message


class NameServer(DatagramProtocol):
    """A name server that knows ``records`` (lists by name), or does as ``answer`` says.

    ``asked`` are the names and types that it was asked for.
    """

    noisy = False

    def __init__(self, reactor: Any, host: str = "127.0.0.1") -> None:
        self.records: dict[str, list[dns.RRHeader]] = {}
        self.answer: Answer = self.honest
        self.asked: list[tuple[str, int]] = []
        self.port = reactor.listenUDP(0, self, interface=host)
        self.at = (host, self.port.getHost().port)

    def know(self, name: str, *values: str, ttl: int = 60) -> None:
        """Answer with records of these values when asked for ``name``."""
        self.records[name] = [record(name, value, ttl) for value in values]

    def honest(self, question: dns.Message) -> bytes:
        """What it knows, or that there is no such name."""
        query = question.queries[0]
        name = query.name.name.decode().lower()
        if name not in self.records:
            return reply(question, code=dns.ENAME).toStr()
        own = [one for one in self.records[name] if one.type in (query.type, dns.CNAME)]
        more = [
            other
            for one in own
            if one.type == dns.CNAME
            for other in self.records.get(one.payload.name.name.decode(), ())
            if other.type == query.type
        ]
        return reply(question, own + more).toStr()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        question = dns.Message()
        question.fromStr(datagram)
        query = question.queries[0]
        self.asked.append((query.name.name.decode(), query.type))
        octets = self.answer(question)
        if octets is not None:
            self.transport.write(octets, addr)
