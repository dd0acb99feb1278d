"""Where a prompt will finish first, its place in the queue there, and what an idle server should take over.

Earliest finish time first, as list schedulers for unlike machines have it (Topcuoglu, Hariri and Wu, HEFT,
2002, section 4.2): of all servers that can run the prompt, the one on which expected wait, loading of models
and running time come to the least. A decision that later turns out wrong, because durations are only
expected, is made good by the idle: work stealing (Blumofe and Leiserson, 1999).

In a server's queue prompts go by their tags (`fairness`), but one whose models another loads before it may
join that one. Whoever it overtakes can be overtaken by so much work only: `BATCH` times what loading takes.
"""

from collections.abc import Collection, Iterator, Sequence

from comfyproxy.comfyui.scheduling.durations import Durations
from comfyproxy.comfyui.scheduling.workload import Job, Workload

BATCH = 20.0
"""How many times as long as loading takes work that needs the loaded models may go on while another prompt,
whose turn it is, waits. A server that then changes models spends a twentieth of its time on it."""

STAY = 10.0
"""How many times over a change of models counts, the one back too, where there is other work to do: the work
that comes after has to pay for it as well."""

CACHED = 0.5
"""The share of its time that a client's prompt is taken to need where the same work of its own ran last:
ComfyUI runs only the nodes whose inputs have changed (``execution.py``)."""

WORTH_MOVING = 0.5
"""Seconds that a move must gain: taking a prompt from one queue and into another is no gain by itself."""


def quantum(durations: Durations) -> float:
    """Seconds of work by which a prompt may be overtaken."""
    return BATCH * durations.average_loading


def place_in(
    job: Job, workload: Workload, seconds: float, durations: Durations, is_front: bool = False
) -> int:
    """Which of the pending prompts of ``workload`` ``job``, which takes ``seconds``, goes before."""
    pending = workload.pending
    index = len(pending)
    while index and pending[index - 1].tag > job.tag:
        index -= 1
    if is_front:
        own = (at for at, other in enumerate(pending[:index]) if other.client == job.client)
        return min(own, default=index)
    models, warm = job.workflow.models, workload.timeline(durations).warm
    at, room = index, quantum(durations) - seconds
    while not models <= warm[at]:
        at -= 1
        if at < 0 or pending[at].overtaken > room:
            return index
    return at


def finish(
    job: Job, workload: Workload, durations: Durations, now: float, is_front: bool = False
) -> tuple[float, int]:
    """Seconds until ``job`` would be done if it went to ``workload`` now, and its place in that queue."""
    seconds = durations.expect(job.workflow, workload.server)
    index = place_in(job, workload, seconds, durations, is_front)
    timeline = workload.timeline(durations)
    models, warm = job.workflow.models, timeline.warm[index]
    if not models <= warm:
        seconds += durations.loading(models - warm)
    elif workload.last == (job.client, job.workflow.kind) and workload.is_idle:
        seconds *= CACHED
    return workload.rest(durations, now) + timeline.ends[index] + seconds, index


def choose(
    job: Job, candidates: Sequence[Workload], durations: Durations, now: float, is_front: bool = False
) -> tuple[Workload, int]:
    """The candidate on which ``job`` finishes first, of equal ones the first given, and its place there.

    One that has other work counts as later by `STAY` times the changes of models that the job causes.
    """
    best, least, place = candidates[0], float("inf"), 0
    for workload in candidates:
        end, index = finish(job, workload, durations, now, is_front)
        if end < least and not workload.is_idle:
            end += STAY * _changes(job.workflow.models, workload.timeline(durations).warm[index], durations)
        if end < least:
            best, least, place = workload, end, index
    return best, place


def worth_taking(
    idle: Workload, others: Collection[Workload], durations: Durations, now: float
) -> Iterator[Job]:
    """The pending jobs of ``others`` that would be done earlier by ``idle``, the best to take first.

    Those whose models it has loaded come first. Then the server with most left to do should be helped, and
    with its longest job: what is long and begins late makes the whole late (Graham's LPT rule, 1969).
    """
    found = []
    for other in others:
        if not other.pending:
            continue
        ends, rest = other.timeline(durations).ends, other.rest(durations, now)
        for job, end in zip(other.pending, ends[1:], strict=True):
            seconds = finish(job, idle, durations, now)[0]
            if rest + end - seconds >= WORTH_MOVING:
                is_warm = job.workflow.models <= idle.warm
                found.append(((is_warm, rest + ends[-1], seconds), job))
    found.sort(key=_by_worth, reverse=True)
    for _, job in found:
        yield job


def _changes(models: frozenset[str], warm: frozenset[str], durations: Durations) -> float:
    """Seconds of loading ``models`` in the place of those that are ``warm``, and of loading those again."""
    if models <= warm:
        return 0.0
    return durations.loading(models - warm) + durations.loading(warm - models)


def _by_worth(entry: tuple[tuple[bool, float, float], Job]) -> tuple[bool, float, float]:
    return entry[0]
