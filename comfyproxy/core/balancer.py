"""Chooses a backend: a pool, the policy that orders it, and the router that knows better for some."""

from collections.abc import Collection

from comfyproxy.core.backend import Backend, Lease
from comfyproxy.core.changes import Changes
from comfyproxy.core.pool import Pool
from comfyproxy.core.routing import Router
from comfyproxy.core.selection import Policy, RoundRobin
from comfyproxy.errors import NoBackendAvailable


class Balancer:
    """One pool with its policy and, for an application it knows, a router.

    ``keep_host`` says that the client's ``Host`` goes on to the backend untouched; otherwise each backend is
    addressed by its own name.
    """

    def __init__(
        self,
        pool: Pool,
        policy: Policy | None = None,
        router: Router | None = None,
        keep_host: bool = True,
    ) -> None:
        self.pool = pool
        self.policy = policy if policy is not None else RoundRobin()
        self.router = router
        self.keep_host = keep_host
        self.policy.use(pool.backends)

    def apply(self, changes: Changes) -> None:
        """Take a reload: the pool changes, its survivors keep their state."""
        self.pool.apply(changes)
        self.policy.use(self.pool.backends)

    def choose(self, tried: Collection[Backend] = ()) -> Lease:
        """A lease on the next backend of the policy's order that may be used and is not in ``tried``.

        Raises `NoBackendAvailable` when there is none.
        """
        for backend in self.policy.order():
            if backend.is_available and not (tried and backend in tried):
                return Lease(backend)
        raise NoBackendAvailable(self.pool.name, self._why_none(tried))

    def has_more(self, tried: Collection[Backend]) -> bool:
        """Whether there is a backend that may be used and is not in ``tried``."""
        return any(backend.is_available and backend not in tried for backend in self.pool.backends)

    def _why_none(self, tried: Collection[Backend]) -> str:
        size = len(self.pool)
        if not size:
            return f"The pool '{self.pool.name}' has no servers."
        failed = sum(not backend.removed for backend in tried)
        if not failed:
            return f"The pool '{self.pool.name}' is full: every server has as much in flight as it may."
        if failed < size:
            return (
                f"The pool '{self.pool.name}' has no server left: {failed} of its {size} cannot be reached, "
                "and the others have as much in flight as they may."
            )
        them = "its only one was" if size == 1 else f"all {size} were"
        return f"The pool '{self.pool.name}' has no server that can be reached: {them} tried."
