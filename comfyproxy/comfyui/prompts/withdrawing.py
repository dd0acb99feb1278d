"""Taking prompts back: deleting what waits, interrupting what runs, each by its id and at its own server.

One ComfyUI deletes, clears and interrupts whatever it has. In a pool that would be other people's work too,
so what names no prompt means the caller's own ones.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from comfyproxy.comfyui.callers import Caller
from comfyproxy.comfyui.prompts.dispatch import Dispatch
from comfyproxy.comfyui.prompts.ledger import Phase, Prompt
from comfyproxy.comfyui.prompts.locating import Found, Place, cancelled, look_up
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation, Reply


def ask_to(backend: Backend, target: bytes, member: str, value: Any) -> Ask:
    """A POST of an object with one member."""
    return Ask(backend, b"POST", target, json.dumps({member: value}).encode())


def take_back(backend: Backend, prompt_id: str) -> Operation:
    """Take a prompt from ``backend`` that is not to run there; whether it waits or runs."""
    yield ask_to(backend, b"/queue", "delete", [prompt_id])
    found: Found = yield from look_up(backend, prompt_id)
    if found.place is Place.RUNNING:
        yield ask_to(backend, b"/interrupt", "prompt_id", prompt_id)


def own(dispatch: Dispatch, caller: Caller) -> list[Prompt]:
    """The prompts of ``caller`` that have not ended."""
    return [prompt for prompt in dispatch.ledger if dispatch.callers.owns(caller, prompt.owner)]


def delete(dispatch: Dispatch, prompt_ids: Iterable[str]) -> Operation:
    """Delete what waits of ``prompt_ids``; what runs already is left running, as ComfyUI does.

    What the list shows as waiting because another prompt has run for longer is interrupted.
    """
    by_backend: dict[Backend, list[str]] = {}
    running = [prompt for prompt in dispatch.ledger if prompt.phase is Phase.RUNNING]
    shown = min(running, key=lambda prompt: prompt.since, default=None)
    unwanted = []
    for prompt_id in prompt_ids:
        prompt = dispatch.ledger.get(prompt_id)
        if prompt is None:
            for backend in dispatch.answering():
                by_backend.setdefault(backend, []).append(prompt_id)
        elif prompt.phase is Phase.SENDING:
            _withdraw_on_its_way(dispatch, prompt)
        elif prompt.phase is Phase.PENDING:
            by_backend.setdefault(prompt.backend, []).append(prompt_id)
        elif prompt is not shown:
            unwanted.append(prompt)
    yield from interrupt(unwanted)
    asks = tuple(ask_to(backend, b"/queue", "delete", ids) for backend, ids in by_backend.items())
    replies: tuple[Reply, ...] = yield asks
    for reply, ids in zip(replies, by_backend.values(), strict=True):
        for prompt_id in ids if reply.status == 200 else ():
            prompt = dispatch.ledger.get(prompt_id)
            # If it had begun to run, it will be found where it runs.
            if prompt is not None and prompt.phase is Phase.PENDING and prompt.backend is reply.backend:
                dispatch.dropped(prompt, dispatch.now)


def _withdraw_on_its_way(dispatch: Dispatch, prompt: Prompt) -> None:
    """Whoever brings it somewhere will see that it is not wanted any more."""
    prompt.is_withdrawn = True
    if prompt.prompt_id in dispatch.stranded:
        dispatch.dropped(prompt, dispatch.now)


def interrupt(prompts: Sequence[Prompt]) -> Operation:
    """Interrupt those of ``prompts`` that run."""
    yield tuple(
        ask_to(prompt.backend, b"/interrupt", "prompt_id", prompt.prompt_id)
        for prompt in prompts
        if prompt.phase is Phase.RUNNING
    )


def cancel(dispatch: Dispatch, prompt_ids: Sequence[str]) -> Operation:
    """Cancel ``prompt_ids``, whether they wait or run; returns whether any was cancelled."""
    is_any = False
    unknown = []
    for prompt_id in prompt_ids:
        prompt = dispatch.ledger.get(prompt_id)
        if prompt is None:
            unknown.append(prompt_id)
        elif prompt.phase is Phase.SENDING:
            _withdraw_on_its_way(dispatch, prompt)
            is_any = True
        elif (yield from _cancel_at(prompt.backend, prompt_id)):
            is_any = True
            if prompt.phase is Phase.PENDING:
                dispatch.dropped(prompt, dispatch.now)
    for prompt_id in unknown:
        for backend in dispatch.answering():
            is_any = (yield from _cancel_at(backend, prompt_id)) or is_any
    return is_any


def _cancel_at(backend: Backend, prompt_id: str) -> Operation:
    """Cancel one prompt at ``backend``; returns whether there was something to cancel."""
    target = b"/api/jobs/%b/cancel" % quote(prompt_id, safe="", errors="replace").encode()
    reply: Reply = yield Ask(backend, b"POST", target)
    told = cancelled(reply)
    if told is not None or reply.head is None:
        return bool(told)
    # A ComfyUI older than 0.26: do what a newer one would do.
    found: Found = yield from look_up(backend, prompt_id)
    if found.place in (Place.PENDING, Place.RUNNING):
        yield from take_back(backend, prompt_id)
        return True
    return False
