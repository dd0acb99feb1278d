"""How to see whether a ComfyUI works: ``GET /prompt``, the cheapest question that it has an answer to."""

import json

from comfyproxy.core.balancing.probing import Verdict, get
from comfyproxy.core.http.http1 import ResponseHead

PATH = "/prompt"

LOCKED = frozenset({401, 403})
"""What an installation with a login says; it is alive."""


class ComfyUIProbe:
    """``GET /prompt`` is answered with the length of the queue.

    The answer is ``{"exec_info": {"queue_remaining": N}}`` (``server.py``), where N counts what runs too. It
    takes a millisecond, also while a prompt runs, except where a model's loading keeps the event loop.
    """

    def request(self, authority: bytes) -> bytes:
        """The GET."""
        return get(PATH, authority)

    def judge(self, head: ResponseHead, body: bytes) -> Verdict:
        """Whether it is ComfyUI that answers, and has prompts to run."""
        if head.status in LOCKED:
            return Verdict(True, f"GET {PATH} was answered with {head.status}")
        if head.status != 200:
            return Verdict(False, f"GET {PATH} was answered with {head.status}")
        queued = _queued(body)
        if queued is None:
            return Verdict(False, f"what answers GET {PATH} is no ComfyUI")
        return Verdict(True, f"GET {PATH} was answered", has_work=queued > 0)


def _queued(body: bytes) -> int | None:
    try:
        queued = json.loads(body)["exec_info"]["queue_remaining"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return queued if type(queued) is int else None
