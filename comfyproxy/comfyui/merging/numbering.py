"""The numbers in the list of ``GET /history``.

Pages that list by it (ComfyUI's frontend up to 1.32) take of a new list only what has a greater number than
all that they have. Servers number by their own queues; their ends, told by their own clocks and fetched one
after the other, are not in order either where two lists meet.
"""

from collections.abc import Hashable

MAX_KEPT = 20_000
"""Prompts whose numbers are kept because they are not the times of their ends; a server lists 10,000."""

LATEST = 4_102_444_800_000
"""Milliseconds since the epoch: the year 2100. A clock that says more says nothing."""


class EndNumbers:
    """Gives what ends a number: the time of its end in milliseconds, and more where that is too little.

    What a server had not ended when it was last asked gets a greater number than all that was listed.
    """

    def __init__(self) -> None:
        self._greatest = 0
        self._listed: dict[Hashable, float] = {}
        self._kept: dict[tuple[str, float], int] = {}

    def number(self, prompt_id: str, ended: float, server: Hashable) -> int:
        """The number of a prompt that ``server`` ended at ``ended``; it never changes."""
        if (kept := self._kept.get((prompt_id, ended))) is not None:
            return kept
        number = int(ended) if ended < LATEST else 0
        if number <= self._greatest and ended > self._listed.get(server, ended):
            number = self._greatest + 1
            self._kept[prompt_id, ended] = number
            if len(self._kept) > MAX_KEPT:
                del self._kept[next(iter(self._kept))]
        self._greatest = max(self._greatest, number)
        return number

    def listed(self, server: Hashable, ended: float) -> None:
        """``server`` has been listed up to what it ended at ``ended``; 0 if it had ended nothing."""
        self._listed[server] = max(ended, self._listed.get(server, 0.0))
