"""A reload as a value: what differs between two lists of servers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from comfyproxy.core.addresses import Address


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
        if not self:
            return f"no change, {len(self.wanted)} servers"
        return (
            f"{len(self.added)} added, {len(self.removed)} removed, {len(self.altered)} altered, "
            f"{len(self.wanted)} servers now"
        )


def diff(old: Iterable[Address], new: Iterable[Address]) -> Changes:
    """What changes from ``old`` to ``new``; a server is the same if its URL is."""
    wanted = tuple(new)
    before = {address.key: address for address in old}
    after = {address.key for address in wanted}
    return Changes(
        wanted=wanted,
        added=tuple(address for address in wanted if address.key not in before),
        removed=tuple(address for key, address in before.items() if key not in after),
        altered=tuple(
            address for address in wanted if address.key in before and before[address.key] != address
        ),
    )
