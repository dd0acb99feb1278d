"""The schedule of one pool: where each prompt goes, its number there, and what is taken over by whom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from comfyproxy.comfyui.scheduling.choice import choose, quantum, worth_taking
from comfyproxy.comfyui.scheduling.durations import Durations
from comfyproxy.comfyui.scheduling.fairness import Fairness
from comfyproxy.comfyui.scheduling.workload import Job, Workload
from comfyproxy.comfyui.workflow import Workflow
from comfyproxy.core.balancing.backend import Backend

UNKNOWN_WORK = Workflow(frozenset(), frozenset(), "")
"""What a prompt is taken for whose graph nobody has seen."""

MAX_LOOKED_AT = 4000
"""How many pending prompts are looked at for one move, over all servers that could have it. The servers that
are left out have their turn the next time."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a prompt goes, and the ``number`` that it is submitted with: its place in the queue there."""

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

    Times are seconds of one clock, any. A prompt is known from `place` or `adopt` until `ended`; whatever is
    said of one that is not known is taken for nothing.
    """

    def __init__(self) -> None:
        self._durations = Durations()
        self._fairness = Fairness()
        self._loads: dict[Backend, Workload] = {}
        self._known: dict[str, _Known] = {}
        self._moves: dict[str, Move] = {}
        self._in_vain = 0

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
        self._take_away(prompt_id)
        workflow = workflow or UNKNOWN_WORK
        cost = self._durations.expect(workflow, "")
        tag = self._fairness.enter(prompt_id, client, cost, quantum(self._durations) if front else 0.0)
        job = Job(prompt_id, client, workflow, tag, tag)
        loads = [self._load(backend) for backend in candidates]
        load, index = choose(job, loads, self._durations, now, front)
        load.insert(job, index, self._durations.expect(workflow, load.server))
        backend = candidates[loads.index(load)]
        self._known[prompt_id] = _Known(job, backend)
        return Placed(backend, job.number)

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
        self._take_away(prompt_id)
        workflow = workflow or UNKNOWN_WORK
        tag = self._fairness.restore(prompt_id, client, number, self._durations.expect(workflow, ""))
        load = self._load(backend)
        seconds = self._durations.expect(workflow, load.server)
        job = Job(prompt_id, client, workflow, tag, number if number == number else tag, seconds=seconds)
        self._known[prompt_id] = _Known(job, backend)
        if is_running:
            self._fairness.start(prompt_id)
            load.start(job, now, is_seen=False)
        else:
            load.add(job)

    def started(self, prompt_id: str, now: float) -> None:
        """A prompt began to run. If it was about to be moved, it runs where it was."""
        if (move := self._moves.get(prompt_id)) is not None:
            self.stayed(move)
        known = self._known.get(prompt_id)
        if known is not None:
            load = self._load(known.backend)
            if load.running is not known.job:
                self._fairness.start(prompt_id)
                load.start(known.job, now)

    def ended(self, prompt_id: str, now: float, completed: bool) -> None:
        """A prompt is over, or given up; ``completed`` says that it ran to its end."""
        known = self._known.pop(prompt_id, None)
        self._moves.pop(prompt_id, None)
        used: float | None = 0.0
        if known is not None:
            load = self._load(known.backend)
            is_running = load.running is known.job
            run = load.end(known.job, now)
            if is_running:
                used = None if run is None else self._durations.normal(run.seconds, run.server)
            if run is not None and completed:
                self._durations.learn(run)
        self._fairness.leave(prompt_id, used)

    def renamed(self, prompt_id: str, new_id: str) -> None:
        """A prompt has another id from here on."""
        known = self._known.pop(prompt_id, None)
        if known is not None:
            known.job.prompt_id = new_id
            self._known[new_id] = known
        self._fairness.rename(prompt_id, new_id)

    def lost(self, prompt_id: str) -> None:
        """No server has a prompt any more. It keeps its turn: it is to be placed or adopted, or `ended`."""
        self._take_away(prompt_id)
        self._fairness.pause(prompt_id)

    def told(self, backend: Backend, remaining: int) -> None:
        """``backend`` says how many prompts it has, what runs included: those not known here are others'."""
        self._load(backend).told(remaining)

    def unloaded(self, backend: Backend) -> None:
        """``backend`` was told to unload its models."""
        self._load(backend).unloaded()

    def next_move(
        self, now: float, movable: Callable[[str], bool], can_run: Callable[[str, Backend], bool]
    ) -> Move | None:
        """A pending prompt that a backend which is idle should take over; ``None`` if there is none worth it.

        ``movable`` says of a prompt whether it may be moved now, ``can_run`` whether it can run there (and
        whether that backend takes work). From here on it counts as the target's, until `stayed` says
        otherwise; `moved` says that it was done.
        """
        pending = sum(len(load.pending) for load in self._loads.values())
        idle = [backend for backend, load in self._loads.items() if load.is_idle]
        if not pending or not idle:
            return None
        first = self._in_vain % len(idle)
        for target in [*idle[first:], *idle[:first]][: max(1, MAX_LOOKED_AT // pending)]:
            job = self._next_for(target, now, movable, can_run)
            if job is not None:
                return self._move(job, target)
            self._in_vain += 1
        return None

    def moved(self, move: Move) -> None:
        """``move`` was made."""
        self._moves.pop(move.prompt_id, None)

    def stayed(self, move: Move) -> None:
        """``move`` was not made: the prompt is where it was."""
        known = self._known.get(move.prompt_id)
        if self._moves.pop(move.prompt_id, None) is not None and known is not None:
            self._load(known.backend).remove(known.job)
            known.backend = move.source
            self._load(move.source).add(known.job)

    def forget(self, backend: Backend) -> None:
        """``backend`` is gone, and with it all that it had to do.

        Its prompts keep their turn: they are to be placed or adopted again, or `ended`.
        """
        self._loads.pop(backend, None)
        for prompt_id, known in list(self._known.items()):
            if known.backend is backend:
                del self._known[prompt_id]
                self._moves.pop(prompt_id, None)
                self._fairness.pause(prompt_id)

    def wait(self, backend: Backend, now: float) -> float:
        """Seconds until ``backend`` is expected to have done all that it has."""
        load = self._load(backend)
        return load.rest(self._durations, now) + load.timeline(self._durations).ends[-1]

    def _next_for(
        self,
        target: Backend,
        now: float,
        movable: Callable[[str], bool],
        can_run: Callable[[str, Backend], bool],
    ) -> Job | None:
        idle = self._loads[target]
        others = [load for load in self._loads.values() if load is not idle]
        refused: set[str] = set()
        for job in worth_taking(idle, others, self._durations, now):
            prompt_id, kind = job.prompt_id, job.workflow.kind
            if kind in refused or prompt_id in self._moves or not movable(prompt_id):
                continue
            if can_run(prompt_id, target):
                return job
            # The same work has the same nodes and models.
            refused.add(kind)
        return None

    def _move(self, job: Job, target: Backend) -> Move:
        known = self._known[job.prompt_id]
        move = Move(job.prompt_id, known.backend, target, job.number)
        self._load(known.backend).remove(job)
        self._load(target).add(job)
        known.backend = target
        self._moves[job.prompt_id] = move
        return move

    def _take_away(self, prompt_id: str) -> None:
        known = self._known.pop(prompt_id, None)
        self._moves.pop(prompt_id, None)
        if known is not None:
            load = self._load(known.backend)
            load.end(known.job, 0.0)

    def _load(self, backend: Backend) -> Workload:
        load = self._loads.get(backend)
        if load is None:
            load = self._loads[backend] = Workload(backend.fingerprint)
        return load


@dataclass(slots=True)
class _Known:
    job: Job
    backend: Backend
