"""One server that requests are sent to, and the leases that count its work."""

from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Protocol

from comfyproxy.core.balancing.health import UNOBSERVED, Health
from comfyproxy.core.configuration.addresses import Address


class AdminState(Enum):
    """What an operator wants of a server.

    READY takes work. DRAIN takes no new clients and goes on serving those that are on it. MAINT takes
    nothing: what runs may end.
    """

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


class Outcome(Enum):
    """How a unit of work ended, as far as it says something of the server."""

    ANSWERED = "answered"
    """The server answered, whatever the status: also 500, which is the application's."""
    ERRED = "erred"
    """The server answered 502, 503 or 504: it does not work, or what it depends on."""
    REFUSED = "refused"
    """No connection came about."""
    TIMED_OUT = "timed out"
    """A time ran out while the server had the turn."""
    LOST = "lost"
    """The connection ended too early, or what came was no HTTP."""
    ABANDONED = "abandoned"
    """The client left or we gave up: nothing is known of the server by it."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """A server is left out for ``seconds``, until the time ``until``, because its requests failed."""

    until: float
    seconds: float


class Backend:
    """One server of a pool: its address (identity) and what is known of it (state).

    A reload gives a surviving backend a new `address` (its weight or name may have changed) and keeps the
    object, so its state and its connections stay. ``index`` is its place in the pool, from 0. ``leases`` is
    the work in flight, of which ``exempt`` units take no room. ``verify`` says whether its certificate must
    be good (``https``), ``proxy_protocol`` which version of it begins each connection (0: none). ``removed``
    says that a reload took it out: it gets no new clients and lives until its last lease ends.

    ``admin`` is the operator's wish, ``health`` what was observed; ``failures`` counts the requests that
    failed in a row, for which it may be ``ejected``. The pool makes three plain attributes of
    them, which are read for every request: ``usable`` (it may get work that could as well go elsewhere),
    ``takes_pins`` (it may get work that only it can do) and ``weight`` (its share at the moment: that of its
    address, or less of it for a while after it came back).
    """

    __slots__ = (
        "address",
        "admin",
        "authority",
        "ejected",
        "ejection",
        "exempt",
        "failures",
        "fingerprint",
        "health",
        "index",
        "leases",
        "proxy_protocol",
        "removed",
        "takes_pins",
        "url",
        "usable",
        "verify",
        "weight",
    )

    def __init__(
        self, address: Address, index: int = 0, *, verify: bool = True, proxy_protocol: int = 0
    ) -> None:
        self.address = address
        self.url = address.url
        self.authority = address.authority.encode("ascii")
        self.fingerprint = fingerprint(address)
        self.index = index
        self.leases = 0
        self.exempt = 0
        self.removed = False
        self.verify = verify
        self.proxy_protocol = proxy_protocol
        self.admin = AdminState.READY
        self.health: Health = UNOBSERVED
        self.failures = 0
        self.ejected = False
        self.ejection: Ejection | None = None
        self.usable = True
        self.takes_pins = True
        self.weight = float(address.weight)

    @property
    def is_full(self) -> bool:
        """Whether it has as much in flight as ``max_conns`` lets it (0 is no limit)."""
        return 0 < self.address.max_conns <= self.leases - self.exempt

    @property
    def is_available(self) -> bool:
        """Whether it may take work that could as well go elsewhere."""
        return self.usable and not 0 < self.address.max_conns <= self.leases - self.exempt

    def __repr__(self) -> str:
        return f"<Backend {self.url} leases={self.leases}{' removed' if self.removed else ''}>"


class Watcher(Protocol):
    """Who wants to hear how work ended (a balancer).

    ``is_curious`` says: also of work that succeeded. Of what speaks against a server, or is the first that
    speaks for it again, it hears anyhow.
    """

    is_curious: bool

    def released(self, lease: "Lease", outcome: Outcome, seconds: float) -> None:
        """``lease`` ended by ``outcome`` after ``seconds``; its backend's count is already down."""


class Lease:
    """One unit of work in flight on a backend; `release` is the only way the count goes down."""

    __slots__ = ("_held", "_is_exempt", "backend", "watcher")

    def __init__(self, backend: Backend, watcher: Watcher | None = None) -> None:
        self.backend = backend
        self.watcher = watcher
        self._held = True
        self._is_exempt = False
        backend.leases += 1

    def exempt(self) -> None:
        """Take no room, as ``max_conns`` counts it: this lasts for hours and does little."""
        if self._held and not self._is_exempt:
            self._is_exempt = True
            self.backend.exempt += 1

    def release(self, outcome: Outcome = Outcome.ABANDONED, seconds: float = 0.0) -> None:
        """Give the unit back and tell the watcher how the work ended, if it cares; once.

        ``seconds`` is how long the server took (to its answer's head), 0 where nothing is known of it.
        """
        if self._held:
            self._held = False
            backend, watcher = self.backend, self.watcher
            backend.leases -= 1
            if self._is_exempt:
                backend.exempt -= 1
            if watcher is not None and (
                watcher.is_curious or backend.failures or outcome is not Outcome.ANSWERED
            ):
                watcher.released(self, outcome, seconds)


def fingerprint(address: Address) -> str:
    """Twelve hexadecimal digits that name a backend in cookies and minted ids.

    They depend on the URL alone, so every process with the same pool reads them alike, and they do not
    show the address to clients.
    """
    return blake2b(address.key.encode(), digest_size=6).hexdigest()
