"""Operations made of operations."""

from collections.abc import Sequence
from typing import Any

from comfyproxy.core.balancing.operations import Operation, Step


def together(operations: Sequence[Operation]) -> Operation:
    """Carry all of ``operations`` out at the same time; returns the list of what they return, in their order.

    Each goes on when the slowest of the others' present steps is done. Closing it closes them all.
    """
    results: list[Any] = [None] * len(operations)
    running = dict(enumerate(operations))
    answers: dict[int, Any] = {}
    try:
        while running:
            steps: dict[int, Step] = {}
            for place, operation in tuple(running.items()):
                try:
                    steps[place] = operation.send(answers.get(place))
                except StopIteration as done:
                    results[place] = done.value
                    del running[place]
            if steps:
                answers = dict(zip(steps, (yield tuple(steps.values())), strict=True))
    finally:
        for operation in running.values():
            operation.close()
    return results
