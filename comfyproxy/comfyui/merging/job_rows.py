"""A job of ``/api/jobs`` made from a row of the queue or an entry of the history, as ComfyUI makes it.

Servers before 0.6 have no jobs; from 0.6 on their jobs are made of just these.
"""

from comfyproxy.comfyui.merging.documents import is_number
from comfyproxy.comfyui.merging.history import ENDINGS, ended_status, messages_of
from comfyproxy.comfyui.merging.known import Row, Status
from comfyproxy.comfyui.merging.outputs import named, summarise
from comfyproxy.comfyui.wire import Document


def queued_job(row: Row, status: Status) -> Document:
    """The job of a prompt that runs or waits."""
    number, prompt_id, _, extra, _ = row[:5]
    return _without_nothing(
        id=prompt_id,
        status=str(status),
        priority=number,
        create_time=_created(extra),
        outputs_count=0,
        previewable_outputs_count=0,
        workflow_id=_workflow_id(extra),
    )


def ended_job(prompt_id: str, entry: Document) -> Document:
    """The job of a prompt that has ended."""
    number, _, _, extra, _ = entry["prompt"][:5]
    start = end = error = None
    for kind, data in messages_of(entry):
        if kind == "execution_start":
            start = data.get("timestamp")
        elif kind in ENDINGS:
            end = data.get("timestamp")
            error = data if kind == "execution_error" else error
    summary = summarise(entry["outputs"])
    return _without_nothing(
        id=prompt_id,
        status=str(ended_status(entry)),
        priority=number,
        create_time=_created(extra, start),
        execution_start_time=start,
        execution_end_time=end,
        execution_error=error,
        outputs_count=summary.count,
        previewable_outputs_count=summary.previewable,
        preview_output=summary.preview,
        workflow_id=_workflow_id(extra),
    )


def queued_job_in_full(row: Row, status: Status) -> Document:
    """As ``GET /api/jobs/{id}`` has it."""
    return queued_job(row, status) | {"workflow": {"prompt": row[2], "extra_data": row[3]}}


def ended_job_in_full(prompt_id: str, entry: Document) -> Document:
    """As ``GET /api/jobs/{id}`` has it."""
    _, _, graph, extra, _ = entry["prompt"][:5]
    return ended_job(prompt_id, entry) | {
        "outputs": named(entry["outputs"]),
        "execution_status": entry.get("status"),
        "workflow": {"prompt": graph, "extra_data": extra},
    }


def _created(extra: Document, start: object = None) -> float:
    """When it was created, in milliseconds. Servers before 0.3.6x do not say, and the page needs a number."""
    for time in (extra.get("create_time"), start):
        if is_number(time):
            return time
    return 0


def _workflow_id(extra: Document) -> str | None:
    pnginfo = extra.get("extra_pnginfo")
    workflow = pnginfo.get("workflow") if isinstance(pnginfo, dict) else None
    found = workflow.get("id") if isinstance(workflow, dict) else None
    return found if isinstance(found, str) else None


def _without_nothing(**members: object) -> Document:
    return {name: value for name, value in members.items() if value is not None}
