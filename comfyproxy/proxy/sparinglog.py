"""Log lines that a stranger can cause: each said once in a while, with how often it was so."""

from collections.abc import Hashable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

INTERVAL = 60.0
"""Seconds between two lines about the same."""

MOST_KEYS = 20
"""Different lines in an interval; of more than that, only the number is told, with the next line."""


class SparingLog:
    """Says the same of the same ``key`` at most once in `INTERVAL`, and of `MOST_KEYS` keys at most."""

    def __init__(self, clock: IReactorTime, log: Logger) -> None:
        self._clock = clock
        self._log = log
        self._said: dict[Hashable, tuple[float, int]] = {}
        self._unsaid = 0

    def warn(self, key: Hashable, text: str) -> None:
        """Say ``text``, or count that it was left out."""
        now = self._clock.seconds()
        said, count = self._said.get(key, (None, 0))
        if said is None and not self._has_room(now):
            self._unsaid += 1
        elif said is not None and now - said < INTERVAL:
            self._said[key] = (said, count + 1)
        else:
            self._said[key] = (now, 0)
            unsaid, self._unsaid = self._unsaid, 0
            self._log.warn("{text}{more}", text=text, more=_more(count, unsaid))

    def _has_room(self, now: float) -> bool:
        """Whether one more key can be kept; forgets those of which nothing was said lately."""
        if len(self._said) >= MOST_KEYS:
            for key, (said, count) in tuple(self._said.items()):
                if now - said >= INTERVAL:
                    self._unsaid += count
                    del self._said[key]
        return len(self._said) < MOST_KEYS


def _more(same: int, others: int) -> str:
    counts = [f"{same} more of the same"] * bool(same) + [f"{others} of others"] * bool(others)
    return f" ({' and '.join(counts)} since the last such line)" if counts else ""
