"""Answers that are given again for a moment: every tab of every client asks for its lists at every event."""

from collections import OrderedDict
from collections.abc import Hashable

LIFETIME = 0.5
"""Seconds. Who asks again after an event gets news at once: `Recent.changed` forgets all that is older."""

MAX_OCTETS = 32 * 1024 * 1024


class Recent:
    """The answers of the last moment, by what was asked."""

    def __init__(self, lifetime: float = LIFETIME, max_octets: int = MAX_OCTETS) -> None:
        self._lifetime = lifetime
        self._left = max_octets
        self._answers: OrderedDict[Hashable, tuple[float, bytes]] = OrderedDict()
        self.version = 0

    def changed(self) -> None:
        """What was asked before now may have another answer."""
        self.version += 1
        while self._answers:
            self._drop()

    def get(self, key: Hashable, now: float) -> bytes | None:
        """The answer to ``key``, if there is a recent one."""
        while self._answers and next(iter(self._answers.values()))[0] <= now:
            self._drop()
        found = self._answers.get(key)
        return None if found is None or found[0] <= now else found[1]

    def put(self, key: Hashable, answer: bytes, version: int, now: float) -> None:
        """Keep ``answer``; the servers were asked at the time ``now``, when `version` was ``version``."""
        if version != self.version or len(answer) > self._left:
            return
        if key not in self._answers:
            self._left -= len(answer)
            self._answers[key] = (now + self._lifetime, answer)

    def _drop(self) -> None:
        _, (_, answer) = self._answers.popitem(last=False)
        self._left += len(answer)
