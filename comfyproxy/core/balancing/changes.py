"""A reload as a value: what differs between two lists of servers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from comfyproxy.core.configuration.addresses import Address


@dataclass(frozen=True, slots=True)
class Changes:
    """What turns one list of addresses into another; ``wanted`` is the whole new list, in its order."""

    wanted: tuple[Address, ...]
    added: tuple[Address, ...]
    removed: tuple[Address, ...]
    altered: tuple[Address, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.altered)

    def lines(self) -> Iterator[str]:
        """One sentence fragment for each difference, for the log."""
        for sign, addresses in (("+", self.added), ("-", self.removed), ("~", self.altered)):
            for address in addresses:
                yield f"{sign} {address.url}"

    def summary(self) -> str:
        """The difference in one line."""
        servers = f"{len(self.wanted)} server{'' if len(self.wanted) == 1 else 's'}"
        if not self:
            return f"no change, {servers}"
        counts = len(self.added), len(self.removed), len(self.altered)
        return "{} added, {} removed, {} altered, {} now".format(*counts, servers)


def diff(old: Iterable[Address], new: Iterable[Address]) -> Changes:
    """What changes from ``old`` to ``new``; its URL is what makes a server the same; doubles count once."""
    before, after = _by_key(old), _by_key(new)
    return Changes(
        wanted=tuple(after.values()),
        added=tuple(address for key, address in after.items() if key not in before),
        removed=tuple(address for key, address in before.items() if key not in after),
        altered=tuple(address for key, address in after.items() if before.get(key, address) != address),
    )


def _by_key(addresses: Iterable[Address]) -> dict[str, Address]:
    addresses = tuple(addresses)
    found = {address.key: address for address in addresses}
    if len(found) < len(addresses):
        found = {}
        for address in addresses:
            found.setdefault(address.key, address)
    return found
