"""Runs one prompt at a time, as a generator of pauses, and tells its client how it goes.

The order of messages is ComfyUI's (execution.py and main.py): execution_start, execution_cached, then per
node progress_state, executing, its steps, executed; execution_success; only then the history is stored,
`status` goes out, and `executing` with no node ends it. A prompt without a client_id tells its start, nodes
and success to nobody, but its progress to everybody.
"""

import random
from collections.abc import Generator, Mapping
from typing import Any

from comfyproxy.demo import events
from comfyproxy.demo.clients import Clients
from comfyproxy.demo.events import Event, NodeProgress, Preview
from comfyproxy.demo.files import Files
from comfyproxy.demo.graph import execution_order, signatures
from comfyproxy.demo.nodes import Made, Node, NodeFailed, Step, Work, Workshop
from comfyproxy.demo.queue import PromptQueue, QueuedPrompt

Now = float
Pauses = Generator[float, Now, None]


class Interrupted(Exception):
    """Thrown into a running prompt: it is to end now."""


class Executor:
    """What one server runs, for whom, and what earlier prompts left to be reused."""

    def __init__(
        self,
        server: str,
        hue: float,
        nodes: Mapping[str, type[Node]],
        files: Files,
        queue: PromptQueue,
        clients: Clients,
    ) -> None:
        self.server = server
        self.hue = hue
        self.nodes = nodes
        self.files = files
        self.queue = queue
        self.clients = clients
        self.dice = random.Random(server)
        self.cache: dict[str, Made] = {}
        self.client_id: str | None = None
        self.last_node: str | None = None

    def forget(self) -> None:
        """Drop what earlier prompts made (POST /free with free_memory)."""
        self.cache.clear()

    def run(self, prompt: QueuedPrompt, now: Now) -> Pauses:
        """Run the prompt that the queue has given: yields pauses in seconds, is sent the time after each.

        Throwing `Interrupted` in ends it early; it still stores its history. ``now`` is in seconds since the
        epoch.
        """
        self.client_id = prompt.extra_data.get("client_id")
        run = _Run(prompt, self, now)
        succeeded = yield from run.execute()
        self.last_node = None
        said = [[event.type, event.data] for event in run.said]
        status = {"status_str": "success" if succeeded else "error", "completed": succeeded, "messages": said}
        self.queue.done(run.shown, run.meta, status)
        if self.client_id is not None:
            self.clients.publish(events.executing(None, prompt.prompt_id), self.client_id)


class _Run:
    """One prompt on its way through an `Executor`."""

    def __init__(self, prompt: QueuedPrompt, executor: Executor, now: Now) -> None:
        self._prompt = prompt
        self._executor = executor
        self._now = now
        self._progress: dict[str, NodeProgress] = {}
        self._made: dict[str, Made] = {}
        self._executed: list[str] = []
        self._current = ""
        self.said: list[Event] = []
        self.shown: dict[str, Any] = {}
        self.meta: dict[str, Any] = {}

    def execute(self) -> Generator[float, Now, bool]:
        executor, prompt = self._executor, self._prompt
        self._say("execution_start", {})
        cache = executor.cache
        digests = signatures(prompt.graph, executor.nodes, executor.files, prompt.outputs)
        cached = [node_id for node_id, digest in digests.items() if digest in cache]
        self._made = {node_id: cache[digests[node_id]] for node_id in cached}
        executor.cache = {digests[node_id]: made for node_id, made in self._made.items()}
        self._say("execution_cached", {"nodes": cached})
        try:
            for node_id in execution_order(prompt.graph, prompt.outputs, cached):
                self._current = node_id
                if node_id in self._made:
                    self._finish(node_id, self._made[node_id])
                    continue
                made = yield from self._run_node(node_id)
                self._made[node_id] = executor.cache[digests[node_id]] = made
                self._finish(node_id, made)
                self._executed.append(node_id)
        except Interrupted:
            self._say("execution_interrupted", self._where(), broadcast=True)
            return False
        except Exception as failure:  # as in ComfyUI: whatever a node raises ends its prompt, not the server
            self._say("execution_error", self._where() | self._why(failure))
            return False
        self._say("execution_success", {})
        return True

    def _run_node(self, node_id: str) -> Generator[float, Now, Made]:
        node = self._prompt.graph[node_id]
        self._report(node_id, NodeProgress(0.0, 1.0, "running"))
        if self._executor.client_id is not None:
            self._executor.last_node = node_id
            self._publish(events.executing(node_id, self._prompt.prompt_id))
        self._now = yield 0.0
        inputs = {name: self._value(value) for name, value in node["inputs"].items()}
        work = self._executor.nodes[node["class_type"]].run(inputs, self._workshop())
        return (yield from self._follow(node_id, work))

    def _follow(self, node_id: str, work: Work) -> Generator[float, Now, Made]:
        while True:
            try:
                step = next(work)
            except StopIteration as done:
                return done.value
            self._now = yield step.seconds
            self._take_step(node_id, step)

    def _take_step(self, node_id: str, step: Step) -> None:
        """One step, told four times over, as ComfyUI's two ways of telling it stand side by side."""
        prompt_id, sid, clients = self._prompt.prompt_id, self._executor.client_id, self._executor.clients
        shown = Preview(step.image, prompt_id, node_id)
        newer = clients.supports(sid, "supports_preview_metadata")
        self._report(node_id, NodeProgress(step.value, step.maximum, "running"))
        if newer:
            clients.publish_preview(shown, sid, with_metadata=True)
        self._publish(events.progress(node_id, prompt_id, step.value, step.maximum))
        if not newer:
            clients.publish_preview(shown, sid, with_metadata=False)

    def _finish(self, node_id: str, made: Made) -> None:
        if made.shown:
            self.shown[node_id] = made.shown
            self.meta[node_id] = {
                "node_id": node_id,
                "display_node": node_id,
                "parent_node": None,
                "real_node_id": node_id,
            }
            if self._executor.client_id is not None:
                self._publish(events.executed(node_id, self._prompt.prompt_id, made.shown))
        last = self._progress.get(node_id, NodeProgress(0, 1, "pending"))
        self._report(node_id, NodeProgress(last.maximum, last.maximum, "finished"))

    def _report(self, node_id: str, progress: NodeProgress) -> None:
        self._progress[node_id] = progress
        self._publish(events.progress_state(self._prompt.prompt_id, self._progress))

    def _say(self, kind: str, data: Mapping[str, Any], *, broadcast: bool = False) -> None:
        """A message that the history keeps; of nobody's prompt it is sent to nobody, or (``broadcast``) to
        all.
        """
        event = Event(kind, {"prompt_id": self._prompt.prompt_id, **data, "timestamp": int(self._now * 1000)})
        self.said.append(event)
        if self._executor.client_id is not None or broadcast:
            self._publish(event)

    def _publish(self, event: Event) -> None:
        self._executor.clients.publish(event, self._executor.client_id)

    def _value(self, value: Any) -> Any:
        return self._made[value[0]].outputs[value[1]] if isinstance(value, list) else value

    def _workshop(self) -> Workshop:
        executor = self._executor
        return Workshop(executor.server, executor.hue, executor.files, executor.dice, self._prompt, self._now)

    def _where(self) -> dict[str, Any]:
        class_type = self._prompt.graph[self._current]["class_type"]
        return {"node_id": self._current, "node_type": class_type, "executed": list(self._executed)}

    def _why(self, failure: Exception) -> dict[str, Any]:
        inputs = self._prompt.graph[self._current]["inputs"]
        kind = failure.exception_type if isinstance(failure, NodeFailed) else type(failure).__qualname__
        return {
            "exception_message": f"{failure}\n",
            "exception_type": kind,
            "traceback": [],
            "current_inputs": {name: [str(value)] for name, value in inputs.items()},
            "current_outputs": list(self._prompt.graph),
        }
