"""How long prompts take and how long their models take to load, learned from prompts that ended.

The same work takes about the same time on the same machine, so an exponentially weighted mean for each kind
of work is kept, in seconds of an average server, and beside it how fast each server is. What has not been
seen yet is taken to be like what is most alike: other work of the same nodes and models, else all work.

Where models had to be loaded first, only the sum of both times is seen. What is beyond the kind's own time,
as far as that is known, was the loading; the time of a kind that is not known yet is a guess until the same
work was seen without loading, and then tells afterwards how long the loading was.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from comfyproxy.comfyui.workflow import Workflow

MAX_KINDS = 4096
NEW = 0.3
"""What the latest measurement counts for in a mean."""

UNKNOWN = 10.0
"""Seconds expected of a prompt while none has ended."""

LOADING = 8.0
"""Seconds that loading models is expected to need while none has been seen."""

SHORTEST = 0.01
SLOWEST, FASTEST = 20.0, 0.05
"""Bounds of a server's factor: one odd measurement must not put a server out of use."""

REPEATED = 0.03
"""What a much shorter run of the same work of the same client counts for: ComfyUI runs only the nodes whose
inputs have changed (``execution.py``), so it says little of the next one."""

RUNNING_AT_LEAST = 0.2
"""The share of a measured time that is taken to be running, however long the loading was expected to need."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured of one prompt: ``seconds`` from its start to its end on ``server``.

    ``missing`` are its models that were not loaded before, ``is_repeat`` says that the same work of the same
    client ran there last.
    """

    workflow: Workflow
    server: str
    seconds: float
    missing: frozenset[str] = frozenset()
    is_repeat: bool = False


class Durations:
    """Expected seconds by kind of work, by server and by models; servers go by any name that stays.

    ``version`` is another one whenever expectations may have changed.
    """

    def __init__(self, size: int = MAX_KINDS) -> None:
        self._means = _Means(size)
        self._loading = _Means(size)
        self._guesses: OrderedDict[str, Run] = OrderedDict()
        self._factors: OrderedDict[str, float] = OrderedDict()
        self._size = size
        self.version = 0

    def learn(self, run: Run) -> None:
        """A prompt ran to its end."""
        self.version += 1
        kind = run.workflow.kind
        known = self._means.get(kind)
        if known is None or kind in self._guesses:
            self._learn_unknown(run)
        elif run.missing:
            self._loading.learn(
                _loading_keys(run.missing), max(run.seconds - known * self.factor(run.server), 0.0)
            )
            self._means.touch(kind)
        else:
            is_cached = run.is_repeat and run.seconds < known * self.factor(run.server) / 2
            self._learn_known(run, known, REPEATED if is_cached else NEW)

    def expect(self, workflow: Workflow, server: str) -> float:
        """Seconds that ``workflow`` will run on ``server``, its models loaded."""
        return self.usual(workflow) * self.factor(server)

    def usual(self, workflow: Workflow) -> float:
        """Seconds that ``workflow`` will run on an average server."""
        mean = self._means.get(workflow.kind)
        return self._means.first(_keys(workflow)[1:], UNKNOWN) if mean is None else mean

    def factor(self, server: str) -> float:
        """How many times as long as an average server ``server`` takes."""
        return self._factors.get(server, 1.0)

    def loading(self, missing: frozenset[str]) -> float:
        """Seconds that it takes to load the models ``missing``."""
        return self._loading.first(_loading_keys(missing), LOADING) if missing else 0.0

    def normal(self, seconds: float, server: str) -> float:
        """What took ``seconds`` on ``server`` in seconds of an average server."""
        return seconds / self.factor(server)

    @property
    def average(self) -> float:
        """Seconds that a prompt of which nothing is known will run."""
        return self._means.get(_ALL) or UNKNOWN

    @property
    def average_loading(self) -> float:
        """Seconds that loading models takes, whichever they are."""
        found = self._loading.get(_ALL)
        return LOADING if found is None else found

    def _learn_unknown(self, run: Run) -> None:
        kind = run.workflow.kind
        if run.missing:
            at_least = run.seconds * RUNNING_AT_LEAST
            seconds = max(run.seconds - self.loading(run.missing), at_least, SHORTEST)
            self._means.learn(_keys(run.workflow), self.normal(seconds, run.server))
            self._guesses[kind] = run
            while len(self._guesses) > self._size:
                self._guesses.popitem(last=False)
            return
        seconds = max(run.seconds, SHORTEST)
        self._means.forget(kind)
        self._means.learn(_keys(run.workflow), self.normal(seconds, run.server))
        guess = self._guesses.pop(kind, None)
        if guess is not None:
            running = self.normal(seconds, run.server) * self.factor(guess.server)
            self._loading.learn(_loading_keys(guess.missing), max(guess.seconds - running, 0.0))

    def _learn_known(self, run: Run, known: float, weight: float) -> None:
        seconds = max(run.seconds, SHORTEST)
        if weight == NEW:
            factor = min(max(seconds / known, FASTEST), SLOWEST)
            before = self._factors.pop(run.server, 1.0)
            self._factors[run.server] = before + NEW * (factor - before)
            while len(self._factors) > self._size:
                self._factors.popitem(last=False)
        self._means.learn(_keys(run.workflow), self.normal(seconds, run.server), weight)


_ALL = "any"


def _keys(workflow: Workflow) -> tuple[Hashable, ...]:
    """From the most alike to the least."""
    return workflow.kind, (workflow.classes, workflow.models), _ALL


def _loading_keys(missing: frozenset[str]) -> tuple[Hashable, ...]:
    return missing, _ALL


class _Means:
    """Exponentially weighted means, the least recently learned forgotten first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._means: OrderedDict[Hashable, float] = OrderedDict()
        self.get = self._means.get

    def learn(self, keys: tuple[Hashable, ...], value: float, weight: float = NEW) -> None:
        for key in keys:
            before = self._means.pop(key, None)
            self._means[key] = value if before is None else before + weight * (value - before)
        while len(self._means) > self._size:
            self._means.popitem(last=False)

    def first(self, keys: tuple[Hashable, ...], default: float) -> float:
        for key in keys:
            if (mean := self._means.get(key)) is not None:
                return mean
        return default

    def forget(self, key: Hashable) -> None:
        self._means.pop(key, None)

    def touch(self, key: Hashable) -> None:
        self._means.move_to_end(key)
