"""Which server is believed where several tell of the same prompt.

That happens while a prompt moves (it was deleted here after this server answered, and was submitted there
before that one did), and where a server that was given up comes back with what it had done.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.core.balancing.backend import Backend

_RANKS = {
    Status.COMPLETED: 0,
    Status.IN_PROGRESS: 1,
    Status.PENDING: 2,
    Status.FAILED: 3,
    Status.CANCELLED: 4,
}
"""Where nobody knows better, the news that is best for the prompt is the newest: it only gets further."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """``backend`` says that it has the prompt."""

    prompt_id: str
    backend: Backend
    status: Status


def believed(sightings: Iterable[Sighting], known: Mapping[str, Known]) -> dict[str, Backend]:
    """For each prompt the one server whose word counts: the one that is known to have it, if it says so."""
    best: dict[str, tuple[int, Backend]] = {}
    for seen in sightings:
        rank = _RANKS[seen.status]
        record = known.get(seen.prompt_id)
        if record is not None and record.backend is seen.backend:
            rank = -1
        if seen.prompt_id not in best or rank < best[seen.prompt_id][0]:
            best[seen.prompt_id] = (rank, seen.backend)
    return {prompt_id: backend for prompt_id, (_, backend) in best.items()}
