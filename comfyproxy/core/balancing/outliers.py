"""Passive detection: a server whose requests fail one after the other is left out for a while.

Modelled on Envoy's outlier detection (consecutive failures, a time that grows, a bound on how many are
left out) with the bound made for pools of a few servers. Nothing is counted while requests succeed.
"""

from dataclasses import dataclass

from comfyproxy.core.balancing.backend import Ejection, Outcome

FAILURES = frozenset({Outcome.ERRED, Outcome.REFUSED, Outcome.TIMED_OUT, Outcome.LOST})
"""What speaks against a server."""

REASONS = {
    Outcome.ERRED: "it answered 502, 503 or 504",
    Outcome.REFUSED: "no connection",
    Outcome.TIMED_OUT: "no answer in time",
    Outcome.LOST: "its answers broke off",
}


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """When a server is left out: after ``failures`` in a row (0: never), for ``seconds`` the first time.

    Each further time takes twice as long, up to ``longest`` seconds. At most the share ``share`` (of
    1) of a pool is out at once, but one server may always be, unless it is the only one.
    """

    failures: int = 5
    seconds: float = 10.0
    longest: float = 300.0
    share: float = 0.5

    def allow(self, ejected: int, size: int) -> bool:
        """Whether one more of ``size`` servers may be left out while ``ejected`` are."""
        return size > 1 and ejected < max(1, int(size * self.share))


NEVER = EjectionRules(failures=0)


def eject(last: Ejection | None, now: float, rules: EjectionRules) -> Ejection:
    """The ejection that begins ``now``.

    It takes twice as long as the ``last`` one, unless the server has worked since for as long as that took:
    then the time is the first again.
    """
    seconds = rules.seconds
    if last is not None and now - last.until < last.seconds:
        seconds = min(2 * last.seconds, max(rules.longest, rules.seconds))
    return Ejection(now + seconds, seconds)
