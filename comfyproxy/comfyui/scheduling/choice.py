"""Where a prompt will finish first, and which one an idle server should take over.

Earliest finish time first, as list schedulers for unlike machines have it (Topcuoglu, Hariri and Wu, HEFT, 2002,
section 4.2): of all servers that can run the prompt, the one on which expected wait, loading of models and
running time come to the least. A decision that later turns out wrong, because durations are only expected, is
made good by the idle: work stealing (Blumofe and Leiserson, 1999) from the server that has most left to do.
"""

from collections.abc import Collection, Sequence

from comfyproxy.comfyui.scheduling.durations import Durations
from comfyproxy.comfyui.scheduling.workload import Job, Workload, is_cold

LOADING = 8.0
"""Seconds that loading other models is taken to need."""

CACHED = 0.5
"""The share of its time that a client's prompt is taken to need where the same work of its own ran last:
ComfyUI runs only the nodes whose inputs have changed (``execution.py``)."""

WORTH_MOVING = 0.5
"""Seconds that a move must gain: taking a prompt away from one queue and into another is no gain by itself."""


def finish(job: Job, workload: Workload, durations: Durations, now: float, loading: float = LOADING) -> float:
    """Seconds until ``job`` would be done if it went to ``workload`` now."""
    stages = workload.timeline(durations, loading, now)
    before = next(stages)
    for stage in stages:
        if stage.job is not None and stage.job.number > job.number:
            break
        before = stage
    seconds = durations.expect(job.workflow, workload.server)
    if is_cold(job.workflow.models, before.warm):
        return before.end + loading + seconds
    if workload.is_idle and workload.last == (job.client, job.workflow.kind):
        seconds *= CACHED
    return before.end + seconds


def choose(
    job: Job, candidates: Sequence[Workload], durations: Durations, now: float, loading: float = LOADING
) -> Workload:
    """The candidate on which ``job`` finishes first; of equal ones the first given."""
    return min(candidates, key=lambda workload: finish(job, workload, durations, now, loading))


def take_over(
    idle: Workload,
    others: Collection[Workload],
    durations: Durations,
    now: float,
    loading: float = LOADING,
) -> tuple[Job, Workload] | None:
    """The pending job that gains most by moving to ``idle``, and who has it now; ``None`` if none is worth it.

    What would be done last where it is gains most, so it comes from the server with most left to do.
    """
    best: tuple[float, Job, Workload] | None = None
    for other in others:
        for stage in other.timeline(durations, loading, now):
            if stage.job is None:
                continue
            gain = stage.end - finish(stage.job, idle, durations, now, loading)
            if gain >= WORTH_MOVING and (best is None or gain > best[0]):
                best = gain, stage.job, other
    return None if best is None else best[1:]
