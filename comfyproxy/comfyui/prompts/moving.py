"""Giving a server that has nothing to do a prompt that waits elsewhere, unnoticed by its client.

ComfyUI answers a deletion alike whether there was something to delete, something that runs already, or
nothing. So after it the server is asked for the prompt, and only one that it does not have any more goes on.
"""

from collections.abc import Iterator, Sequence

from comfyproxy.comfyui.merging.documents import read_body
from comfyproxy.comfyui.prompts.dispatch import Dispatch
from comfyproxy.comfyui.prompts.ledger import Phase, Prompt
from comfyproxy.comfyui.prompts.locating import Found, Place, look_up
from comfyproxy.comfyui.prompts.losing import conclude, end_with_error, name_of
from comfyproxy.comfyui.prompts.sending import Sent, Verdict, send
from comfyproxy.comfyui.prompts.withdrawing import ask_to, take_back
from comfyproxy.comfyui.scheduling.scheduler import Move
from comfyproxy.comfyui.wire import read_object
from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.operations import Operation, Reply

PAUSE = 0.5
"""Seconds that a prompt stays where it is at least: one that could not be moved is not tried all the time."""

MAX_REASON = 2000
"""Octets of a server's refusal that its reason is given with."""

RETRY = 2.0
"""Seconds until a prompt that no server takes is offered again."""


def plan_moves(dispatch: Dispatch) -> Iterator[Operation]:
    """The moves that are worth it now."""
    if not dispatch.ledger:
        return
    candidates = dispatch.candidates()
    yield from _leave(dispatch, candidates)

    takers = [backend for backend in candidates if dispatch.catalogs.is_answered(backend)]

    def movable(prompt_id: str) -> bool:
        prompt = dispatch.ledger.get(prompt_id)
        return prompt is not None and is_movable(prompt, dispatch.now)

    def can_run(prompt_id: str, backend: Backend) -> bool:
        prompt = dispatch.ledger.get(prompt_id)
        return backend in takers and prompt is not None and bool(able_to_run(dispatch, prompt, [backend]))

    for _ in takers:
        move = dispatch.scheduler.next_move(dispatch.now, movable, can_run)
        if move is None:
            return
        yield _begin(dispatch, move)


def _leave(dispatch: Dispatch, candidates: list[Backend]) -> Iterator[Operation]:
    """Move what waits on servers that an operator takes out of use."""
    for server in tuple(dispatch.servers.values()):
        source = server.backend
        if source.admin is AdminState.READY and not source.removed:
            continue
        for prompt in dispatch.ledger.on(source):
            if is_movable(prompt, dispatch.now) and (able := able_to_run(dispatch, prompt, candidates)):
                placed = dispatch.scheduler.place(
                    prompt.prompt_id, prompt.workflow, prompt.owner, able, dispatch.now
                )
                yield _begin(dispatch, Move(prompt.prompt_id, source, placed.backend, placed.number))


def _begin(dispatch: Dispatch, move: Move) -> Operation:
    prompt = dispatch.ledger.get(move.prompt_id)
    assert prompt is not None
    prompt.becomes(Phase.SENDING, dispatch.now)
    return carry_out(dispatch, prompt, move)


def is_movable(prompt: Prompt, now: float) -> bool:
    """Whether ``prompt`` waits, and we can submit it again. What others submitted, others may move."""
    is_ours = not prompt.is_found and bool(prompt.body)
    return is_ours and prompt.phase is Phase.PENDING and now - prompt.since >= PAUSE


def able_to_run(dispatch: Dispatch, prompt: Prompt, backends: Sequence[Backend]) -> list[Backend]:
    """Those that can run ``prompt``, as far as is known."""
    able, graph = [], None
    for backend in backends:
        catalog = dispatch.catalogs.get(backend)
        known, fits = prompt.fits.get(backend, (backend, True))
        if known is not catalog:
            if graph is None:
                graph = (read_object(prompt.submission) or {}).get("prompt") or {}
            fits = not dispatch.catalogs.lacking(backend, graph)
            prompt.fits[backend] = (catalog, fits)
        if fits:
            able.append(backend)
    return able


def carry_out(dispatch: Dispatch, prompt: Prompt, move: Move) -> Operation:
    """Take ``prompt`` from its server to another one."""
    found: Found = yield from _take_out(dispatch, prompt)
    if prompt.phase is not Phase.SENDING:
        # Meanwhile it has begun to run after all, or has ended.
        return
    if found.place is Place.HISTORY:
        conclude(dispatch, prompt, found)
    elif found.place is Place.ABSENT:
        prompt.number = move.number
        dispatch.begin(prompt, move.target)
        dispatch.scheduler.moved(move)
        yield from _send_on(dispatch, prompt)
    else:
        _stays(dispatch, prompt, move, found.place is Place.RUNNING)


def _take_out(dispatch: Dispatch, prompt: Prompt) -> Operation:
    reply: Reply = yield ask_to(prompt.backend, b"/queue", "delete", [prompt.prompt_id])
    prompt.is_taken_out = reply.status == 200 or reply.was_sent
    if reply.status != 200:
        return Found(Place.UNKNOWN, why=reply.why)
    return (yield from look_up(prompt.backend, prompt.prompt_id))


def _stays(dispatch: Dispatch, prompt: Prompt, move: Move, is_running: bool) -> None:
    """``prompt`` is still where it was, or its server does not say: then it will be asked again."""
    now = dispatch.now
    dispatch.scheduler.stayed(move)
    # One that was to leave its server had been placed anew.
    dispatch.scheduler.adopt(
        prompt.prompt_id, prompt.workflow, prompt.owner, move.source, prompt.number, is_running, now
    )
    prompt.becomes(Phase.PENDING, now)
    if is_running:
        dispatch.started(prompt, now)
    else:
        dispatch.server(move.source).check_soon(now)


def resubmit(dispatch: Dispatch, prompt: Prompt) -> Operation:
    """Bring a prompt that no server has to the best one; it waits where there is none."""
    able = able_to_run(dispatch, prompt, dispatch.candidates())
    if not able:
        dispatch.stranded[prompt.prompt_id] = dispatch.now + RETRY
        return
    del dispatch.stranded[prompt.prompt_id]
    placed = dispatch.scheduler.place(prompt.prompt_id, prompt.workflow, prompt.owner, able, dispatch.now)
    prompt.number, prompt.is_taken_out = placed.number, False
    dispatch.begin(prompt, placed.backend)
    yield from _send_on(dispatch, prompt)


def _send_on(dispatch: Dispatch, prompt: Prompt) -> Operation:
    """Send ``prompt`` to the server that it has been given; if it does not arrive, another one will be."""
    sent: Sent = yield from send(dispatch, prompt)
    prompt.is_taken_out = False
    if prompt.is_withdrawn:
        if sent.verdict is Verdict.TAKEN:
            yield from take_back(prompt.backend, prompt.prompt_id)
        dispatch.dropped(prompt, dispatch.now)
    elif sent.verdict is not Verdict.TAKEN:
        _pass_over(dispatch, prompt, sent)


def _pass_over(dispatch: Dispatch, prompt: Prompt, sent: Sent) -> None:
    """The server does not run ``prompt``: look for another one, unless every one refuses it."""
    backend = prompt.backend
    if sent.verdict is Verdict.REFUSED or sent.holders:
        prompt.fits[backend] = (dispatch.catalogs.get(backend), False)
        if not able_to_run(dispatch, prompt, dispatch.candidates()):
            end_with_error(
                dispatch, prompt, f"The server {name_of(backend)} refused this prompt: {_said(sent)}"
            )
            return
    if sent.verdict is Verdict.UNREACHED and sent.reply is not None and sent.reply.was_sent:
        dispatch.ledger.doubt(prompt, backend)
    dispatch.scheduler.lost(prompt.prompt_id)
    dispatch.stranded[prompt.prompt_id] = dispatch.now + (RETRY if sent.verdict is Verdict.UNREACHED else 0.0)


def _said(sent: Sent) -> str:
    try:
        return read_body(sent.reply)[:MAX_REASON].decode(errors="replace") if sent.reply else sent.why
    except ValueError:
        return sent.why
