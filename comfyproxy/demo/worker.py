"""ComfyUI's thread that takes prompts off the queue, here on a clock: never blocking, exact in tests."""

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from comfyproxy.demo.execution import Executor, Interrupted, Pauses
from comfyproxy.demo.queue import PromptQueue


class Worker:
    """Runs one prompt after the other, each as the pauses that its execution asks for.

    ``speed`` is how many times faster than life: at 2 a pause of a second takes half of one, at 0 none takes
    any time. ``log`` takes a line of text for the server's own log.
    """

    def __init__(
        self,
        clock: IReactorTime,
        queue: PromptQueue,
        executor: Executor,
        speed: float,
        log: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._queue = queue
        self._executor = executor
        self._speed = speed
        self._log = log
        self._pauses: Pauses | None = None
        self._interrupted = False
        self._call: IDelayedCall | None = None
        self._began = 0.0
        self._stopped = False

    def wake(self) -> None:
        """Something is in the queue, or a flag is set: look at the reactor's next turn, unless at work."""
        if self._call is None and not self._stopped:
            self._call = self._clock.callLater(0, self._begin)

    def interrupt(self) -> None:
        """End the running prompt now; nothing runs: nothing happens."""
        if self._pauses is not None and self._call is not None:
            self._interrupted = True
            self._call.reset(0)

    def stop(self) -> None:
        """Leave everything as it is, for good, with nothing left on the clock."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _begin(self) -> None:
        self._call = None
        self._apply_flags()
        if prompt := self._queue.take():
            self._began = self._clock.seconds()
            self._pauses = self._executor.run(prompt, self._began)
            self._follow(self._pauses.__next__)

    def _advance(self) -> None:
        assert self._pauses is not None
        if self._interrupted:
            self._follow(partial(self._pauses.throw, Interrupted()))
        else:
            self._follow(partial(self._pauses.send, self._clock.seconds()))

    def _follow(self, resume: Callable[[], float]) -> None:
        self._call = None
        self._interrupted = False
        try:
            pause = resume()
        except StopIteration:
            self._pauses = None
            self._log(f"Prompt executed in {self._clock.seconds() - self._began:.2f} seconds")
            self.wake()
        else:
            self._call = self._clock.callLater(pause / self._speed if self._speed else 0, self._advance)

    def _apply_flags(self) -> None:
        if self._queue.take_flags().get("free_memory"):
            self._executor.forget()
