"""What is asked for: /prompt, /queue, /history, /interrupt and /free."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

from comfyproxy.demo import events
from comfyproxy.demo.graph import validate
from comfyproxy.demo.jobs import is_job_id
from comfyproxy.demo.machine import Machine
from comfyproxy.demo.queue import QueuedPrompt
from comfyproxy.demo.routing import Answer, Asked, Malformed, Route, json_answer

_SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")


class PromptRoutes:
    """The queue of one server, over HTTP."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def routes(self) -> Iterator[Route]:
        yield Route("GET", "/prompt", self.get_prompt)
        yield Route("POST", "/prompt", self.post_prompt)
        yield Route("GET", "/queue", self.get_queue)
        yield Route("POST", "/queue", self.post_queue)
        yield Route("GET", "/history", self.get_history)
        yield Route("GET", "/history/{prompt_id}", self.get_history_of_prompt)
        yield Route("POST", "/history", self.post_history)
        yield Route("POST", "/interrupt", self.post_interrupt)
        yield Route("POST", "/free", self.post_free)

    def get_prompt(self, asked: Asked) -> Answer:
        return json_answer(events.queue_info(len(self._machine.queue)))

    def post_prompt(self, asked: Asked) -> Answer:
        machine = self._machine
        machine.log("got prompt")
        body = asked.json_object()
        number = self._number(body)
        if "prompt" not in body:
            return _refusal(
                {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided"}
            )
        prompt_id = self._prompt_id(body)
        if prompt_id is None:
            return _refusal(
                {
                    "type": "invalid_prompt_id",
                    "message": "prompt_id must be a valid UUID",
                    "details": "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
                    "omit it to let the server generate one",
                }
            )
        graph = _graph(body["prompt"])
        targets = body.get("partial_execution_targets")
        verdict = validate(graph, machine.installation.nodes, machine.files, targets)
        if verdict.error is not None:
            machine.log(f"invalid prompt: {verdict.error}")
            return json_answer({"error": verdict.error, "node_errors": verdict.node_errors}, 400)
        extra_data, secrets = self._extra_data(asked, body)
        machine.queue.put(QueuedPrompt(number, prompt_id, graph, extra_data, verdict.outputs, secrets))
        machine.worker.wake()
        return json_answer({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    def get_queue(self, asked: Asked) -> Answer:
        queue = self._machine.queue
        running = [queue.running.row()] if queue.running else []
        return json_answer(
            {"queue_running": running, "queue_pending": [prompt.row() for prompt in queue.pending]}
        )

    def post_queue(self, asked: Asked) -> Answer:
        body = asked.json_object()
        if body.get("clear"):
            self._machine.queue.clear()
        for prompt_id in _ids(body):
            self._machine.queue.delete(prompt_id)
        return Answer()

    def get_history(self, asked: Asked) -> Answer:
        max_items, offset = _integer(asked, "max_items"), _integer(asked, "offset")
        return json_answer(self._machine.queue.history_slice(max_items, -1 if offset is None else offset))

    def get_history_of_prompt(self, asked: Asked) -> Answer:
        """An unknown id is an empty answer, not an error."""
        prompt_id = asked.found["prompt_id"]
        entry = self._machine.queue.history.get(prompt_id)
        return json_answer({prompt_id: entry} if entry else {})

    def post_history(self, asked: Asked) -> Answer:
        body = asked.json_object()
        if body.get("clear"):
            self._machine.queue.history.clear()
        self._machine.queue.delete_history(_ids(body))
        return Answer()

    def post_interrupt(self, asked: Asked) -> Answer:
        """With a prompt_id only that prompt, else whatever runs; 200 in any case."""
        machine = self._machine
        try:
            body = json.loads(asked.body)
        except ValueError:
            body = {}
        if not isinstance(body, dict):
            raise Malformed("the body is not a JSON object")
        wanted = body.get("prompt_id") if machine.installation.interrupt_by_id else None
        running = machine.queue.running
        if running and (not wanted or running.prompt_id == wanted):
            machine.log(f"Interrupting prompt {running.prompt_id}")
            machine.worker.interrupt()
        return Answer()

    def post_free(self, asked: Asked) -> Answer:
        body = asked.json_object()
        for flag in ("unload_models", "free_memory"):
            if body.get(flag):
                self._machine.queue.flags[flag] = body[flag]
                self._machine.worker.wake()
        return Answer()

    def _number(self, body: dict[str, Any]) -> float:
        """The caller's own place in the queue, or this server's next one, negative for the front."""
        if "number" in body:
            try:
                return float(body["number"])
            except (TypeError, ValueError):
                raise Malformed("number is none") from None
        number = self._machine.number
        self._machine.number += 1
        return -number if body.get("front") else number

    def _prompt_id(self, body: dict[str, Any]) -> str | None:
        """The caller's id or a new one; None when the caller's is not acceptable."""
        if not self._machine.installation.uuid_check:
            return str(body.get("prompt_id", uuid.uuid4()))
        if (given := body.get("prompt_id")) is None:
            return str(uuid.uuid4())
        return given if is_job_id(given) else None

    def _extra_data(self, asked: Asked, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        extra_data = body.get("extra_data", {})
        if not isinstance(extra_data, dict):
            raise Malformed("extra_data is not a JSON object")
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if source := asked.fields.get("comfy-usage-source"):
            extra_data.setdefault("comfy_usage_source", source)
        secrets = {name: extra_data.pop(name) for name in _SECRETS if name in extra_data}
        extra_data["create_time"] = int(self._machine.now() * 1000)
        return extra_data, secrets


def _graph(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(node, dict) for node in value.values()):
        raise Malformed("prompt is not a mapping of nodes")
    return value


def _ids(body: dict[str, Any]) -> list[str]:
    """What is to be deleted, if anything."""
    ids = body.get("delete", [])
    if not isinstance(ids, list):
        raise Malformed("delete is not a list")
    return [prompt_id for prompt_id in ids if isinstance(prompt_id, str)]


def _integer(asked: Asked, name: str) -> int | None:
    try:
        return int(asked.query[name]) if name in asked.query else None
    except ValueError:
        raise Malformed(f"{name} is not a number") from None


def _refusal(error: dict[str, Any]) -> Answer:
    return json_answer({"error": error | {"extra_info": {}}, "node_errors": {}}, 400)
