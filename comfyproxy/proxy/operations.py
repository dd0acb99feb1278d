"""Carries out operations (`comfyproxy.core.balancing.operations`): each step of theirs with real connections.

A `Running` operation is told what came of each step, until it returns or `stop` closes it. Steps that need no
waiting take no turn of the reactor.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.operations import (
    Ask,
    AskAddress,
    OpenSocket,
    Operation,
    Reply,
    Step,
    Wait,
)
from comfyproxy.core.balancing.routing import WorkingRouter
from comfyproxy.core.http.headerrules import HeaderRules
from comfyproxy.proxy.asking import Question

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy


class Stoppable(Protocol):
    """Something under way."""

    def stop(self) -> None:
        """Nobody waits for it any more."""


class _Failed:
    """Stands for the result of an operation that raised."""


FAILED: Any = _Failed()
"""What ``done`` of a `Running` gets where its operation raised; the error is in the log."""

_PENDING: Any = object()


class Running:
    """An operation that is being carried out; ``done`` gets what it returns, or `FAILED`.

    ``client`` is the address of who asked, and ``rules`` change the fields of its requests. ``router``
    is whose work it is if nobody asked: it ends with it.
    """

    def __init__(
        self,
        proxy: "Proxy",
        balancer: Balancer,
        operation: Operation,
        done: Callable[[Any], None],
        client: bytes = b"",
        rules: HeaderRules | None = None,
        router: WorkingRouter | None = None,
    ) -> None:
        self.balancer = balancer
        self.client = client
        self.proxy = proxy
        self.router = router
        self.rules = rules
        self._done = done
        self._is_over = False
        self._is_stepping = False
        self._operation = operation
        self._result: Any = None
        self._step: Stoppable | None = None

    def start(self) -> None:
        """Begin."""
        self.proxy.operations.add(self)
        self._go_on(None)

    def stop(self) -> None:
        """Close it: nobody waits for what comes of it. ``done`` is not called."""
        if self._is_over:
            return
        self._is_over = True
        self.proxy.operations.discard(self)
        step, self._step = self._step, None
        if step is not None:
            step.stop()
        if not self._is_stepping:
            self._close()

    def _close(self) -> None:
        try:
            self._operation.close()
        except Exception:
            self.proxy.log_of_failures.failure("An operation failed as it was closed")

    def _go_on(self, result: Any) -> None:
        """Tell it what came of its step, and begin the next, until one has to be waited for."""
        self._result = result
        while self._result is not _PENDING and not self._is_over:
            result, self._result = self._result, _PENDING
            self._is_stepping = True
            try:
                self._step_on(result)
            except StopIteration as end:
                self._end(end.value)
            except Exception:
                self.proxy.log_of_failures.failure("An operation failed")
                self._close()
                self._end(FAILED)
            finally:
                self._is_stepping = False

    def _step_on(self, result: Any) -> None:
        self._step = None
        step = perform(self, self._operation.send(result), self._came)
        if not self._is_over:
            self._step = step
            return
        # Whoever was told by this step, or by its beginning, wants no more of it.
        if step is not None:
            step.stop()
        self._close()

    def _came(self, result: Any) -> None:
        if self._is_stepping:
            self._result = result
        elif not self._is_over:
            self._go_on(result)

    def _end(self, result: Any) -> None:
        if not self._is_over:
            self._is_over = True
            self._step = None
            self.proxy.operations.discard(self)
            self._done(result)


def perform(running: Running, step: Step, done: Callable[[Any], None]) -> Stoppable | None:
    """Begin ``step``; ``done`` gets what comes of it, perhaps before this returns."""
    if isinstance(step, Ask):
        question = Question(running.proxy, running.balancer, step, done, running.rules)
        question.start(step.timeout)
        return question
    if isinstance(step, OpenSocket):
        return running.proxy.sessions.open(running.balancer, step, done)
    if isinstance(step, AskAddress):
        done(running.client)
        return None
    if isinstance(step, Wait):
        return _Waiting(step, done)
    together = _Together(len(step), done)
    together.start(running, step)
    return together


class _Waiting:
    """A step that waits for a latch."""

    def __init__(self, step: Wait, done: Callable[[Any], None]) -> None:
        self._call_off = step.latch.wait(partial(done, None))

    def stop(self) -> None:
        """Wait no more."""
        self._call_off()


class _Together:
    """Several steps at once; ``done`` gets the tuple of what came of each."""

    def __init__(self, count: int, done: Callable[[Any], None]) -> None:
        self._done = done
        self._is_over = False
        self._left = count
        self._results: list[Any] = [None] * count
        self._under_way: list[Stoppable | None] = []

    def start(self, running: Running, steps: tuple[Step, ...]) -> None:
        """Begin them all."""
        if not steps:
            self._done(())
        for number, step in enumerate(steps):
            self._under_way.append(perform(running, step, partial(self._came, number)))

    def _came(self, number: int, result: Reply | Any) -> None:
        self._results[number] = result
        self._left -= 1
        if not self._left and not self._is_over:
            self._is_over = True
            self._done(tuple(self._results))

    def stop(self) -> None:
        """Stop each of them."""
        self._is_over = True
        for step in self._under_way:
            if step is not None:
                step.stop()
