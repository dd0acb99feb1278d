"""GET /api/jobs: one list of what waits, runs and ended, made from the queue and the history."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfyproxy.demo.queue import PromptQueue, QueuedPrompt

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")

_ENDINGS = {"execution_success", "execution_error", "execution_interrupted"}


class BadQuery(ValueError):
    """A query that is answered with 400 and this sentence."""


@dataclass(frozen=True, slots=True)
class JobsQuery:
    """What GET /api/jobs was asked for; ``limit`` None is no limit (and is answered as null)."""

    statuses: tuple[str, ...] = STATUSES
    workflow_id: str = ""
    sort_by: str = "created_at"
    descending: bool = True
    limit: int | None = None
    offset: int = 0

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "JobsQuery":
        """From the query string.

        Raises BadQuery with ComfyUI's own words.
        """
        statuses = tuple(part.strip().lower() for part in query.get("status", "").split(",") if part.strip())
        if unknown := [name for name in statuses if name not in STATUSES]:
            raise BadQuery(
                f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}"
            )
        sort_by = query.get("sort_by", "created_at").lower()
        if sort_by not in ("created_at", "execution_duration"):
            raise BadQuery("sort_by must be 'created_at' or 'execution_duration'")
        sort_order = query.get("sort_order", "desc").lower()
        if sort_order not in ("asc", "desc"):
            raise BadQuery("sort_order must be 'asc' or 'desc'")
        limit = _integer(query, "limit")
        if limit is not None and limit <= 0:
            raise BadQuery("limit must be a positive integer")
        return cls(
            statuses=statuses or STATUSES,
            workflow_id=query.get("workflow_id", ""),
            sort_by=sort_by,
            descending=sort_order == "desc",
            limit=limit,
            offset=max(0, _integer(query, "offset") or 0),
        )


def list_jobs(queue: PromptQueue, query: JobsQuery) -> dict[str, Any]:
    """The answer of GET /api/jobs."""
    found = [job for job in _all_jobs(queue) if job["status"] in query.statuses]
    if query.workflow_id:
        found = [job for job in found if job.get("workflow_id") == query.workflow_id]
    found.sort(key=_duration if query.sort_by == "execution_duration" else _created, reverse=query.descending)
    stop = None if query.limit is None else query.offset + query.limit
    shown = found[query.offset : stop]
    return {
        "jobs": shown,
        "pagination": {
            "offset": query.offset,
            "limit": query.limit,
            "total": len(found),
            "has_more": query.offset + len(shown) < len(found),
        },
    }


def find_job(queue: PromptQueue, prompt_id: str) -> dict[str, Any] | None:
    """One job with its workflow and, once it has ended, its outputs; None when the id is not known here."""
    if entry := queue.history.get(prompt_id):
        job = _ended_job(prompt_id, entry)
        return job | {
            "outputs": entry["outputs"],
            "execution_status": entry["status"],
            "workflow": {"prompt": entry["prompt"][2], "extra_data": entry["prompt"][3]},
        }
    for prompt, status in _queued(queue):
        if prompt.prompt_id == prompt_id:
            workflow = {"prompt": prompt.graph, "extra_data": prompt.extra_data}
            return _queued_job(prompt, status) | {"workflow": workflow}
    return None


def is_job_id(value: object) -> bool:
    """Whether ``value`` is a UUID in canonical form (lower case, hyphens), all that ComfyUI >= 0.25 takes."""
    if not isinstance(value, str):
        return False
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _integer(query: Mapping[str, str], name: str) -> int | None:
    try:
        return int(query[name]) if name in query else None
    except ValueError:
        raise BadQuery(f"{name} must be an integer") from None


def _all_jobs(queue: PromptQueue) -> list[dict[str, Any]]:
    waiting = [_queued_job(prompt, status) for prompt, status in _queued(queue)]
    return waiting + [_ended_job(prompt_id, entry) for prompt_id, entry in queue.history.items()]


def _queued(queue: PromptQueue) -> list[tuple[QueuedPrompt, str]]:
    running = [(queue.running, "in_progress")] if queue.running else []
    return running + [(prompt, "pending") for prompt in queue.pending]


def _queued_job(prompt: QueuedPrompt, status: str) -> dict[str, Any]:
    return _pruned(
        id=prompt.prompt_id,
        status=status,
        priority=prompt.number,
        create_time=prompt.extra_data.get("create_time"),
        outputs_count=0,
        previewable_outputs_count=0,
        workflow_id=_workflow_id(prompt.extra_data),
    )


def _ended_job(prompt_id: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    number, _, _, extra_data, _ = entry["prompt"]
    said = dict(entry["status"]["messages"])
    end = next((name for name in said if name in _ENDINGS), "")
    if entry["status"]["status_str"] == "success":
        status = "completed"
    else:
        status = "cancelled" if end == "execution_interrupted" else "failed"
    pictures = [
        picture | {"nodeId": node_id, "mediaType": "images"}
        for node_id, output in entry["outputs"].items()
        for picture in output.get("images", ())
    ]
    saved = [picture for picture in pictures if picture["type"] == "output"]
    return _pruned(
        id=prompt_id,
        status=status,
        priority=number,
        create_time=extra_data.get("create_time"),
        execution_start_time=said.get("execution_start", {}).get("timestamp"),
        execution_end_time=said.get(end, {}).get("timestamp"),
        execution_error=said.get("execution_error"),
        outputs_count=len(pictures),
        previewable_outputs_count=len(pictures),
        preview_output=next(iter(saved + pictures), None),
        workflow_id=_workflow_id(extra_data),
    )


def _workflow_id(extra_data: Mapping[str, Any]) -> str | None:
    return extra_data.get("extra_pnginfo", {}).get("workflow", {}).get("id")


def _pruned(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _created(job: Mapping[str, Any]) -> float:
    return job.get("create_time", 0)


def _duration(job: Mapping[str, Any]) -> float:
    start: float = job.get("execution_start_time", 0)
    end: float = job.get("execution_end_time", 0)
    return end - start if start and end else 0
