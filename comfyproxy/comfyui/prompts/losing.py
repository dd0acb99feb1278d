"""What becomes of prompts whose server is gone, and of those that ended unheard."""

from functools import partial
from typing import Any

from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.prompts.dispatch import Dispatch
from comfyproxy.comfyui.prompts.ledger import Phase, Prompt, unpack
from comfyproxy.comfyui.prompts.locating import Found, is_completed
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend

OTHERS_TURN = 5.0
"""Seconds that other proxies are given to bring the prompts that they submitted to another server. It may be
twice as long, so that of several proxies which found a prompt one is the first."""

MAX_RUNS = 2
"""Times that a prompt may begin to run: what brought down two servers is not shown to a third."""


def lose(dispatch: Dispatch, prompt: Prompt, why: str) -> None:
    """The server of ``prompt`` does not have it any more: another one gets it, or it ends with an error."""
    backend, now = prompt.backend, dispatch.now
    was_running = prompt.phase is Phase.RUNNING
    if prompt.is_withdrawn:
        dispatch.dropped(prompt, now)
        return
    may_run_again = dispatch.options.requeue and prompt.runs < MAX_RUNS
    if not prompt.body or (was_running and not may_run_again):
        end_with_error(dispatch, prompt, f"The server {name_of(backend)} {why} while it had this prompt.")
        return
    prompt.becomes(Phase.SENDING, now)
    dispatch.scheduler.lost(prompt.prompt_id)
    wait = OTHERS_TURN * (1 + dispatch.random(1)[0] / 256) if prompt.is_found else 0.0
    dispatch.stranded[prompt.prompt_id] = now + wait
    dispatch.wake()


def give_up(dispatch: Dispatch, backend: Backend) -> None:
    """``backend`` is gone, and its queue with it."""
    dispatch.server(backend).gone(dispatch.now)
    dispatch.scheduler.forget(backend)
    dispatch.catalogs.forget(backend)
    for prompt in dispatch.ledger.on(backend):
        if prompt.is_queued:
            dispatch.ledger.doubt(prompt, backend)
            lose(dispatch, prompt, "was lost")


def end_with_error(dispatch: Dispatch, prompt: Prompt, message: str) -> None:
    """``prompt`` ends here: its client is told why, and the lists go on showing it."""
    about: Document = {"prompt_id": prompt.prompt_id, "timestamp": int(dispatch.now * 1000)}
    error = about | {
        "node_id": "",
        "node_type": "",
        "executed": [],
        "exception_message": message,
        "exception_type": "ServerLost",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
    }
    began: Document = {"prompt_id": prompt.prompt_id, "timestamp": int(prompt.since * 1000)}
    known = Known(
        prompt.prompt_id,
        Status.FAILED,
        prompt.number,
        prompt.created,
        None,
        dispatch.now,
        partial(unpack, prompt.body),
        (("execution_start", began), ("execution_error", error)),
    )
    dispatch.endings.add(known, prompt.owner, len(prompt.body))
    _tell(dispatch, prompt, [("execution_error", error)])
    dispatch.ended(prompt, False, dispatch.now)


def conclude(dispatch: Dispatch, prompt: Prompt, found: Found) -> None:
    """``prompt`` has ended, and is in the history of its server: tell its client what it may have missed."""
    entry = found.entry or {}
    pictures = _pictures(dispatch, prompt, entry)
    _tell(dispatch, prompt, [*pictures, *_messages(prompt.prompt_id, entry)])
    dispatch.ended(prompt, is_completed(entry), dispatch.now)


def name_of(backend: Backend) -> str:
    """What people call ``backend``."""
    return backend.address.name or f"number {backend.index + 1}"


def _tell(dispatch: Dispatch, prompt: Prompt, events: list[tuple[str, Document]]) -> None:
    """Let the client of ``prompt`` have ``events``, and that this was the end."""
    session = dispatch.find_session(prompt.client_id)
    if session is None:
        return
    last = ("executing", {"node": None, "prompt_id": prompt.prompt_id})
    session.synthesise([{"type": kind, "data": data} for kind, data in (*events, last)], dispatch.now)


def _messages(prompt_id: str, entry: Document) -> list[tuple[str, Document]]:
    """The events that the history has of a prompt, but its beginning."""
    status: Any = entry.get("status")
    messages = status.get("messages") if isinstance(status, dict) else None
    found = []
    for message in messages if isinstance(messages, list) else ():
        match message:
            case [str() as kind, dict() as data] if kind != "execution_start":
                found.append((kind, data | {"prompt_id": prompt_id}))
    return found


def _pictures(dispatch: Dispatch, prompt: Prompt, entry: Document) -> list[tuple[str, Document]]:
    """The ``executed`` events of a prompt, of which the history has only the outputs."""
    outputs = dispatch.ownership.mark(entry.get("outputs"), prompt.backend)
    return [
        ("executed", {"node": node, "display_node": node, "output": output, "prompt_id": prompt.prompt_id})
        for node, output in (outputs.items() if isinstance(outputs, dict) else ())
        if isinstance(output, dict)
    ]
