"""Many coarse deadlines behind one timer.

A connection's deadline moves with every request, and almost never passes. So moving one only stores a
number: the connection waits in the slot of the earliest deadline it had, and is looked at again when that
slot comes up. A `callLater` for each request would cost more than the rest of its bookkeeping.
"""

from math import inf
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger


class Watched(Protocol):
    """Something with a deadline; both attributes belong to `Deadlines`."""

    deadline: float
    slot: float

    def deadline_passed(self) -> None:
        """The deadline came and was neither moved nor cleared."""


class Deadlines:
    """Deadlines with a resolution of ``tick`` seconds; they pass late by up to twice that, never early.

    Its length is how many are watched.
    """

    _log = Logger(namespace="comfyproxy.deadlines")

    def __init__(self, clock: IReactorTime, tick: float = 0.25) -> None:
        self._clock = clock
        self._tick = tick
        self._slots: dict[float, set[Watched]] = {}
        self._timer: IDelayedCall | None = None
        self._now = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def seconds(self) -> float:
        """The time, in seconds."""
        return self._clock.seconds()

    def set(self, watched: Watched, seconds: float) -> None:
        """Let ``watched`` have ``seconds`` from now; 0 is no deadline."""
        if not seconds:
            watched.deadline = inf
            return
        if self._timer is None:
            self._start()
        # The time of the last turn is up to a tick ago, so a deadline counts from the next one.
        watched.deadline = deadline = self._now + self._tick + seconds
        # A slot comes up within a tick after the deadlines that wait in it.
        if deadline < watched.slot - self._tick:
            self._wait(watched, deadline)

    @staticmethod
    def clear(watched: Watched) -> None:
        """``watched`` has no deadline for now."""
        watched.deadline = inf

    def forget(self, watched: Watched) -> None:
        """Keep no reference to ``watched``; for connections that are gone."""
        self._leave_slot(watched)
        watched.slot = watched.deadline = inf

    def stop(self) -> None:
        """Forget everything and leave no timer."""
        self._slots.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave_slot(self, watched: Watched) -> None:
        waiting = self._slots.get(watched.slot)
        if waiting is not None:
            waiting.discard(watched)
            if not waiting:
                del self._slots[watched.slot]

    def _wait(self, watched: Watched, deadline: float) -> None:
        self._leave_slot(watched)
        slot = (deadline // self._tick + 1) * self._tick
        watched.slot = slot
        self._slots.setdefault(slot, set()).add(watched)

    def _start(self) -> None:
        self._now = self._clock.seconds()
        self._timer = self._clock.callLater(self._tick, self._turn)

    def _turn(self) -> None:
        self._start()
        now = self._now
        for slot in [slot for slot in self._slots if slot <= now]:
            for watched in self._slots.pop(slot, ()):
                watched.slot = inf
                if watched.deadline <= now:
                    watched.deadline = inf
                    self._tell(watched)
                elif watched.deadline < inf:
                    self._wait(watched, watched.deadline)
        if not self._slots:
            self.stop()

    def _tell(self, watched: Watched) -> None:
        try:
            watched.deadline_passed()
        except Exception:
            # The others' deadlines must pass all the same.
            self._log.failure("A deadline passed, and acting on it failed")
