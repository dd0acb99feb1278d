"""Chooses a backend: a pool, the policy that orders it, and the router that knows better for some."""

from collections.abc import Callable, Collection
from time import monotonic

from comfyproxy.core.balancing.backend import Backend, Lease, Outcome
from comfyproxy.core.balancing.changes import Changes
from comfyproxy.core.balancing.outliers import FAILURES
from comfyproxy.core.balancing.pool import HealthRules, Pool
from comfyproxy.core.balancing.retries import RetryBudget
from comfyproxy.core.balancing.routing import Router
from comfyproxy.core.balancing.selection.balance import Balance, make_policy
from comfyproxy.core.balancing.selection.keys import KeyOf
from comfyproxy.core.balancing.selection.policy import Ordered, Policy, Selection, may_fill
from comfyproxy.core.balancing.selection.round_robin import RoundRobin
from comfyproxy.core.balancing.waiting import Waiting
from comfyproxy.errors import NoBackendAvailable

FAILED_SECONDS = 5.0
"""What a failed attempt counts as at least, where times are compared: a server that refuses is no quick one.
It is the default of ``--connect-timeout``."""


class Balancer:
    """One pool with its policy and, for an application it knows, a router.

    ``policy`` is one of those that have names (`parse_balance`; `RoundRobin` where there is none), or one of
    your own; with that may go ``spare_policy``, for the pool's backup servers, which get work only when none
    of the others can, and ``key_of``, which finds what `choose` is to be asked with. ``keep_host`` says that
    the client's ``Host`` goes on to the backend untouched; otherwise each backend is addressed by its own
    name. ``clock`` tells the time in seconds. ``waiting`` are those who wait for room; ``budget`` bounds the
    retries.
    """

    def __init__(
        self,
        pool: Pool,
        policy: Policy | Selection | Balance | None = None,
        router: Router | None = None,
        keep_host: bool = True,
        *,
        spare_policy: Policy | Selection | None = None,
        key_of: KeyOf | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.pool = pool
        self.router = router
        self.keep_host = keep_host
        self.waiting = Waiting()
        self.budget = RetryBudget()
        self.clock = clock
        pool.on_change = self._changed
        self._balance: Balance | None = None
        if policy is None or isinstance(policy, Balance):
            self.balance_by(policy or Balance())
        else:
            self._take(policy, spare_policy if spare_policy is not None else RoundRobin(), key_of)

    def balance_by(self, balance: Balance) -> None:
        """Use the policy that ``balance`` names from now on; what it already uses goes on as it is."""
        if balance != self._balance:
            self._balance = balance
            policy, spare = (make_policy(balance, clock=self.clock) for _ in range(2))
            self._take(policy, spare, balance.key_of)

    def _take(self, policy: Policy | Selection, spare: Policy | Selection, key_of: KeyOf | None) -> None:
        self.policy = policy
        self.key_of = key_of
        self._selection = _selection(policy)
        self._spare = _selection(spare)
        self._pick = self._selection.pick
        self._use()

    def apply(self, changes: Changes) -> None:
        """Take a reload: the pool changes, its survivors keep their state."""
        self.pool.apply(changes, self.clock())
        self._use()
        self.waiting.look_again()

    def follow(self, rules: HealthRules) -> None:
        """Let the pool go by other rules of health."""
        self.pool.follow(rules, self.clock())
        self._use()
        self.waiting.look_again()

    def _use(self) -> None:
        backends = self.pool.backends
        spares = [backend for backend in backends if backend.address.backup]
        primaries = [backend for backend in backends if not backend.address.backup] if spares else backends
        self._selection.use(primaries)
        self._spare.use(spares)
        self.is_curious = self._selection.watches or self._spare.watches or may_fill(backends)

    def choose(self, tried: Collection[Backend] = (), key: bytes | None = None) -> Lease:
        """A lease on the next backend of the policy's order that may be used and is not in ``tried``.

        ``key`` is what `key_of` found. Raises `NoBackendAvailable` when there is none.
        """
        backend = self._pick(key, tried)
        if backend is None:
            backend = self._spare.pick(key, tried)
            if backend is None:
                raise self._none_available(tried)
        lease = Lease(backend, self)
        if self.is_curious:
            self._selection_of(backend).taken(backend)
        return lease

    def lease(self, backend: Backend) -> Lease:
        """A lease on ``backend``, whatever the policy says."""
        lease = Lease(backend, self)
        if self.is_curious:
            self._selection_of(backend).taken(backend)
        return lease

    def exempt(self, lease: Lease) -> None:
        """Let ``lease`` take no room from now on: who waits may have it."""
        lease.exempt()
        if self.is_curious:
            self._selection_of(lease.backend).update(lease.backend)
            if self.waiting:
                self.waiting.offer(lease.backend)

    def released(self, lease: Lease, outcome: Outcome, seconds: float) -> None:
        """Tell the policy, the pool and those who wait how the work under ``lease`` ended."""
        backend = lease.backend
        if outcome is not Outcome.ANSWERED or backend.failures:
            self.pool.noted(backend, outcome, self.clock())
        if self.is_curious:
            if outcome in FAILURES:
                seconds = max(seconds, FAILED_SECONDS)
            self._selection_of(backend).given_back(backend, seconds, self.clock())
            if self.waiting:
                self.waiting.offer(backend)

    def _changed(self, backend: Backend) -> None:
        self._selection_of(backend).update(backend)
        if self.waiting:
            self.waiting.look_again()

    def _selection_of(self, backend: Backend) -> Selection:
        return self._spare if backend.address.backup else self._selection

    def has_more(self, tried: Collection[Backend]) -> bool:
        """Whether there is a backend that may be used and is not in ``tried``."""
        return any(backend.is_available and backend not in tried for backend in self.pool.backends)

    def _none_available(self, tried: Collection[Backend]) -> NoBackendAvailable:
        backends = self.pool.backends
        is_full = any(one.usable and one.is_full and one not in tried for one in backends)
        return NoBackendAvailable(self.pool.name, self._why_none(tried, is_full), is_full)

    def _why_none(self, tried: Collection[Backend], is_full: bool) -> str:
        size = len(self.pool)
        if not size:
            return f"The pool '{self.pool.name}' has no servers."
        failed = sum(not backend.removed for backend in tried)
        if not failed:
            if is_full:
                return f"The pool '{self.pool.name}' is full: every server has as much in flight as it may."
            them = "its only one is" if size == 1 else f"all {size} are"
            return f"The pool '{self.pool.name}' has no server that works: {them} down or out of use."
        if failed < size:
            others = "have as much in flight as they may" if is_full else "are down or out of use"
            return (
                f"The pool '{self.pool.name}' has no server left: {failed} of its {size} cannot be reached, "
                f"and the others {others}."
            )
        them = "its only one was" if size == 1 else f"all {size} were"
        return f"The pool '{self.pool.name}' has no server that can be reached: {them} tried."


def _selection(policy: Policy | Selection) -> Selection:
    return policy if isinstance(policy, Selection) else Ordered(policy)
