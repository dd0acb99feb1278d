"""What is known of each server of a pool: its connection, the length of its queue, and what it can run."""

from dataclasses import dataclass

from comfyproxy.core.balancing.backend import Backend

SETTLING = 0.75
"""Seconds that a server's ``status`` may disagree with the ledger: answers and events overtake each other."""

CHECK_INTERVAL = 1.0
"""Seconds between two looks into the queue of one server, at the least."""

GONE_AFTER = 3.0
"""Seconds without a connection after which a server's prompts are taken for lost: a ComfyUI that stopped has
forgotten its queue. One that only could not be reached is found out when it is back."""

RETURN_INTERVAL = 10.0
"""Seconds between two looks for a server that was given up, and that the pool does not take for dead: it may
be back, and have no WebSocket that says so."""

NEVER = float("inf")


@dataclass(slots=True)
class Server:
    """One server. Times are the router's, in seconds.

    ``remaining`` is what its last ``status`` said, and ``strangers`` how many of its prompts the ledger
    cannot tell apart. ``may_be_down`` says that there is no connection where one was tried, long before the
    pool knows of it. ``was_lost`` says that it may have been restarted since its queue was last looked into,
    ``is_gone`` that its prompts were given up. ``is_checked`` says that somebody is looking into it now.
    """

    backend: Backend
    remaining: int | None = None
    strangers: int = 0
    disagrees_since: float = NEVER
    check_at: float = NEVER
    unreachable_since: float = NEVER
    is_checked: bool = False
    is_connected: bool = False
    is_gone: bool = False
    may_be_down: bool = False
    was_lost: bool = True

    def connected(self, now: float) -> None:
        """Its WebSocket is open: find out what it has."""
        self.is_connected, self.may_be_down = True, False
        self.unreachable_since = NEVER
        self.check_soon(now)

    def disconnected(self, has_prompts: bool, now: float) -> None:
        """Its WebSocket is gone: it may have been restarted, or stopped; what of the prompts that it has?"""
        self.is_connected, self.may_be_down = False, True
        self.was_lost = True
        self.remaining, self.disagrees_since = None, NEVER
        if has_prompts:
            self.check_soon(now)

    def check_soon(self, now: float) -> None:
        """Look into its queue as soon as may be."""
        self.check_at = min(self.check_at, now)

    def told(self, remaining: int, queued: int, now: float) -> None:
        """Its ``status`` says that ``remaining`` prompts are left; the ledger has ``queued``."""
        self.remaining = remaining
        self.compare(queued, now)

    def compare(self, queued: int, now: float) -> None:
        """Note since when it and the ledger disagree, if they do."""
        if self.remaining is None or self.remaining == queued + self.strangers:
            self.disagrees_since = NEVER
        elif self.disagrees_since == NEVER:
            self.disagrees_since = now

    def is_due(self, now: float) -> bool:
        """Whether its queue is to be looked into now."""
        if self.is_checked or (self.is_gone and self._is_dead):
            return False
        return now >= min(self.check_at, self.disagrees_since + SETTLING)

    def looked(self, strangers: int, now: float) -> None:
        """Its queue was looked into; ``strangers`` of its prompts are not in the ledger."""
        self.strangers = strangers
        self.check_at, self.disagrees_since = NEVER, NEVER
        self.unreachable_since = NEVER
        self.was_lost = self.is_gone = False

    def failed(self, was_sent: bool, now: float) -> None:
        """It did not say what is in its queue; ``was_sent`` means that there was a connection at least."""
        self.check_at = now + (RETURN_INTERVAL if self.is_gone else CHECK_INTERVAL)
        self.disagrees_since = NEVER
        if was_sent:
            self.unreachable_since = NEVER
        elif self.unreachable_since == NEVER:
            self.unreachable_since = now

    def is_lost(self, now: float) -> bool:
        """Whether its prompts are to be given up."""
        if self.is_gone or self.is_connected:
            return False
        return self._is_dead or now - self.unreachable_since >= GONE_AFTER

    def gone(self, now: float) -> None:
        """Its prompts are given up."""
        self.is_gone = True
        self.check_at = now + CHECK_INTERVAL

    @property
    def _is_dead(self) -> bool:
        """Whether that is what the pool takes it for; in a panic it believes no check."""
        health = self.backend.health
        return health.known and health.is_down and not (self.is_connected or self.backend.usable)
