"""GET /prompt of the pool: how many prompts wait or run."""

from collections.abc import Iterable, Sequence

from comfyproxy.comfyui.merging.documents import is_number, read
from comfyproxy.comfyui.merging.known import Known
from comfyproxy.core.balancing.operations import Reply


def queue_info(count: int) -> bytes:
    """The answer to ``GET /prompt`` where ``count`` prompts wait or run."""
    return b'{"exec_info": {"queue_remaining": %d}}' % count


def remaining(reply: Reply) -> int | None:
    """How many prompts wait or run on the server, by its answer to ``GET /prompt``."""
    match read(reply):
        case {"exec_info": {"queue_remaining": int(count)}} if is_number(count):
            return max(0, int(count))
    return None


def sum_remaining(replies: Sequence[Reply], known: Iterable[Known] = ()) -> int:
    """How many prompts wait or run; those that the proxy knows stand in for servers that do not answer."""
    counts = {reply.backend: count for reply in replies if (count := remaining(reply)) is not None}
    missing = sum(
        1
        for record in known
        if not record.status.is_ended and (record.backend is None or record.backend not in counts)
    )
    return sum(counts.values()) + missing
