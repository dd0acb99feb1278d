"""What one server has to do: the prompt that runs, those that wait, and those that others sent it."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, ulp

from comfyproxy.comfyui.scheduling.durations import Durations, Run
from comfyproxy.comfyui.workflow import Workflow

LEFT_AT_LEAST = 0.1
"""The share of its expected time that a prompt is taken to need still, however long it has run."""

STEP = 1e-6
"""How far apart the numbers of prompts are that follow one another though their tags do not say so."""


@dataclass(slots=True, eq=False)
class Job:
    """One prompt. ``tag`` says when it is its client's turn, ``number`` orders the queue of its server.

    ``overtaken`` are the seconds of work that were put in front of it though their turn was later, and
    ``seconds`` those that it takes itself, as far as is known.
    """

    prompt_id: str
    client: str
    workflow: Workflow
    tag: float
    number: float
    overtaken: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Timeline:
    """How the work of a server is expected to go on, in seconds from the end of what it does now.

    ``ends`` has the end of each pending job in turn after a 0, and ``warm`` the models that are loaded then.
    """

    ends: Sequence[float]
    warm: Sequence[frozenset[str]]


@dataclass(slots=True, eq=False)
class Workload:
    """The work of one server, as far as it is known.

    ``pending`` is in the order in which it will run. Of what runs, ``missing`` are the models that it had to
    load, ``is_seen`` says that its start was seen, and ``is_repeat`` that the same work of the same client
    ran before it. ``foreign`` counts the prompts in the queue that nobody here knows. ``warm`` are the models
    that what began last has loaded, ``last`` is its client and its kind.
    """

    server: str
    running: Job | None = None
    started: float = 0.0
    is_seen: bool = True
    is_repeat: bool = False
    missing: frozenset[str] = frozenset()
    pending: list[Job] = field(default_factory=list)
    foreign: int = 0
    warm: frozenset[str] = frozenset()
    last: tuple[str, str] = ("", "")
    _timeline: Timeline | None = None
    _version: int = -1

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self.running is None and not self.pending and not self.foreign

    def insert(self, job: Job, index: int, seconds: float) -> None:
        """``job``, which takes so long, waits here before those from ``index`` on; its number says so."""
        job.number, job.seconds = self._number(job.tag, index), seconds
        job.overtaken = sum(other.seconds for other in self.pending[:index] if other.tag > job.tag)
        for other in self.pending[index:]:
            if other.tag <= job.tag:
                other.overtaken += seconds
        self.pending.insert(index, job)
        self._timeline = None

    def add(self, job: Job) -> None:
        """``job`` waits here where its number puts it."""
        self.pending.insert(bisect_left(self.pending, order(job), key=order), job)
        self._timeline = None

    def remove(self, job: Job) -> bool:
        """``job`` waits here no longer; whether it did."""
        if job not in self.pending:
            return False
        self.pending.remove(job)
        self._timeline = None
        return True

    def start(self, job: Job, now: float, is_seen: bool = True) -> None:
        """``job`` began to run; what ran before has ended, though nobody said so."""
        self.remove(job)
        self.running, self.started, self.is_seen = job, now, is_seen
        self.missing = job.workflow.models - self.warm
        self.is_repeat = self.last == (job.client, job.workflow.kind)
        self.warm = job.workflow.models or self.warm
        self.last = job.client, job.workflow.kind
        self._timeline = None

    def end(self, job: Job, now: float) -> Run | None:
        """``job`` is over; what was measured of it, if it ran and its start was seen."""
        if self.running is not job:
            self.remove(job)
            return None
        self.running = None
        self._timeline = None
        run = Run(job.workflow, self.server, max(now - self.started, 0.0), self.missing, self.is_repeat)
        return run if self.is_seen else None

    def told(self, remaining: int) -> None:
        """The server says how many prompts it has, the running one included."""
        self.foreign = max(0, remaining - len(self.pending) - (self.running is not None))

    def unloaded(self) -> None:
        """The server has no models loaded any more."""
        self.warm, self.last = frozenset(), ("", "")
        self._timeline = None

    def rest(self, durations: Durations, now: float) -> float:
        """Seconds until what runs, and what others sent, is done.

        What takes longer than expected is expected to go on for as long as it is late by now: of the unlike
        jobs of one kind a long one is more likely the longer it has run.
        """
        seconds = self.foreign * durations.average
        if self.running is not None:
            whole = durations.expect(self.running.workflow, self.server) + durations.loading(self.missing)
            late = now - self.started - whole
            seconds += max(-late, whole * LEFT_AT_LEAST, late)
        return seconds

    def timeline(self, durations: Durations) -> Timeline:
        """How the pending work will go on."""
        if self._timeline is None or self._version != durations.version:
            end, warm, factor = 0.0, self.warm, durations.factor(self.server)
            ends, warms = [end], [warm]
            for job in self.pending:
                work = job.workflow
                end += durations.usual(work) * factor
                if work.models is not warm and work.models:
                    if not work.models <= warm:
                        end += durations.loading(work.models - warm)
                    warm = work.models
                ends.append(end)
                warms.append(warm)
            self._timeline = Timeline(ends, warms)
            self._version = durations.version
        return self._timeline

    def _number(self, tag: float, index: int) -> float:
        """A number between those at ``index``: the tag itself if it is."""
        low = self.pending[index - 1].number if index else -inf
        high = self.pending[index].number if index < len(self.pending) else inf
        if low < tag < high:
            return tag
        if low == -inf:
            return high - _step(high)
        after = low + _step(low)
        return after if after < high else (low + high) / 2


def order(job: Job) -> tuple[float, str]:
    """By what ComfyUI takes the next prompt: equal numbers go by the ids (``heapq`` in ``execution.py``)."""
    return job.number, job.prompt_id


def _step(number: float) -> float:
    return max(STEP, 4 * ulp(number))
