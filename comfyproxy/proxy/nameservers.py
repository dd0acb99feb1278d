"""Asks name servers for the addresses of a name and how long they hold, over UDP (RFC 1035, RFC 3596).

Twisted's own client of names knows neither search domains nor the family that answers late, and asks the next
server only after a silence. Here each question has a socket of its own that is connected to the server, so
the kernel drops what others send; an answer counts if its number and its question are ours.
"""

from collections.abc import Callable
from random import SystemRandom
from socket import AF_INET6, inet_ntop
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns

from comfyproxy.core.names import NameServers, candidates, interleave, is_usable

PATIENCE = 2.0
"""Seconds for one server to answer, if resolv.conf does not say less."""

SECOND_FAMILY = 0.05
"""Seconds that the addresses of one family wait for those of the other (RFC 8305 section 3)."""

MAX_ALIASES = 16
"""Aliases (CNAME) from the name to its addresses."""

MAX_ADDRESSES = 64
"""Addresses of one family that are kept."""

_random = SystemRandom()


class Found(NamedTuple):
    """The addresses of a name, and for how many seconds they hold."""

    addresses: tuple[str, ...]
    ttl: float


class LookupFailed(Exception):
    """No server said anything that could be used; whether the name exists is not known."""


async def look_up(reactor: Any, known: NameServers, name: str) -> Found:
    """The addresses of ``name``, none if it does not exist; raises `LookupFailed`."""
    for full_name in candidates(name, known.search, known.ndots):
        found = await _ask_one_after_the_other(reactor, known, full_name)
        if found.addresses:
            return found
    return Found((), 0)


async def _ask_one_after_the_other(reactor: Any, known: NameServers, name: str) -> Found:
    for _ in range(known.attempts):
        for server in known.servers:
            question = Question(reactor, server, name, min(known.timeout, PATIENCE))
            found = await question.answer
            if found is not None:
                return found
    raise LookupFailed


class Question(DatagramProtocol):
    """Asks ``server`` for both families of addresses of ``name``.

    ``answer`` fires with what was `Found` (no addresses: the name has none) or, if the server cannot be used,
    with ``None``. Cancelling it leaves nothing behind.
    """

    noisy = False
    transport: Any

    def __init__(self, reactor: Any, server: tuple[str, int], name: str, timeout: float) -> None:
        self.answer: Deferred[Found | None] = Deferred(lambda _: self._close())
        self._reactor = reactor
        self._server = server
        self._name = name.lower()
        self._found: dict[int, Found] = {}
        self._asked: dict[int, int] = {}
        self._timer = reactor.callLater(timeout, self._give_up)
        self._port: Any = None
        try:
            self._port = reactor.listenUDP(0, self, interface="::" if ":" in server[0] else "")
        except (OSError, CannotListenError):
            # Out of descriptors, or without this family.
            self._give_up()
        if self.answer.called:
            # It was refused while it was asked.
            self._close()

    def startProtocol(self) -> None:
        """Ask both at once."""
        try:
            self.transport.connect(*self._server)
            for family in (dns.A, dns.AAAA):
                number = _random.randrange(65536)
                self._asked[number] = family
                self.transport.write(self._message(number, family))
        except (OSError, ValueError):
            # No route to it, or no name that fits into a question.
            self._reactor.callLater(0, self._give_up)

    def _message(self, number: int, family: int) -> bytes:
        if not all(0 < len(label) < 64 for label in self._name.split(".")):
            raise ValueError(f"{self._name} is not a name")
        message = dns.Message(id=number, recDes=1)
        message.addQuery(self._name.encode("ascii"), family)
        octets: bytes = message.toStr()
        return octets

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        message = dns.Message()
        try:
            message.fromStr(datagram)
            family = self._family(message)
        except Exception:
            # It raises whatever it comes across in octets that are no message.
            return
        if family is None:
            return
        del self._asked[message.id]
        if message.rCode not in (dns.OK, dns.ENAME):
            self._give_up()
            return
        found = _addresses(message.answers, self._name, family)
        if message.trunc and not found.addresses:
            self._give_up()
            return
        self._found[family] = found
        if not self._asked:
            self._finish()
        elif found.addresses:
            self._timer.reset(SECOND_FAMILY)

    def _family(self, message: dns.Message) -> int | None:
        """Which of our questions ``message`` answers."""
        family = self._asked.get(message.id)
        (query,) = message.queries
        is_ours = message.answer and query.type == family and query.name.name.lower() == self._name.encode()
        return family if is_ours else None

    def connectionRefused(self) -> None:
        """Nobody listens there."""
        self._give_up()

    def _give_up(self) -> None:
        """This server says no more; what it has said of one family is used."""
        if any(found.addresses for found in self._found.values()):
            self._finish()
        elif not self.answer.called:
            self._close()
            self.answer.callback(None)

    def _finish(self) -> None:
        if self.answer.called:
            return
        self._close()
        with_some = [found for found in self._found.values() if found.addresses]
        six, four = (self._found.get(family, Found((), 0)).addresses for family in (dns.AAAA, dns.A))
        ttl = min((found.ttl for found in with_some), default=0)
        self.answer.callback(Found(interleave(six, four), ttl))

    def _close(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        port, self._port = self._port, None
        if port is not None:
            port.stopListening()


def _addresses(records: list[Any], name: str, family: int) -> Found:
    """The addresses that ``name`` has by itself or under its aliases; what else is said is ignored."""
    names, ttls = {name.encode()}, []
    for _ in range(MAX_ALIASES):
        aliases = [one for one in records if one.type == dns.CNAME and one.name.name.lower() in names]
        found = {one.payload.name.name.lower() for one in aliases} - names
        if not found:
            break
        names |= found
        ttls += [one.ttl for one in aliases]
    own = [one for one in records if one.type == family and one.name.name.lower() in names]
    show: Callable[[Any], str] = _show_four if family == dns.A else _show_six
    addresses = dict.fromkeys(show(one.payload) for one in own)
    usable = tuple(address for address in addresses if is_usable(address))[:MAX_ADDRESSES]
    return Found(usable, min([*ttls, *(one.ttl for one in own)], default=0))


def _show_four(payload: Any) -> str:
    text: str = payload.dottedQuad()
    return text


def _show_six(payload: Any) -> str:
    return inet_ntop(AF_INET6, payload.address)
