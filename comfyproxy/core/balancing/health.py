"""What is known of a server's health: a state that single observations move, by rise and fall.

A state is a value. Probes and passive failures are observations alike; `observe` says what one of them makes
of a state. Who observes, when, and who is told, is not decided here.
"""

from dataclasses import dataclass, replace
from enum import Enum


class Status(Enum):
    """UP takes work, DOWN does not, STARTING takes part of its share: it came back a moment ago."""

    UP = "up"
    DOWN = "down"
    STARTING = "starting"


@dataclass(frozen=True, slots=True)
class Health:
    """The status of a server since ``since`` (seconds of the clock in use) and why, in a few words.

    ``known`` is false until the first observation of a server that is to be observed: such a server is DOWN
    (nobody has seen it work), and the first observation alone decides; ``again`` says of it that it is not
    new. ``against`` counts the observations in a row that speak against the status.
    """

    status: Status = Status.UP
    reason: str = ""
    since: float = 0.0
    known: bool = True
    against: int = 0
    again: bool = False

    @property
    def is_down(self) -> bool:
        """Whether the server is taken for dead."""
        return self.status is Status.DOWN

    @property
    def is_settled(self) -> bool:
        """Whether the last observation agreed with the status; else the next ones should come soon."""
        return self.known and not self.against


UNOBSERVED = Health()


def unknown(now: float, *, again: bool = False) -> Health:
    """The health of a server that is going to be observed and has not been yet, or not since long."""
    return Health(Status.DOWN, "not checked yet", now, known=False, again=again)


RAMP_STEPS = 20
"""In how many steps slow start raises the weight."""

RAMP_START = 0.1
"""The part of its weight that a server begins slow start with, as in Envoy."""


def ramp(weight: int, elapsed: float, slow_start: float) -> float:
    """The weight of a server ``elapsed`` seconds after it came back."""
    return weight * min(1.0, max(RAMP_START, elapsed / slow_start))


def observe(
    health: Health, ok: bool, now: float, reason: str = "", rise: int = 2, fall: int = 3
) -> tuple[Health, bool]:
    """What an observation makes of ``health``, and whether the server went down or came back up by it.

    As HAProxy counts: ``fall`` failures in a row take a server down and ``rise`` successes in a row bring it
    back; one observation to the contrary starts the count anew. The first observation ever decides alone.
    """
    if ok is not health.is_down and health.known:
        return (replace(health, against=0) if health.against else health), False
    against = health.against + 1
    if health.known and against < (rise if ok else fall):
        return replace(health, against=against), False
    return Health(Status.UP if ok else Status.DOWN, reason, now), True
