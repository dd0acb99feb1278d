"""Bringing a prompt to one server: its client's WebSocket first, then its input files, then the prompt."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from comfyproxy.comfyui.merging.documents import read, write
from comfyproxy.comfyui.prompts.dispatch import Dispatch
from comfyproxy.comfyui.prompts.ledger import Phase, Prompt
from comfyproxy.comfyui.prompts.locating import Found, Place, look_up
from comfyproxy.comfyui.replication import Brought
from comfyproxy.comfyui.wire import is_id, read_object
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, OpenSocket, Operation, Reply
from comfyproxy.core.http.headers import HOP_BY_HOP
from comfyproxy.core.http.http1 import RequestHead

TIMEOUT = 120.0
"""Seconds that a server may take to accept a prompt: while it loads a model it answers nobody."""

PASSED_OVER = HOP_BY_HOP | frozenset(
    b"host content-length content-type content-encoding expect origin sec-fetch-site accept-encoding "
    b"if-none-match if-modified-since range".split()
)
"""Fields of a client's request that say nothing of the requests that are made of it."""

UNAVAILABLE = frozenset((502, 503, 504))


class Verdict(Enum):
    """What a server did with a prompt."""

    TAKEN = "taken"
    REFUSED = "refused"
    UNREACHED = "unreached"


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of sending a prompt; ``reply`` is the server's answer if there was one.

    ``holders`` are the servers on which it would not fail for want of a file, if that was the reason.
    """

    verdict: Verdict
    reply: Reply | None = None
    why: str = ""
    holders: frozenset[Backend] = frozenset()


def fields_of(head: RequestHead, dispatch: Dispatch) -> bytes:
    """The fields of a client's request that go on with the requests that are made of it."""
    return head.block.passing(PASSED_OVER, dispatch.callers.cookies)


def with_members(submission: bytes, members: Mapping[str, Any]) -> bytes:
    """``submission``, a JSON object that is not empty, with ``members`` in it.

    They go last: of several members of one name Python's ``json``, which ComfyUI reads with, takes the last.
    """
    brace = submission.rindex(b"}")
    return b"%b, %b" % (submission[:brace], json.dumps(members)[1:].encode())


def send(dispatch: Dispatch, prompt: Prompt) -> Operation:
    """Bring ``prompt`` to its server, which it has just been given; returns `Sent`."""
    backend = prompt.backend
    watcher = dispatch.watcher(prompt)
    is_heard = yield OpenSocket(watcher, backend)
    if not is_heard:
        return Sent(Verdict.UNREACHED, why="GET /ws gives no WebSocket there")
    brought = yield from _bring(dispatch, prompt)
    if isinstance(brought, Sent):
        return brought
    body = with_members(brought, {"number": prompt.number})
    sent_at = dispatch.now
    reply: Reply = yield Ask(backend, b"POST", b"/prompt", body, fields=prompt.fields, timeout=TIMEOUT)
    if reply.status == 200 and _says_an_id(reply):
        dispatch.accepted(prompt, sent_at)
        return Sent(Verdict.TAKEN, reply)
    if reply.status == 200 or (reply.head is None and reply.was_sent):
        return (yield from _find_out(dispatch, prompt, reply, sent_at))
    if reply.head is None or reply.status in UNAVAILABLE:
        return Sent(Verdict.UNREACHED, reply, reply.why or f"it answered {reply.status}")
    return Sent(Verdict.REFUSED, reply)


def _says_an_id(reply: Reply) -> bool:
    """Whether ``reply`` is what ComfyUI says when it has taken a prompt, and not something else's answer."""
    document = read(reply)
    return isinstance(document, dict) and is_id(document.get("prompt_id"))


def _bring(dispatch: Dispatch, prompt: Prompt) -> Operation:
    """Have the input files of ``prompt`` on its server; returns what is to be submitted there, or `Sent`."""
    submission = prompt.submission
    document = read_object(submission) or {}
    brought: Brought = yield from dispatch.replication.bring(
        document, prompt.backend, prompt.owner, dispatch.now
    )
    if not brought.is_reached:
        return Sent(Verdict.UNREACHED, why="it does not say which files it has")
    if brought.lacking:
        names = ", ".join(lack.file.text for lack in brought.lacking)
        return Sent(Verdict.UNREACHED, why=f"{names} could not be brought there", holders=_holders(brought))
    return submission if brought.submission is document else write(brought.submission) or submission


def _holders(brought: Brought) -> frozenset[Backend]:
    """The servers that have all files that could not be brought; if none has all, those that have any."""
    holders = [frozenset(lack.holders) for lack in brought.lacking]
    return frozenset.intersection(*holders) or frozenset.union(*holders)


def _find_out(dispatch: Dispatch, prompt: Prompt, reply: Reply, sent_at: float) -> Operation:
    """The answer was lost: the server may have the prompt or not."""
    reply = Reply(reply.backend, why=reply.why or "its answer was none of ComfyUI's", was_sent=True)
    found = Found(Place.UNKNOWN)
    if not prompt.backend.health.is_down:
        found = yield from look_up(prompt.backend, prompt.prompt_id)
    has_begun = prompt.phase is not Phase.SENDING
    if found.place in (Place.ABSENT, Place.UNKNOWN) and not has_begun:
        return Sent(Verdict.UNREACHED, reply, reply.why)
    dispatch.accepted(prompt, sent_at)
    return Sent(Verdict.TAKEN, reply)
