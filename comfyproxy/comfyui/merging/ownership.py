"""Which server is believed where several tell of the same prompt.

That happens while a prompt moves (it was deleted here after this server answered, and was submitted there
before that one did), and where a server that was given up comes back with what it had done.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.core.balancing.backend import Backend

_RANKS: dict[str, int] = {
    Status.COMPLETED: 0,
    Status.IN_PROGRESS: 1,
    Status.PENDING: 2,
    Status.FAILED: 3,
    Status.CANCELLED: 4,
}
"""Where nobody knows better, the news that is best for the prompt is the newest: it only gets further."""


class Sighting(NamedTuple):
    """``backend`` says that it has the prompt."""

    prompt_id: str
    backend: Backend
    status: str


def believed(sightings: Iterable[Sighting], known: Mapping[str, Known]) -> dict[str, Backend]:
    """For each prompt the one server whose word counts: the one that is known to have it, if it says so."""
    best: dict[str, Sighting] = {}
    for seen in sightings:
        other = best.setdefault(seen.prompt_id, seen)
        if other.backend is not seen.backend and _rank(seen, known) < _rank(other, known):
            best[seen.prompt_id] = seen
    return {prompt_id: seen.backend for prompt_id, seen in best.items()}


def _rank(seen: Sighting, known: Mapping[str, Known]) -> int:
    record = known.get(seen.prompt_id)
    return -1 if record is not None and record.backend is seen.backend else _RANKS[seen.status]
