"""Whether a failed attempt may be made again, on another backend or on a fresh connection.

Nothing is ever done twice that may not be: a request that a server may have acted upon is repeated only if
its method is idempotent (RFC 9110 section 9.2.2), and while repeated requests are few (`RetryBudget`). One
that cannot have been acted upon is always free to go elsewhere: no server has more to do for that.
"""

from math import inf

from comfyproxy.core.balancing.backend import Outcome
from comfyproxy.core.config import DEFAULT_RETRY_BUDGET
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.errors import BackendError, BackendLost, BackendTimeout

FAILED_STATUSES = frozenset((502, 503, 504))
"""Answers that say that a server, or what it depends on, does not work. 500 is the application's."""

FLOOR = 3
"""Repeated requests of a pool that may be in flight whatever its budget: a pool with little to do has but a
small one."""


class RetryBudget:
    """How many requests of one pool may be sent again, so that retries never double an outage.

    Every request adds ``share`` of a retry to a reserve, which holds no more than one for each request now in
    flight; besides, `FLOOR` may be in flight at any time. So over time no more than that share is repeated
    (for a steady load the same as Envoy's share of the requests in flight), but all that a server had in
    flight when it died may go elsewhere at once.
    """

    __slots__ = ("_reserve", "_seen", "in_flight", "requests", "share")

    def __init__(self, share: float = DEFAULT_RETRY_BUDGET) -> None:
        self.share = share
        self.in_flight = 0
        self.requests = 0
        self._seen = 0
        self._reserve = inf if share else 0.0

    def take(self, live: int) -> bool:
        """Whether one of ``live`` requests in flight may be sent again; then `give_back` once it is over."""
        self._reserve = min(self._reserve + (self.requests - self._seen) * self.share, live)
        self._seen = self.requests
        if self.in_flight >= FLOOR:
            if self._reserve < 1:
                return False
            self._reserve -= 1
        self.in_flight += 1
        return True

    def give_back(self, count: int = 1) -> None:
        """A request that was sent again ``count`` times has ended."""
        self.in_flight -= count


def may_try_again(
    head: RequestHead, error: BackendError, *, answered: bool, body_at_hand: bool, timeouts: bool = False
) -> bool:
    """Whether the request of ``head`` may be sent once more after ``error``.

    ``answered`` says that octets of an answer had come, ``body_at_hand`` that the whole body, as far as
    it was sent, can be sent again. A request that cannot have been acted upon is always repeated, one
    that may have been only if it is idempotent. A backend that is silent for too long is given up for another
    only with ``timeouts``: the work would be done twice.
    """
    if answered or not body_at_hand:
        return False
    if not error.request_was_sent:
        return True
    repeated = (BackendLost, BackendTimeout) if timeouts else BackendLost
    return isinstance(error, repeated) and head.is_idempotent


def outcome_of(error: BackendError) -> Outcome:
    """What ``error`` says of its server."""
    if isinstance(error, BackendTimeout):
        return Outcome.TIMED_OUT
    return Outcome.LOST if error.request_was_sent else Outcome.REFUSED


def explain(error: BackendError, pool: str, waited: float, *, only_one: bool) -> tuple[int, str]:
    """The status and sentence for a client whose request came to nothing because of ``error``.

    ``waited`` is the timeout in seconds that a silent backend exceeded, ``only_one`` says that no other
    backend would have done.
    """
    if isinstance(error, BackendTimeout):
        return 504, f"The server did not answer within {waited:g} seconds."
    if error.request_was_sent:
        return error.status, "The server failed before it answered."
    if only_one:
        return 503, "The server that this belongs to cannot be reached."
    return 503, f"No server of the pool '{pool}' could be reached."
