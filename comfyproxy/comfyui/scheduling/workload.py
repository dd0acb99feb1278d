"""What one server has to do: the prompt that runs, those that wait, and those that others sent it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from comfyproxy.comfyui.scheduling.durations import Durations
from comfyproxy.comfyui.workflow import Workflow

LEFT_AT_LEAST = 0.1
"""The share of its expected time that a prompt is taken to need still, however long it has run."""


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt: ``number`` orders the queue of a server, smallest first."""

    prompt_id: str
    client: str
    workflow: Workflow
    number: float


@dataclass(frozen=True, slots=True)
class Stage:
    """A point in a server's future: ``job`` is done (``None``: what runs now is), ``end`` seconds from now, and
    the models ``warm`` are loaded."""

    job: Job | None
    end: float
    warm: frozenset[str]


@dataclass(slots=True)
class Workload:
    """The work of one server, as far as it is known.

    ``foreign`` counts the prompts in its queue that did not come through here. ``warm`` are the models that
    what ran last had loaded, ``last`` is that work's kind and its client.
    """

    server: str
    running: Job | None = None
    started: float = 0.0
    pending: dict[str, Job] = field(default_factory=dict)
    foreign: int = 0
    warm: frozenset[str] = frozenset()
    last: tuple[str, str] = ("", "")

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self.running is None and not self.pending and not self.foreign

    def __len__(self) -> int:
        return (self.running is not None) + len(self.pending) + self.foreign

    def add(self, job: Job) -> None:
        """``job`` waits here."""
        self.pending[job.prompt_id] = job

    def start(self, prompt_id: str, now: float) -> None:
        """A prompt began to run; what ran before has ended, though nobody said so."""
        job = self.pending.pop(prompt_id, None)
        self.running, self.started = job, now

    def end(self, prompt_id: str) -> Job | None:
        """A prompt is over, whether it ran or not; the job if it was known here."""
        if self.running is not None and self.running.prompt_id == prompt_id:
            job, self.running = self.running, None
            self.warm = job.workflow.models
            self.last = job.client, job.workflow.kind
            return job
        return self.pending.pop(prompt_id, None)

    def told(self, remaining: int) -> None:
        """The server says how many prompts it has, the running one included."""
        self.foreign = max(0, remaining - len(self.pending) - (self.running is not None))

    def timeline(self, durations: Durations, loading: float, now: float) -> Iterator[Stage]:
        """The work of this server in the order in which it will be done, beginning with what is being done.

        ``loading`` are the seconds that it takes to change models.
        """
        stage = Stage(
            None, self._rest(durations, now), self.running.workflow.models if self.running else self.warm
        )
        yield stage
        for job in sorted(self.pending.values(), key=_by_number):
            seconds = stage.end + durations.expect(job.workflow, self.server)
            if is_cold(job.workflow.models, stage.warm):
                seconds += loading
            stage = Stage(job, seconds, job.workflow.models or stage.warm)
            yield stage

    def _rest(self, durations: Durations, now: float) -> float:
        """Seconds until what runs, and what others sent, is done."""
        seconds = self.foreign * durations.average
        if self.running is not None:
            whole = durations.expect(self.running.workflow, self.server)
            seconds += max(whole - (now - self.started), whole * LEFT_AT_LEAST)
        return seconds


def is_cold(models: frozenset[str], warm: frozenset[str]) -> bool:
    """Whether some of ``models`` have to be loaded first."""
    return not models <= warm


def _by_number(job: Job) -> float:
    return job.number
