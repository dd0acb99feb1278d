"""Making the ledger agree with a server: what is in its queue, and what became of what is not.

Events tell how prompts fare as long as every connection holds. Where one was lost, where somebody else works
with the same server (another proxy, a person), after a restart of the server or of this proxy, and wherever a
``status`` says another number than the ledger, the server is asked.
"""

from collections.abc import Sequence

from comfyproxy.comfyui.merging.documents import is_number, write
from comfyproxy.comfyui.merging.known import Row, Status
from comfyproxy.comfyui.merging.queue import Queued, read_queue
from comfyproxy.comfyui.prompts.dispatch import Dispatch
from comfyproxy.comfyui.prompts.ledger import Phase, Prompt
from comfyproxy.comfyui.prompts.locating import Found, Place, history_target, read_history
from comfyproxy.comfyui.prompts.losing import conclude, lose
from comfyproxy.comfyui.prompts.withdrawing import take_back
from comfyproxy.comfyui.wire import Document
from comfyproxy.comfyui.workflow import read_workflow
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, Operation, Reply

AT_ONCE = 32
"""Prompts that the history is asked for at a time."""


def reconcile(dispatch: Dispatch, backend: Backend) -> Operation:
    """Look into the queue of ``backend``; in the end the ledger has what the server has."""
    server = dispatch.server(backend)
    server.is_checked = True
    try:
        asked_at = dispatch.now
        expected = [prompt for prompt in dispatch.ledger.on(backend) if prompt.is_queued]
        reply: Reply = yield Ask(backend, b"GET", b"/queue")
        queue = read_queue(reply)
        if queue is None:
            server.failed(reply.was_sent, dispatch.now)
            return
        was_lost = server.was_lost
        queue = [row for row in queue if not _is_old_news(dispatch, row, asked_at)]
        yield from _take_in(dispatch, backend, queue, was_lost)
        there = {row.prompt_id for row in queue}
        missing = [prompt for prompt in expected if prompt.is_queued and prompt.prompt_id not in there]
        strangers = sum(dispatch.ledger.get(prompt_id) is None for prompt_id in there)
        server.looked(strangers, dispatch.now)
        yield from _look_for(dispatch, backend, missing, was_lost)
    finally:
        server.is_checked = False


def _is_old_news(dispatch: Dispatch, row: Queued, asked_at: float) -> bool:
    """Whether a prompt has ended since the server was asked, and its answer does not know that."""
    ended = dispatch.ledger.ended(row.prompt_id)
    return ended is not None and ended.at >= asked_at


def _take_in(dispatch: Dispatch, backend: Backend, queue: Sequence[Queued], was_lost: bool) -> Operation:
    """Note what is in the queue of ``backend``; ``was_lost``: it had not been heard of for a while."""
    for queued in queue:
        is_running = queued.status is Status.IN_PROGRESS
        prompt = dispatch.ledger.get(queued.prompt_id)
        if prompt is None:
            is_void = was_lost or dispatch.ledger.is_doubted(queued.prompt_id, backend)
            if is_void and dispatch.ledger.ended(queued.prompt_id) is not None:
                # Given up with its server, or given to another one, it has ended otherwise.
                yield from take_back(backend, queued.prompt_id)
            else:
                _adopt(dispatch, backend, queued, is_running)
        elif prompt.backend is not backend or not prompt.is_queued:
            yield from _meet_again(dispatch, backend, prompt, is_running)
        elif is_running and prompt.phase is not Phase.RUNNING:
            dispatch.started(prompt, dispatch.now)


def _adopt(dispatch: Dispatch, backend: Backend, queued: Queued, is_running: bool) -> None:
    """A prompt that nobody here submitted: another proxy did, this one before its restart, or a person."""
    number, prompt_id, graph, extra, outputs = queued.row
    workflow = read_workflow({"prompt": graph})
    client_id = extra.get("client_id")
    client_id = client_id if isinstance(client_id, str) else ""
    owner = dispatch.callers.owner(client_id, extra)
    created = extra.get("create_time")
    prompt = Prompt(
        prompt_id,
        client_id,
        owner,
        backend,
        number,
        workflow,
        since=dispatch.now,
        created=int(created) if is_number(created) else int(dispatch.now * 1000),
        is_found=True,
    )
    dispatch.ledger.add(prompt, _submission_of(prompt_id, client_id, graph, extra, outputs))
    _place_at(dispatch, prompt, backend, is_running)


def _submission_of(prompt_id: str, client_id: str, graph: Document, extra: Document, outputs: Row) -> bytes:
    """What a row of a queue was submitted with, as far as the row says it."""
    members = {"prompt": graph, "extra_data": extra, "prompt_id": prompt_id}
    if client_id:
        members["client_id"] = client_id
    return write(members | {"partial_execution_targets": outputs}) or b""


def _place_at(dispatch: Dispatch, prompt: Prompt, backend: Backend, is_running: bool) -> None:
    """``prompt`` was found on ``backend``."""
    dispatch.stranded.pop(prompt.prompt_id, None)
    dispatch.ledger.assign(prompt, backend)
    dispatch.scheduler.adopt(
        prompt.prompt_id, prompt.workflow, prompt.owner, backend, prompt.number, is_running, dispatch.now
    )
    session = dispatch.find_session(prompt.client_id)
    if session is not None:
        session.adds(backend, prompt.prompt_id, dispatch.now)
    prompt.becomes(Phase.PENDING, dispatch.now)
    prompt.is_listed = True
    dispatch.ledger.settle(prompt)
    if is_running:
        dispatch.started(prompt, dispatch.now)


def _meet_again(dispatch: Dispatch, backend: Backend, prompt: Prompt, is_running: bool) -> Operation:
    """A prompt is on ``backend`` that was thought to be on another server, or on its way.

    Either ``backend`` had been given up and is back with what it had; then the prompt goes on where it is by
    now. Or another proxy has brought it here.
    """
    if prompt.prompt_id in dispatch.stranded or (prompt.is_found and prompt.is_queued):
        _place_at(dispatch, prompt, backend, is_running)
    elif prompt.is_queued:
        yield from take_back(backend, prompt.prompt_id)


def _look_for(dispatch: Dispatch, backend: Backend, missing: Sequence[Prompt], was_lost: bool) -> Operation:
    """Find out what became of prompts that are not in the queue of ``backend`` any more."""
    for start in range(0, len(missing), AT_ONCE):
        asked = missing[start : start + AT_ONCE]
        replies: tuple[Reply, ...] = yield tuple(
            Ask(backend, b"GET", history_target(prompt.prompt_id)) for prompt in asked
        )
        for prompt, reply in zip(asked, replies, strict=True):
            # Meanwhile its last event may have come, or somebody moved it.
            if (
                dispatch.ledger.get(prompt.prompt_id) is prompt
                and prompt.backend is backend
                and prompt.is_queued
            ):
                _conclude(dispatch, prompt, read_history(reply, prompt.prompt_id), was_lost)


def _conclude(dispatch: Dispatch, prompt: Prompt, found: Found, was_lost: bool) -> None:
    if found.place is Place.HISTORY:
        conclude(dispatch, prompt, found)
    elif found.place is Place.UNKNOWN:
        dispatch.server(prompt.backend).failed(True, dispatch.now)
    elif was_lost or prompt.is_taken_out:
        lose(dispatch, prompt, "was restarted" if was_lost else "lost it")
    else:
        # Somebody has deleted it there, as anybody may who reaches the server.
        dispatch.dropped(prompt, dispatch.now)
