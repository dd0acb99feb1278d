"""What happens to a pool's servers, as values; ``str()`` is the line that the log gets."""

from dataclasses import dataclass

from comfyproxy.core.balancing.backend import AdminState, Backend


@dataclass(frozen=True, slots=True)
class BackendWentDown:
    """``checks`` in a row failed, the last one for ``reason``."""

    backend: Backend
    reason: str
    checks: int

    def __str__(self) -> str:
        return f"{self.backend.url} is DOWN: {self.reason} ({_counted(self.checks, 'check')})"


@dataclass(frozen=True, slots=True)
class BackendCameUp:
    """``checks`` in a row succeeded; ``first`` if it has never been known to be down."""

    backend: Backend
    reason: str
    checks: int
    first: bool = False

    def __str__(self) -> str:
        return f"{self.backend.url} is UP: {self.reason} ({_counted(self.checks, 'check')})"


@dataclass(frozen=True, slots=True)
class BackendEjected:
    """``failures`` requests in a row failed, the last one for ``reason``: it is left out for ``seconds``."""

    backend: Backend
    reason: str
    failures: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.backend.url} is left out for {self.seconds:g} s: {self.reason} "
            f"({_counted(self.failures, 'request')} in a row)"
        )


@dataclass(frozen=True, slots=True)
class BackendReturned:
    """The time for which it was left out is over."""

    backend: Backend

    def __str__(self) -> str:
        return f"{self.backend.url} is tried again"


@dataclass(frozen=True, slots=True)
class AdminStateChanged:
    """An operator wants it so."""

    backend: Backend
    state: AdminState

    def __str__(self) -> str:
        return f"{self.backend.url} is set to {self.state.name}"


@dataclass(frozen=True, slots=True)
class PanicBegan:
    """So few servers of the pool are up that all get requests."""

    pool: str
    up: int
    size: int

    def __str__(self) -> str:
        return f"Pool {self.pool}: {self.up} of {self.size} servers up, so all of them get requests"


@dataclass(frozen=True, slots=True)
class PanicEnded:
    """Enough servers of the pool are up again."""

    pool: str
    up: int
    size: int

    def __str__(self) -> str:
        return f"Pool {self.pool}: {self.up} of {self.size} servers up, so only those get requests"


Event = (
    BackendWentDown
    | BackendCameUp
    | BackendEjected
    | BackendReturned
    | AdminStateChanged
    | PanicBegan
    | PanicEnded
)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
