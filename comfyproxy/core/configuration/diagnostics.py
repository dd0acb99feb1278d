"""What errors and warnings about the configuration are made of: a place in a source, and a way out."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from comfyproxy.errors import ConfigError


class Place(NamedTuple):
    """A position in a source of configuration: a file, an option (``--url``) or a variable.

    ``line`` and ``column`` count from 1; ``None`` where the source has none or the position is not known. A
    place is pinned if the characters after it cannot be counted, because escapes or the like shift them.
    """

    source: str
    line: int | None = None
    column: int | None = None
    pinned: bool = False

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)

    @property
    def origin(self) -> str:
        """Source and line: as much as one needs to find a server again."""
        return self.source if self.line is None else f"{self.source}:{self.line}"

    def at(self, offset: int) -> "Place":
        """The place ``offset`` characters further on in the same line, as far as that can be told."""
        if self.column is None or self.pinned or not offset:
            return self
        return Place(self.source, self.line, self.column + offset)

    def pin(self) -> "Place":
        """The same place, whatever offsets are added to it."""
        return self._replace(pinned=True)

    def error(self, message: str) -> ConfigError:
        """An error that points here, to be raised by the caller."""
        return ConfigError(message, self.source, self.line, self.column)


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """Something in the configuration that works but was hardly meant so."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all of them if none is near."""
    known = sorted(known)
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
