"""The addresses of servers' names: asked for when they are needed, kept for as long as they hold.

Where they come from, in this order:

1. ``/etc/hosts``;
2. name servers, those of ``/etc/resolv.conf`` or of ``--name-server``: their answers say how long they hold;
3. the system's own way (getaddrinfo, in a thread), for all that name servers do not know: ``.local`` names,
   directory services, other systems. Not with ``--name-server``.

A connection waits for an answer only where no addresses are known, or for `PATIENCE` where they have run out:
then those that were known last are used, and so they are for as long as nobody knows better. That a name
does not exist is not kept.
"""

from collections.abc import Callable
from contextlib import suppress
from os import stat
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.logger import Logger
from zope.interface import implementer

from comfyproxy.core.config import DEFAULT_RESOLVE_INTERVAL
from comfyproxy.core.names import NameServers, parse_hosts, parse_resolv_conf

PATIENCE = 1.0
"""Seconds that a connection waits for new addresses of a name whose old ones have run out."""

SHORTEST = 1.0
"""Seconds that an answer holds at least, whatever its TTL."""

TRY_AGAIN = 5.0
"""Seconds until a name that could not be resolved is asked for again, where old addresses do meanwhile."""

MAX_NAMES = 20_000
"""Names that are known at a time."""

Told = Callable[[tuple[str, ...]], None]
"""Is told the addresses, none if there are none."""


class _Name:
    """What is known of one name."""

    __slots__ = (
        "addresses",
        "asked",
        "expires",
        "is_asked",
        "is_failing",
        "patience",
        "suspects",
        "turn",
        "waiting",
    )

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self.asked: Deferred[None] | None = None
        self.expires = 0.0
        self.is_asked = False
        self.is_failing = False
        self.patience: Any = None
        self.suspects: set[str] = set()
        self.turn = 0
        self.waiting: list[Told] = []

    def next_order(self) -> tuple[str, ...]:
        """The addresses, each time another one first; those last that did not answer."""
        turn, self.turn = self.turn, self.turn + 1
        start = turn % len(self.addresses) if self.addresses else 0
        order = self.addresses[start:] + self.addresses[:start]
        if not self.suspects:
            return order
        return tuple(sorted(order, key=self.suspects.__contains__))


class Resolver:
    """The addresses of names for one proxy.

    They are kept for their TTL but for no longer than ``interval`` seconds; 0 asks each time. ``servers`` are
    asked in place of the system's.
    """

    log = Logger(namespace="comfyproxy.names")

    def __init__(
        self,
        reactor: Any,
        interval: float = DEFAULT_RESOLVE_INTERVAL,
        servers: tuple[tuple[str, int], ...] = (),
        hosts: str = "/etc/hosts",
        resolv_conf: str = "/etc/resolv.conf",
    ) -> None:
        self.interval = interval
        self.servers = servers
        self._reactor = reactor
        self._hosts = _File(hosts, parse_hosts, {})
        self._resolv_conf = _File(resolv_conf, parse_resolv_conf, NameServers())
        self._names: dict[str, _Name] = {}

    def __len__(self) -> int:
        return len(self._names)

    def resolve(self, host: str, told: Told) -> None:
        """Tell ``told`` the addresses of ``host``, at once where they are known."""
        name = self._names.pop(host, None)
        if name is None:
            name = _Name()
            self._make_room()
        self._names[host] = name
        if name.addresses and self._reactor.seconds() < name.expires:
            told(name.next_order())
            return
        name.waiting.append(told)
        if not name.is_asked:
            name.is_asked = True
            if name.addresses:
                name.patience = self._reactor.callLater(PATIENCE, self._tell, host, name)
            name.asked = Deferred.fromCoroutine(self._ask(host, name))
        elif name.addresses and not name.patience.active():
            self._tell(host, name)

    def suspect(self, host: str, address: str) -> None:
        """``address`` did not answer: try it last until the name is asked for again."""
        name = self._names.get(host)
        if name is not None:
            name.suspects.add(address)

    def stop(self) -> None:
        """Ask for nothing more; who still waits hears nothing."""
        names, self._names = self._names, {}
        for name in names.values():
            name.waiting.clear()
            if name.asked is not None:
                name.asked.cancel()
            _stop(name.patience)

    def _make_room(self) -> None:
        """Forget what was not wanted for longest."""
        if len(self._names) >= MAX_NAMES:
            self._names.pop(next(iter(self._names)))

    async def _ask(self, host: str, name: _Name) -> None:
        try:
            addresses, ttl = await self._look_up(host)
        except CancelledError:
            return
        except Exception:
            self.log.failure("Resolving {host} failed", host=host)
            addresses, ttl = (), 0
        name.is_asked = False
        _stop(name.patience)
        now = self._reactor.seconds()
        if addresses:
            self._note(host, name, False)
            name.addresses = addresses
            name.suspects.clear()
            name.expires = now + min(max(ttl, SHORTEST), self.interval)
        else:
            self._note(host, name, bool(name.addresses))
            name.expires = now + min(TRY_AGAIN, self.interval)
        self._tell(host, name)

    def _note(self, host: str, name: _Name, failing: bool) -> None:
        """Say it once when a name fails that had addresses, and once when it is back."""
        if failing and not name.is_failing:
            known = ", ".join(name.addresses)
            self.log.warn(
                "The name {host} cannot be resolved now; its last addresses are used: {known}.",
                host=host,
                known=known,
            )
        elif name.is_failing and not failing:
            self.log.info("The name {host} can be resolved again.", host=host)
        name.is_failing = failing

    def _tell(self, host: str, name: _Name) -> None:
        """Let all who wait have what is known."""
        waiting, name.waiting = name.waiting, []
        for told in waiting:
            try:
                told(name.next_order())
            except Exception:
                # The others wait all the same.
                self.log.failure("Using the addresses of {host} failed", host=host)

    async def _look_up(self, host: str) -> tuple[tuple[str, ...], float]:
        asks_servers = hasattr(self._reactor, "listenUDP")
        if asks_servers:
            listed = self._hosts.content().get(host.lower().rstrip("."))
            if listed:
                return listed, self.interval
            known = NameServers(self.servers) if self.servers else self._resolv_conf.content()
            if known.servers and not _is_local(host):
                from comfyproxy.proxy.nameservers import LookupFailed, look_up

                with suppress(LookupFailed):
                    found = await look_up(self._reactor, known, host)
                    if found.addresses or self.servers:
                        return found
            if self.servers:
                return (), 0
        return await self._ask_the_system(host), self.interval

    def _ask_the_system(self, host: str) -> "Deferred[tuple[str, ...]]":
        answer: Deferred[tuple[str, ...]] = Deferred()
        resolver = cast(IHostnameResolver, self._reactor.nameResolver)
        resolver.resolveHostName(_Addresses(answer), host)
        return answer


class _File:
    """A file that is read again when it has changed; a missing one is as an empty one."""

    def __init__(self, path: str, parse: Callable[[str], Any], empty: Any) -> None:
        self._path = path
        self._parse = parse
        self._empty = empty
        self._seen: Any = None
        self._content: Any = empty

    def content(self) -> Any:
        """What it says now."""
        try:
            status = stat(self._path)
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._content = self._parse(file.read())
                self._seen = seen
        except OSError:
            self._seen, self._content = None, self._empty
        return self._content


@implementer(IResolutionReceiver)
class _Addresses:
    """Gathers what the system makes of a name, IPv4 and IPv6 in its order."""

    def __init__(self, answer: "Deferred[tuple[str, ...]]") -> None:
        self._answer = answer
        self._hosts: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to prepare."""

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address):
            self._hosts.append(address.host)

    def resolutionComplete(self) -> None:
        if not self._answer.called:
            self._answer.callback(tuple(dict.fromkeys(self._hosts)))


def _is_local(host: str) -> bool:
    """Whether name servers have nothing to say of it (RFC 6761, RFC 6762)."""
    return f".{host.lower().rstrip('.')}".endswith((".localhost", ".local"))


def _stop(timer: Any) -> None:
    if timer is not None and timer.active():
        timer.cancel()
