"""How long prompts take, learned from those that ended.

The same work takes about the same time on the same machine, so an exponentially weighted mean for each kind of
work is kept, in seconds of an average server, and beside it how fast each server is. What has not been seen
yet is taken to be like what is most alike: other work of the same nodes and models, else all work.
"""

from collections import OrderedDict
from collections.abc import Hashable

from comfyproxy.comfyui.workflow import Workflow

MAX_KINDS = 4096
NEW = 0.3
"""What the latest duration counts for in a mean."""

UNKNOWN = 10.0
"""Seconds expected of a prompt while none has ended."""

SHORTEST = 0.01
SLOWEST, FASTEST = 20.0, 0.05
"""Bounds of a server's factor: one odd measurement must not put a server out of use."""


class Durations:
    """Expected seconds by kind of work and by server; servers go by any name that stays."""

    def __init__(self, size: int = MAX_KINDS) -> None:
        self._size = size
        self._means: OrderedDict[Hashable, float] = OrderedDict()
        self._factors: dict[str, float] = {}

    def learn(self, workflow: Workflow, server: str, seconds: float) -> None:
        """A prompt took so long on ``server``, from its start to its end, models loaded before."""
        seconds = max(seconds, SHORTEST)
        known = self._means.get(workflow.kind)
        if known is not None:
            factor = min(max(seconds / known, FASTEST), SLOWEST)
            self._factors[server] = _mean(self._factors.get(server, 1.0), factor)
        normal = seconds / self._factors.get(server, 1.0)
        for key in _keys(workflow):
            before = self._means.pop(key, None)
            self._means[key] = normal if before is None else _mean(before, normal)
        while len(self._means) > self._size:
            self._means.popitem(last=False)

    def expect(self, workflow: Workflow, server: str) -> float:
        """Seconds that ``workflow`` will take on ``server``."""
        factor = self._factors.get(server, 1.0)
        for key in _keys(workflow):
            if (mean := self._means.get(key)) is not None:
                return mean * factor
        return UNKNOWN * factor

    @property
    def average(self) -> float:
        """Seconds that a prompt of which nothing is known will take."""
        return self._means.get(_ALL, UNKNOWN)


_ALL = "any work"


def _keys(workflow: Workflow) -> tuple[Hashable, ...]:
    """From the most alike to the least."""
    return workflow.kind, (workflow.classes, workflow.models), _ALL


def _mean(before: float, new: float) -> float:
    return before + NEW * (new - before)
