"""Requests that every server of the pool is to obey."""

from collections.abc import Sequence

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation, Reply
from comfyproxy.core.balancing.routing import Refuse, Respond


def broadcast(
    backends: Sequence[Backend], method: bytes, target: bytes, body: bytes, fields: bytes = b""
) -> Operation:
    """Ask all ``backends`` the same, as for ``POST /free``; returns the decision.

    It succeeded if one of them did; else the answer is the first there is.
    """
    replies: Sequence[Reply] = yield tuple(
        Ask(backend, method, target, body, fields=fields) for backend in backends
    )
    answered = [reply for reply in replies if reply.head is not None]
    best = next((reply for reply in answered if reply.status < 300), answered[0] if answered else None)
    if best is None or best.head is None:
        return Refuse(503, "No server could be reached.")
    content_type = best.head.value(b"content-type") or b"text/plain"
    return Respond(best.status, best.body, content_type)
