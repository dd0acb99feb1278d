"""The requests that change queues and histories, answered as one ComfyUI answers them."""

import json
import re
from collections.abc import Sequence

from comfyproxy.comfyui.callers import Caller
from comfyproxy.comfyui.merging.history import read_history
from comfyproxy.comfyui.prompts.dispatch import Dispatch
from comfyproxy.comfyui.prompts.ledger import Phase
from comfyproxy.comfyui.prompts.locating import Found, Place, look_up
from comfyproxy.comfyui.prompts.reconciling import reconcile
from comfyproxy.comfyui.prompts.withdrawing import ask_to, cancel, delete, interrupt, own
from comfyproxy.comfyui.steps import together
from comfyproxy.comfyui.wire import Document, ids_in
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation, Reply
from comfyproxy.core.balancing.routing import Decision, Respond
from comfyproxy.core.http.http1 import RequestHead

_DONE = Respond(200, b"", b"application/octet-stream")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def edit_queue(dispatch: Dispatch, head: RequestHead, document: Document) -> Operation:
    """``POST /queue``: ``{"clear": true}`` deletes what waits of the caller's, ``{"delete": []}`` these."""
    caller: Caller = yield from dispatch.callers.identify(head)
    prompt_ids = list(ids_in(document.get("delete")))
    if document.get("clear"):
        prompt_ids += [
            prompt.prompt_id for prompt in own(dispatch, caller) if prompt.phase is not Phase.RUNNING
        ]
    if prompt_ids:
        yield from _find(dispatch, prompt_ids)
        yield from delete(dispatch, dict.fromkeys(prompt_ids))
    return _DONE


def _find(dispatch: Dispatch, prompt_ids: Sequence[str]) -> Operation:
    """Know of prompts that were submitted elsewhere, or before this proxy began, ere they are touched: their
    clients are told what becomes of what the ledger has."""
    if any(dispatch.ledger.get(prompt_id) is None for prompt_id in prompt_ids):
        yield from together([reconcile(dispatch, backend) for backend in dispatch.answering()])


def edit_history(dispatch: Dispatch, head: RequestHead, document: Document) -> Operation:
    """``POST /history``: ``{"clear": true}`` forgets what has ended of the caller's, ``{"delete": []}``
    these."""
    caller: Caller = yield from dispatch.callers.identify(head)
    by_backend: dict[Backend, list[str]] = {}
    for prompt_id in ids_in(document.get("delete")):
        dispatch.endings.remove(prompt_id)
        owner = dispatch.ledger.backend_of(prompt_id)
        for backend in dispatch.answering() if owner is None else (owner,):
            by_backend.setdefault(backend, []).append(prompt_id)
    if document.get("clear"):
        for prompt_id in dispatch.endings.of(lambda owner: dispatch.callers.owns(caller, owner)):
            dispatch.endings.remove(prompt_id)
        yield from _find_own_history(dispatch, caller, by_backend)
    yield tuple(ask_to(backend, b"/history", "delete", ids) for backend, ids in by_backend.items())
    return _DONE


def _find_own_history(dispatch: Dispatch, caller: Caller, found: dict[Backend, list[str]]) -> Operation:
    """Add to ``found`` what is the caller's of the histories of all servers."""
    replies: tuple[Reply, ...] = yield tuple(
        Ask(backend, b"GET", b"/history") for backend in dispatch.answering()
    )
    for reply in replies:
        ids = [
            ended.prompt_id for ended in read_history(reply) or () if _is_own(dispatch, caller, ended.entry)
        ]
        if ids:
            found.setdefault(reply.backend, []).extend(ids)


def _is_own(dispatch: Dispatch, caller: Caller, entry: Document) -> bool:
    row = entry.get("prompt")
    extra = row[3] if isinstance(row, list) and len(row) > 3 else None
    client_id = extra.get("client_id") if isinstance(extra, dict) else None
    owner = dispatch.callers.owner(client_id if isinstance(client_id, str) else "", extra)
    return dispatch.callers.owns(caller, owner)


def interrupt_running(dispatch: Dispatch, head: RequestHead, document: Document) -> Operation:
    """``POST /interrupt``: the prompt that is named, else what runs of the caller's."""
    prompt_id = document.get("prompt_id")
    if not prompt_id:
        caller: Caller = yield from dispatch.callers.identify(head)
        yield from interrupt(own(dispatch, caller))
    elif isinstance(prompt_id, str):
        yield from _find(dispatch, (prompt_id,))
        prompt = dispatch.ledger.get(prompt_id)
        if prompt is not None and prompt.phase is Phase.RUNNING:
            yield from interrupt((prompt,))
        elif prompt is not None and prompt.phase is Phase.PENDING:
            yield from _interrupt_if_it_runs(prompt.backend, prompt_id)
    return _DONE


def _interrupt_if_it_runs(backend: Backend, prompt_id: str) -> Operation:
    """Interrupt a prompt of which it is not known that it runs. A ComfyUI before 0.3.57 would interrupt
    whatever else does, so it must run there."""
    found: Found = yield from look_up(backend, prompt_id)
    if found.place is Place.RUNNING:
        yield ask_to(backend, b"/interrupt", "prompt_id", prompt_id)


def cancel_job(dispatch: Dispatch, prompt_id: str) -> Operation:
    """``POST /api/jobs/{id}/cancel``."""
    return (yield from _cancel(dispatch, (prompt_id,)))


def cancel_jobs(dispatch: Dispatch, body: bytes, document: Document | None) -> Operation:
    """``POST /api/jobs/cancel``; an id that is none refuses all of them."""
    job_ids = document.get("job_ids") if document is not None else None
    if document is None and not _is_json(body):
        return _refused({"error": "Request body must be valid JSON"})
    if not isinstance(job_ids, list):
        return _refused({"error": "job_ids must be a list"})
    invalid = [
        one if isinstance(one, str) else repr(one)
        for one in job_ids
        if not (isinstance(one, str) and _UUID.fullmatch(one))
    ]
    if invalid:
        return _refused({"error": "job_ids contains invalid id(s)", "invalid_ids": invalid})
    return (yield from _cancel(dispatch, tuple(dict.fromkeys(job_ids))))


def _cancel(dispatch: Dispatch, prompt_ids: Sequence[str]) -> Operation:
    yield from _find(dispatch, prompt_ids)
    is_cancelled = yield from cancel(dispatch, prompt_ids)
    return Respond(200, json.dumps({"cancelled": is_cancelled}).encode())


def _refused(error: Document) -> Decision:
    return Respond(400, json.dumps(error).encode())


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
