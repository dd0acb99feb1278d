"""The schedule of one pool: where each prompt goes, which number it gets there, and what is taken over by whom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from comfyproxy.comfyui.scheduling.choice import choose, take_over
from comfyproxy.comfyui.scheduling.durations import Durations
from comfyproxy.comfyui.scheduling.fairness import Fairness
from comfyproxy.comfyui.scheduling.workload import Job, Workload
from comfyproxy.comfyui.workflow import Workflow
from comfyproxy.core.balancing.backend import Backend

UNKNOWN_WORK = Workflow(frozenset(), frozenset(), "")
"""What a prompt is taken for whose graph nobody has seen."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a prompt goes and the ``number`` that it is submitted with, which is its place in the queue there."""

    backend: Backend
    number: float


@dataclass(frozen=True, slots=True)
class Move:
    """A pending prompt of ``source`` that ``target`` should have, submitted there with ``number``."""

    prompt_id: str
    source: Backend
    target: Backend
    number: float


class Scheduler:
    """What every backend of a pool has to do, and what follows from it for the next prompt.

    Times are seconds of one clock, any. A prompt is known from `place` or `adopt` until `ended`.
    """

    def __init__(self) -> None:
        self._durations = Durations()
        self._fairness = Fairness()
        self._loads: dict[Backend, Workload] = {}
        self._owners: dict[str, Backend] = {}

    def place(
        self,
        prompt_id: str,
        workflow: Workflow | None,
        client: str,
        candidates: Sequence[Backend],
        now: float,
        front: bool = False,
    ) -> Placed:
        """Choose where a prompt goes, and record it as pending there.

        ``client`` is whose share of the pool it uses. With ``front`` it goes before the client's own pending
        prompts. A prompt that is known already is placed anew and keeps its turn. ValueError without
        ``candidates``; of equally good ones the first is taken.
        """
        if not candidates:
            raise ValueError("a prompt needs a candidate")
        workflow = workflow or UNKNOWN_WORK
        self.ended(prompt_id, now, False)
        cost = self._durations.expect(workflow, "")
        number = self._fairness.number(client, cost)
        job = Job(prompt_id, client, workflow, number)
        loads = [self._load(backend) for backend in candidates]
        chosen = candidates[loads.index(choose(job, loads, self._durations, now))]
        self._load(chosen).add(job)
        self._owners[prompt_id] = chosen
        return Placed(chosen, number)

    def adopt(
        self,
        prompt_id: str,
        workflow: Workflow | None,
        client: str,
        backend: Backend,
        number: float,
        is_running: bool,
        now: float,
    ) -> None:
        """Record a prompt that was found in the queue of ``backend``."""
        self.ended(prompt_id, now, False)
        self._load(backend).add(Job(prompt_id, client, workflow or UNKNOWN_WORK, number))
        self._owners[prompt_id] = backend
        if is_running:
            self.started(prompt_id, now)

    def started(self, prompt_id: str, now: float) -> None:
        """A prompt began to run."""
        backend = self._owners.get(prompt_id)
        if backend is not None:
            load = self._load(backend)
            if (job := load.pending.get(prompt_id)) is not None:
                self._fairness.started(job.number)
                load.start(prompt_id, now)

    def ended(self, prompt_id: str, now: float, completed: bool) -> None:
        """A prompt is over, or no longer in any queue; ``completed`` says that it ran to its end."""
        backend = self._owners.pop(prompt_id, None)
        if backend is None:
            return
        load = self._load(backend)
        running, started = load.running, load.started
        job = load.end(prompt_id)
        if completed and job is not None and job is running:
            self._durations.learn(job.workflow, load.server, now - started)

    def told(self, backend: Backend, remaining: int) -> None:
        """``backend`` says how many prompts it has, what runs included: those not known here are others'."""
        self._load(backend).told(remaining)

    def next_move(
        self, now: float, movable: Callable[[str], bool], can_run: Callable[[str, Backend], bool]
    ) -> Move | None:
        """A pending prompt that a backend which is idle should take over; ``None`` if there is none worth it.

        ``movable`` says of a prompt whether it may be moved now, ``can_run`` whether it can run there.
        """
        for target, idle in self._loads.items():
            if idle.is_idle:
                others = [load for load in self._loads.values() if load is not idle]
                found = take_over(idle, others, self._durations, now)
                if found is not None and movable(found[0].prompt_id) and can_run(found[0].prompt_id, target):
                    job = found[0]
                    return Move(job.prompt_id, self._owners[job.prompt_id], target, job.number)
        return None

    def moved(self, move: Move) -> None:
        """``move`` was made."""
        job = self._load(move.source).pending.pop(move.prompt_id, None)
        if job is not None:
            self._load(move.target).add(replace(job, number=move.number))
            self._owners[move.prompt_id] = move.target

    def forget(self, backend: Backend) -> None:
        """``backend`` is gone, and what it had to do with it. Its prompts keep their turn if placed again."""
        self._loads.pop(backend, None)
        for prompt_id in [one for one, owner in self._owners.items() if owner is backend]:
            del self._owners[prompt_id]

    def wait(self, backend: Backend, now: float) -> float:
        """Seconds until ``backend`` is expected to have done all that it has."""
        end = 0.0
        for stage in self._load(backend).timeline(self._durations, 8.0, now):
            end = stage.end
        return end

    def _load(self, backend: Backend) -> Workload:
        load = self._loads.get(backend)
        if load is None:
            load = self._loads[backend] = Workload(backend.fingerprint)
        return load
