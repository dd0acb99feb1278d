"""``POST /prompt`` of a pool: the prompt gets a server, and the client that server's answer.

Every prompt has an id and a client before it goes, so that it can be found again whatever happens, and its
number is that of its turn. A server that cannot be reached is passed over; one that refuses the prompt for
something that another may have (a model, a node pack) is given one chance to be wrong.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor

from comfyproxy.comfyui.callers import CALLER_KEY, Caller
from comfyproxy.comfyui.identity import mint_prompt_id
from comfyproxy.comfyui.merging.documents import read, write
from comfyproxy.comfyui.prompts.dispatch import Dispatch
from comfyproxy.comfyui.prompts.ledger import Prompt
from comfyproxy.comfyui.prompts.losing import name_of
from comfyproxy.comfyui.prompts.sending import Sent, Verdict, fields_of, send, with_members
from comfyproxy.comfyui.prompts.withdrawing import take_back
from comfyproxy.comfyui.scheduling.candidates import Lack, refusal
from comfyproxy.comfyui.wire import Document, is_id
from comfyproxy.comfyui.workflow import Workflow, read_workflow
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Operation
from comfyproxy.core.balancing.routing import Decision, Pin, Refuse, Respond
from comfyproxy.core.http.http1 import RequestHead

REFUSALS = 2
"""Servers that may refuse a prompt before their word is taken for it."""

_PLACEHOLDER = "a prompt without an id"


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client wants run: ``body`` is what is sent, with all but the prompt's id and its number."""

    body: bytes
    graph: Document
    workflow: Workflow
    client_id: str
    prompt_id: str | None
    is_urgent: bool
    caller: Caller
    fields: bytes


def submit(dispatch: Dispatch, head: RequestHead, body: bytes, document: Document | None) -> Operation:
    """Carry out a ``POST /prompt``; returns a `Decision`."""
    caller: Caller = yield from dispatch.callers.identify(head, document)
    submission = None if document is None else read_submission(dispatch, head, body, document, caller)
    candidates = dispatch.candidates()
    if not candidates:
        return Refuse(503, "No server can take a prompt at the moment.")
    if submission is None:
        return _at_home(dispatch, caller, candidates)
    answer: Decision | None = None
    lacks: dict[Backend, Sequence[Lack]] = {}
    while candidates:
        able, lacking = yield from dispatch.catalogs.sort_out(candidates, submission.graph, dispatch.now)
        lacks |= lacking
        known = dispatch.ledger.get(submission.prompt_id) if submission.prompt_id else None
        if known is not None:
            # ComfyUI takes the same id twice. Both belong where the first one is.
            return Pin(known.backend, strict=True)
        if able:
            nearest_first = _nearest_first(dispatch, caller, able)
            decision, submission = yield from _place(dispatch, submission, nearest_first)
            if not (isinstance(decision, Refuse) or _is_bad_request(decision)):
                return decision
            answer = decision if answer is None or isinstance(answer, Refuse) else answer
        # Right after a start some are known to work, and others that have what those lack are not yet.
        candidates = [one for one in (*dispatch.candidates(), *dispatch.unchecked()) if one not in lacks]
    if answer is not None:
        return answer
    closest = _closest(lacks)
    if closest:
        decision, _ = yield from _place(dispatch, submission, closest)
        if not _is_bad_request(decision):
            return decision
    named = {f"server {name_of(backend)}": missing for backend, missing in lacks.items()}
    return Respond(400, refusal(named, submission.graph))


def _is_bad_request(decision: Decision) -> bool:
    return isinstance(decision, Respond) and decision.status == 400


def _closest(lacks: Mapping[Backend, Sequence[Lack]]) -> list[Backend]:
    """The servers that lack nothing but models, and the fewest.

    ComfyUI runs those outputs of a prompt that have what they need, and a node may check its inputs itself:
    only a server can tell.
    """
    models = {
        backend: len(missing)
        for backend, missing in lacks.items()
        if all(lack.input_name for lack in missing)
    }
    return [backend for backend, count in models.items() if count == min(models.values())]


def read_submission(
    dispatch: Dispatch, head: RequestHead, body: bytes, document: Document, caller: Caller
) -> Submission | None:
    """What ``document`` asks for; ``None`` if no server would take it."""
    graph, workflow = document.get("prompt"), read_workflow(document)
    if not isinstance(graph, dict) or workflow is None:
        return None
    client_id, prompt_id = document.get("client_id"), document.get("prompt_id")
    if not is_id(client_id):
        client_id = dispatch.observer.client_id
        attributed = _attributed(document, client_id, caller)
        if attributed is None:
            return None
        body = attributed
    number = document.get("number")
    is_urgent = bool(document.get("front")) or (isinstance(number, int | float) and number < 0)
    if prompt_id is not None and not is_id(prompt_id):
        return None
    return Submission(
        body, graph, workflow, client_id, prompt_id, is_urgent, caller, fields_of(head, dispatch)
    )


def _attributed(document: Document, client_id: str, caller: Caller) -> bytes | None:
    """The submission of somebody without a client id, under ours; its extra data says whose it is."""
    extra = document.get("extra_data")
    extra = dict(extra) if isinstance(extra, dict) else {}
    extra[CALLER_KEY] = caller.fingerprint
    try:
        return json.dumps(document | {"extra_data": extra, "client_id": client_id}).encode()
    except (RecursionError, ValueError):
        return None


def _at_home(dispatch: Dispatch, caller: Caller, candidates: list[Backend]) -> Decision:
    """Whatever this is, a server says best what is wrong about it."""
    return Pin(dispatch.callers.affinity(caller.fingerprint) or candidates[0])


def _nearest_first(dispatch: Dispatch, caller: Caller, able: list[Backend]) -> list[Backend]:
    """``able`` with the caller's own server first: of equally good ones that is taken."""
    nearest = dispatch.callers.affinity(caller.fingerprint)
    return [*(one for one in able if one is nearest), *(one for one in able if one is not nearest)]


def _place(dispatch: Dispatch, submission: Submission, able: list[Backend]) -> Operation:
    """Send it to the best of ``able``, and to the next best as long as one fails.

    Returns a `Decision`, and the submission as it is to go on elsewhere: once it was sent it keeps its id.
    """
    refused: list[Sent] = []
    why = ""
    while able and len(refused) < REFUSALS:
        prompt = enter(dispatch, submission, able)
        backend = prompt.backend
        sent: Sent = yield from send(dispatch, prompt)
        if sent.verdict is Verdict.TAKEN:
            if prompt.is_withdrawn:
                yield from take_back(backend, prompt.prompt_id)
                dispatch.dropped(prompt, dispatch.now)
            return _taken(prompt, sent), submission
        dispatch.dropped(prompt, dispatch.now)
        if sent.reply is not None and sent.reply.was_sent:
            # The server may have it nevertheless, and show it one day: under this id it will be known.
            submission = replace(submission, prompt_id=prompt.prompt_id)
            if sent.verdict is Verdict.UNREACHED:
                dispatch.ledger.doubt(prompt, backend)
        able.remove(backend)
        able = [one for one in able if one in sent.holders] or able
        if sent.verdict is Verdict.REFUSED:
            refused.append(sent)
        if sent.reply is None:
            why = f" (server {name_of(backend)}: {sent.why})"
    if refused:
        return _answer(refused[0]), submission
    return Refuse(502, f"No server could be given the prompt{why}."), submission


def enter(dispatch: Dispatch, submission: Submission, able: list[Backend]) -> Prompt:
    """Choose a server for the prompt and write it into the ledger, on its way there."""
    now, owner, scheduler = dispatch.now, submission.caller.fingerprint, dispatch.scheduler
    prompt_id = submission.prompt_id or _PLACEHOLDER
    placed = scheduler.place(prompt_id, submission.workflow, owner, able, now, submission.is_urgent)
    if submission.prompt_id is None:
        prompt_id = mint_prompt_id(placed.backend.fingerprint, dispatch.random)
        scheduler.renamed(_PLACEHOLDER, prompt_id)
    prompt = Prompt(
        prompt_id,
        submission.client_id,
        owner,
        placed.backend,
        placed.number,
        submission.workflow,
        since=now,
        created=int(now * 1000),
        fields=submission.fields,
    )
    dispatch.ledger.add(prompt, with_members(submission.body, {"prompt_id": prompt_id}))
    dispatch.begin(prompt, placed.backend)
    return prompt


def _taken(prompt: Prompt, sent: Sent) -> Decision:
    """What the server says, if it does; its number is an integer, as ComfyUI's own are, for typed clients."""
    told = None if sent.reply is None else read(sent.reply)
    number = {"number": floor(prompt.number)}
    if not isinstance(told, dict):
        told = {"prompt_id": prompt.prompt_id, **number, "node_errors": {}}
    return Respond(200, write(told | number) or b"{}", backend=prompt.backend)


def _answer(sent: Sent) -> Decision:
    """The server's own answer."""
    reply = sent.reply
    assert reply is not None and reply.head is not None
    content_type = reply.head.value(b"content-type") or b"application/octet-stream"
    return Respond(reply.status, reply.body, content_type, backend=reply.backend)
