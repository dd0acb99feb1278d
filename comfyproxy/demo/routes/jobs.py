"""/api/jobs, since ComfyUI 0.6: declared with its prefix, so /jobs is unknown and /api/api/jobs is not."""

from collections.abc import Iterator

from comfyproxy.demo.jobs import BadQuery, JobsQuery, find_job, is_job_id, list_jobs
from comfyproxy.demo.machine import Machine
from comfyproxy.demo.routing import Answer, Asked, Malformed, Route, json_answer


class JobRoutes:
    """What waits, runs and ended, as one list."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def routes(self) -> Iterator[Route]:
        yield Route("GET", "/api/jobs", self.get_jobs)
        yield Route("POST", "/api/jobs/cancel", self.post_cancel)
        yield Route("GET", "/api/jobs/{job_id}", self.get_job)
        yield Route("POST", "/api/jobs/{job_id}/cancel", self.post_cancel_of_job)

    def get_jobs(self, asked: Asked) -> Answer:
        try:
            query = JobsQuery.parse(asked.query)
        except BadQuery as error:
            return json_answer({"error": str(error)}, 400)
        return json_answer(list_jobs(self._machine.queue, query))

    def get_job(self, asked: Asked) -> Answer:
        job = find_job(self._machine.queue, asked.found["job_id"])
        return json_answer({"error": "Job not found"}, 404) if job is None else json_answer(job)

    def post_cancel_of_job(self, asked: Asked) -> Answer:
        """Idempotent: what is unknown or has ended is not cancelled, and that is no error."""
        return json_answer({"cancelled": self._cancel(asked.found["job_id"])})

    def post_cancel(self, asked: Asked) -> Answer:
        try:
            body = asked.json()
        except Malformed:
            return json_answer({"error": "Request body must be valid JSON"}, 400)
        job_ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(job_ids, list):
            return json_answer({"error": "job_ids must be a list"}, 400)
        if invalid := [
            job_id if isinstance(job_id, str) else repr(job_id) for job_id in job_ids if not is_job_id(job_id)
        ]:
            return json_answer({"error": "job_ids contains invalid id(s)", "invalid_ids": invalid}, 400)
        cancelled = [self._cancel(job_id) for job_id in job_ids]
        return json_answer({"cancelled": any(cancelled)})

    def _cancel(self, job_id: str) -> bool:
        running = self._machine.queue.running
        if running and running.prompt_id == job_id:
            self._machine.worker.interrupt()
            return True
        return self._machine.queue.delete(job_id)
