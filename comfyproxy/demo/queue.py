"""The prompt queue and the history of one server, as state without I/O or time.

Both live in one process's memory and nowhere else, which is why a proxy has to know who owns a prompt.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Graph = dict[str, dict[str, Any]]

MAXIMUM_HISTORY = 10_000


@dataclass(frozen=True, slots=True)
class QueuedPrompt:
    """One prompt that was accepted; ``secrets`` are the parts of extra_data that no answer may repeat."""

    number: float
    prompt_id: str
    graph: Graph
    extra_data: dict[str, Any]
    outputs: tuple[str, ...]
    secrets: Mapping[str, Any]

    def row(self) -> list[Any]:
        """As GET /queue and /history show it."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, list(self.outputs)]


class PromptQueue:
    """Pending prompts in the order of their numbers, the running one, and what became of the others.

    ``changed`` is called whenever ComfyUI would broadcast `status`, as often as it does.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._heap: list[tuple[float, str, int, QueuedPrompt]] = []
        self._serial = 0
        self.running: QueuedPrompt | None = None
        self.history: dict[str, dict[str, Any]] = {}
        self.flags: dict[str, Any] = {}

    def __len__(self) -> int:
        """Prompts that run or wait: ComfyUI's `queue_remaining`."""
        return len(self._heap) + (self.running is not None)

    @property
    def pending(self) -> list[QueuedPrompt]:
        """The waiting prompts as the heap has them: the next one first, the rest in no promised order."""
        return [entry[-1] for entry in self._heap]

    def put(self, prompt: QueuedPrompt) -> None:
        """Take one more prompt; the same prompt_id twice is two prompts."""
        self._serial += 1
        heapq.heappush(self._heap, (prompt.number, prompt.prompt_id, self._serial, prompt))
        self._changed()

    def take(self) -> QueuedPrompt | None:
        """The prompt with the smallest number, which is running from now on; None when nothing waits."""
        if not self._heap:
            return None
        self.running = heapq.heappop(self._heap)[-1]
        self._changed()
        return self.running

    def done(self, outputs: Mapping[str, Any], meta: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """The running prompt has ended: store its history, then say that the queue is shorter."""
        assert self.running is not None
        if len(self.history) > MAXIMUM_HISTORY:
            del self.history[next(iter(self.history))]
        ended, self.running = self.running, None
        self.history[ended.prompt_id] = {
            "prompt": ended.row(),
            "outputs": dict(outputs),
            "status": dict(status),
            "meta": dict(meta),
        }
        self._changed()

    def clear(self) -> None:
        """Forget everything that waits."""
        self._heap.clear()
        self._changed()

    def delete(self, prompt_id: str) -> bool:
        """Forget the first waiting prompt of that id; what runs already is left running."""
        for index, entry in enumerate(self._heap):
            if entry[-1].prompt_id == prompt_id:
                if len(self._heap) == 1:
                    self.clear()
                else:
                    del self._heap[index]
                    heapq.heapify(self._heap)
                self._changed()
                return True
        return False

    def history_slice(self, max_items: int | None = None, offset: int = -1) -> dict[str, dict[str, Any]]:
        """The last ``max_items`` of the history, oldest first; with ``offset``, as many from there on."""
        if max_items is None:
            return dict(list(self.history.items())[max(0, offset) :])
        start = len(self.history) - max_items if offset < 0 else offset
        return dict(list(self.history.items())[max(0, start) :][: max(1, max_items)])

    def delete_history(self, prompt_ids: Iterable[str]) -> None:
        """Forget what became of these prompts; unknown ids are no error."""
        for prompt_id in prompt_ids:
            self.history.pop(prompt_id, None)

    def take_flags(self) -> dict[str, Any]:
        """What POST /free asked for since the last time."""
        flags, self.flags = self.flags, {}
        return flags
