"""A named set of backends in a stable order; the owner of their identity over reloads and of their health."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from math import inf

from comfyproxy.core.balancing.backend import AdminState, Backend, Outcome
from comfyproxy.core.balancing.changes import Changes, diff
from comfyproxy.core.balancing.events import (
    AdminStateChanged,
    BackendCameUp,
    BackendEjected,
    BackendReturned,
    BackendWentDown,
    Event,
    PanicBegan,
    PanicEnded,
)
from comfyproxy.core.balancing.health import RAMP_STEPS, UNOBSERVED, Status, observe, ramp, unknown
from comfyproxy.core.balancing.outliers import FAILURES, NEVER, REASONS, EjectionRules, eject
from comfyproxy.core.configuration.addresses import Address

BUSY_PATIENCE = 4
"""How many times as many checks may go unanswered by a server that takes connections and has work."""


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a pool takes a server for dead or alive, and what it does then.

    ``probed`` says that somebody observes the servers: one that was never seen to work is not up then.
    ``rise`` and ``fall`` are those of `observe`. Where fewer than the share ``panic`` of the servers are up
    (a share of 1), the observations are not believed and all of them get work; 0 rules that out. A server
    that came back gets its share little by little in ``slow_start`` seconds. ``ejection`` is for requests
    that fail.
    """

    probed: bool = False
    rise: int = 2
    fall: int = 3
    panic: float = 0.1
    slow_start: float = 0.0
    ejection: EjectionRules = NEVER


class _Standing(Enum):
    """What a server counts as when the pool asks how many are up."""

    OUT = "not ready"
    UNKNOWN = "not checked yet"
    UNFIT = "down or ejected"
    FIT = "up"
    SPARE = "up, and a backup"


class Pool:
    """The backends of one name; ``verify`` says whether ``https`` needs a good certificate, and
    ``proxy_protocol`` which version of it begins each connection (0: none).

    A backend that a reload removes keeps serving the clients that are on it (their WebSocket, and requests
    that need the files and the queue it holds) until its last lease ends; then it is forgotten. If a
    later reload names it again before that, it is the same object.

    Health goes by ``rules``. The pool has no clock: `observed`, `noted` and `set_admin` are told the time,
    and `turn` wants to be called when `due` has come. ``on_event`` hears what happens, once each;
    ``on_change`` hears of each backend whose ``usable`` or ``weight`` is another now, except in `apply` and
    `follow`.
    """

    __slots__ = (
        "_by_fingerprint",
        "_by_key",
        "_is_alarmed",
        "_is_panicking",
        "_removed",
        "_standings",
        "_tally",
        "_timed",
        "backends",
        "name",
        "on_change",
        "on_event",
        "proxy_protocol",
        "rules",
        "verify",
    )

    def __init__(
        self,
        name: str,
        addresses: Iterable[Address] = (),
        *,
        verify: bool = True,
        proxy_protocol: int = 0,
        rules: HealthRules = HealthRules(),
    ) -> None:
        self.name = name
        self.verify = verify
        self.proxy_protocol = proxy_protocol
        self.rules = rules
        self.backends: tuple[Backend, ...] = ()
        self.on_change: Callable[[Backend], None] | None = None
        self.on_event: Callable[[Event], None] | None = None
        self._by_key: dict[str, Backend] = {}
        self._by_fingerprint: dict[str, Backend] = {}
        self._removed: dict[str, Backend] = {}
        self._standings: dict[Backend, _Standing] = {}
        self._tally = dict.fromkeys(_Standing, 0)
        self._timed: dict[Backend, float] = {}
        self._is_panicking = False
        self._is_alarmed = False
        self.apply(diff((), addresses))

    def __len__(self) -> int:
        return len(self.backends)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses now in force, in order."""
        return tuple(backend.address for backend in self.backends)

    @property
    def removed(self) -> tuple[Backend, ...]:
        """Backends that a reload took out and that still have work in flight."""
        self._forget_idle()
        return tuple(self._removed.values())

    @property
    def due(self) -> float:
        """When `turn` has something to do; infinity if it has not."""
        return min(self._timed.values(), default=inf)

    def find(self, fingerprint: str) -> Backend | None:
        """The backend of that fingerprint, a removed one too while it still has work in flight."""
        backend = self._by_fingerprint.get(fingerprint)
        if backend is not None and backend.removed and not backend.leases:
            self._forget_idle()
            return None
        return backend

    def holds(self, backend: Backend) -> bool:
        """Whether ``backend`` may still be asked: it is in the pool, or removed with work in flight."""
        return not backend.removed or backend.leases > 0

    def apply(self, changes: Changes, now: float = 0.0) -> None:
        """Become what ``changes`` wants; survivors keep their state."""
        former = self._by_key
        former.update((key, backend) for key, backend in self._removed.items() if backend.leases)
        self._by_key = {}
        for index, address in enumerate(changes.wanted):
            key = address.key
            backend = former.pop(key, None) or self._new(address, now)
            # A server in the middle of slow start stays there.
            backend.weight *= address.weight / backend.address.weight
            backend.address = address
            backend.index = index
            backend.removed = False
            self._by_key[key] = backend
        for backend in former.values():
            backend.removed, backend.usable = True, False
        self._removed = former
        self.backends = tuple(self._by_key.values())
        self._forget_idle()
        self._count_anew()

    def _new(self, address: Address, now: float) -> Backend:
        backend = Backend(address, verify=self.verify, proxy_protocol=self.proxy_protocol)
        if self.rules.probed:
            backend.health = unknown(now)
        return backend

    def _forget_idle(self) -> None:
        self._removed = {key: backend for key, backend in self._removed.items() if backend.leases}
        everyone = (*self.backends, *self._removed.values())
        self._by_fingerprint = {backend.fingerprint: backend for backend in everyone}

    def follow(self, rules: HealthRules, now: float) -> None:
        """Go by ``rules`` from now on; what is known of the servers stays known where it can be."""
        if rules == self.rules:
            return
        was_probed, self.rules = self.rules.probed, rules
        for backend in self.backends:
            if was_probed and not rules.probed:
                backend.health = UNOBSERVED
            if backend.ejected and not rules.ejection.failures:
                self._timed[backend] = now
        self._count_anew()
        self.turn(now)

    def observed(
        self, backend: Backend, ok: bool, now: float, reason: str = "", *, is_busy: bool = False
    ) -> None:
        """A check of ``backend`` succeeded or failed, for ``reason``.

        ``is_busy`` says of a failure that the server took the connection and may well have work: a slow event
        loop is no death, so it may leave `BUSY_PATIENCE` times as many checks unanswered, the first ones
        too.
        """
        rules, before = self.rules, backend.health
        fall = rules.fall * BUSY_PATIENCE if is_busy else rules.fall
        if is_busy and not before.known and before.against + 1 < fall:
            backend.health = replace(before, against=before.against + 1)
            return
        backend.health, flipped = observe(before, ok, now, reason, rules.rise, fall)
        if not flipped or backend.removed:
            return
        checks = before.against + 1
        self._timed.pop(backend, None)
        if ok:
            backend.failures, backend.ejected, backend.ejection = 0, False, None
            if before.known or before.again:
                self._begin_slow_start(backend, now)
            self._tell(BackendCameUp(backend, reason, checks, first=not before.known))
        else:
            self._tell(BackendWentDown(backend, reason, checks))
        self._settle(backend)

    def noted(self, backend: Backend, outcome: Outcome, now: float) -> None:
        """A request to ``backend`` ended so; too many failures in a row and it is left out for a while."""
        rules = self.rules.ejection
        if outcome is Outcome.ANSWERED:
            backend.failures = 0
        elif outcome in FAILURES and rules.failures and not (backend.ejected or backend.health.is_down):
            backend.failures += 1
            if backend.failures >= rules.failures and not backend.removed and self._may_eject():
                self._eject(backend, outcome, now)

    def _may_eject(self) -> bool:
        """Whether the pool can do without one more: the last one that is up stays."""
        ejected = sum(backend.ejected for backend in self._timed)
        return self._up > 1 and self.rules.ejection.allow(ejected, len(self.backends))

    def _eject(self, backend: Backend, outcome: Outcome, now: float) -> None:
        ejection = backend.ejection = eject(backend.ejection, now, self.rules.ejection)
        backend.ejected = True
        self._timed[backend] = ejection.until
        self._tell(BackendEjected(backend, REASONS[outcome], backend.failures, ejection.seconds))
        self._settle(backend)

    def set_admin(self, backend: Backend, state: AdminState, now: float) -> None:
        """Let ``backend`` be in ``state`` from now on.

        One that comes back from MAINT may be another process than before: what was known of it is not
        believed.
        """
        before, backend.admin = backend.admin, state
        if before is state:
            return
        if before is AdminState.MAINT:
            backend.failures, backend.ejected = 0, False
            self._timed.pop(backend, None)
            if self.rules.probed:
                backend.health = unknown(now, again=True)
            else:
                self._begin_slow_start(backend, now)
        self._tell(AdminStateChanged(backend, state))
        self._settle(backend)

    def turn(self, now: float) -> None:
        """Do what is `due`: take ejected servers back, and raise the weight of those that begin slowly."""
        for backend, due in tuple(self._timed.items()):
            if due > now:
                continue
            if backend.ejected:
                self._take_back(backend, now)
            else:
                self._go_on_slowly(backend, now)
            self._settle(backend)

    def _take_back(self, backend: Backend, now: float) -> None:
        """End an ejection; one more failure is enough for the next, twice as long."""
        backend.ejected = False
        backend.failures = max(0, self.rules.ejection.failures - 1)
        del self._timed[backend]
        self._begin_slow_start(backend, now)
        self._tell(BackendReturned(backend))

    def _begin_slow_start(self, backend: Backend, now: float) -> None:
        if self.rules.slow_start:
            backend.health = replace(backend.health, status=Status.STARTING, since=now)
            self._go_on_slowly(backend, now)

    def _go_on_slowly(self, backend: Backend, now: float) -> None:
        length = self.rules.slow_start
        elapsed = now - backend.health.since
        if elapsed < length:
            backend.weight = ramp(backend.address.weight, elapsed, length)
            self._timed[backend] = now + length / RAMP_STEPS
        else:
            backend.weight = float(backend.address.weight)
            backend.health = replace(backend.health, status=Status.UP)
            del self._timed[backend]

    def _tell(self, event: Event) -> None:
        if self.on_event is not None:
            self.on_event(event)

    def _count_anew(self) -> None:
        """Everything may be different: count, and set every backend's attributes without telling of it."""
        self._timed = {backend: due for backend, due in self._timed.items() if not backend.removed}
        self._standings = {}
        self._tally = dict.fromkeys(_Standing, 0)
        for backend in self.backends:
            self._count(backend)
        self._is_panicking = self._must_panic()
        for backend in (*self.backends, *self._removed.values()):
            self._set(backend)
        self._look_for_alarm()

    def _settle(self, backend: Backend) -> None:
        """Something about ``backend`` is different: set the attributes of those that it matters to."""
        former = self._standings.get(backend)
        if former is None:
            self._set(backend)
            return
        self._tally[former] -= 1
        self._count(backend)
        panicking = self._must_panic()
        if panicking is not self._is_panicking:
            self._is_panicking = panicking
            changed: tuple[Backend, ...] = self.backends
        else:
            changed = (backend,)
        for one in changed:
            before = one.usable, one.weight
            self._set(one)
            if self.on_change is not None and (one is backend or before != (one.usable, one.weight)):
                self.on_change(one)
        self._look_for_alarm()

    def _count(self, backend: Backend) -> None:
        if backend.admin is not AdminState.READY:
            standing = _Standing.OUT
        elif not backend.health.known:
            standing = _Standing.UNKNOWN
        elif backend.health.is_down or backend.ejected:
            standing = _Standing.UNFIT
        else:
            standing = _Standing.SPARE if backend.address.backup else _Standing.FIT
        self._standings[backend] = standing
        self._tally[standing] += 1

    def _set(self, backend: Backend) -> None:
        health, panics = backend.health, self._is_panicking
        is_fit = panics or not (health.is_down or backend.ejected)
        backend.usable = is_fit and backend.admin is AdminState.READY and not backend.removed
        # What only this server can do is not kept from it for requests that failed, nor before the first
        # check: who comes back after a restart of ours must find their server.
        is_dead = health.known and health.is_down and not (panics or backend.removed)
        backend.takes_pins = not is_dead and backend.admin is not AdminState.MAINT

    def _must_panic(self) -> bool:
        """Whether so few servers are known to be up that all of them have to do.

        That is also so as long as none is and not all have been checked: requests do not wait for checks. A
        backup that is up is there for what the others cannot do, so then it is not.
        """
        tally = self._tally
        fit, unknown_yet = tally[_Standing.FIT], tally[_Standing.UNKNOWN]
        ready = fit + unknown_yet + tally[_Standing.UNFIT]
        too_few = fit < self.rules.panic * ready and not tally[_Standing.SPARE]
        return too_few or (not fit and unknown_yet > 0)

    @property
    def _up(self) -> int:
        return self._tally[_Standing.FIT] + self._tally[_Standing.SPARE]

    def _look_for_alarm(self) -> None:
        """Tell of panic, except where it is only that nothing is known yet."""
        is_alarmed = self._is_panicking and not self._tally[_Standing.UNKNOWN]
        if is_alarmed is self._is_alarmed:
            return
        self._is_alarmed = is_alarmed
        fit = self._up
        event = PanicBegan if is_alarmed else PanicEnded
        self._tell(event(self.name, fit, fit + self._tally[_Standing.UNFIT]))
