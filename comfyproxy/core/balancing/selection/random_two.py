"""Two random choices: the better one of two backends that are drawn at random."""

from collections.abc import Callable, Collection, Sequence
from math import exp

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.selection.lots import Lots, Random
from comfyproxy.core.balancing.selection.policy import Selection, may_fill

DECAY = 10.0
"""In how many seconds a past time weighs 1/e of what it did: Finagle's and linkerd's default."""

UNTOLD = float(1 << 47)
"""What a backend counts as that has work and no answer yet: as in Finagle, far more than any other."""


class RandomTwo(Selection):
    """Draws two backends in proportion to their weights and takes the one with less in flight for its weight
    (Mitzenmacher, "The power of two choices in randomized load balancing", 2001; nginx's ``random two``).

    It comes near to least connections, and proxies that do not know of each other do not all choose the same
    one at the same time. O(log n) a pick.
    """

    __slots__ = ("_lots",)

    def __init__(self, random: Random) -> None:
        self.watches = False
        self._lots = Lots(random)

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on."""
        self.watches = may_fill(backends)
        self._lots.use(backends)

    def pick(self, key: bytes | None = None, tried: Collection[Backend] = ()) -> Backend | None:
        """The better one of two; of equals the one that was drawn first."""
        first, second = self._lots.two(tried)
        if second is None or first is None:
            return first
        return first if first.leases * second.weight <= second.leases * first.weight else second

    def update(self, backend: Backend) -> None:
        """Draw it with the weight that it has now."""
        self._lots.update(backend)


class PeakEwma(RandomTwo):
    """Draws two backends like `RandomTwo` and takes the one that is likely to answer first.

    The cost of a backend is the average of the times it took, weighted by age (``DECAY``), times what it
    would have in flight, for its weight. A time above the average replaces it at once, a lower one pulls it
    down slowly: so a backend that becomes slow is avoided from its first slow answer on, and forgiven with
    time (Finagle's ``PeakEwma.scala``). One without history is tried once, and until it has answered it is
    the last choice.
    """

    __slots__ = ("_clock", "_times")

    def __init__(self, random: Random, clock: Callable[[], float]) -> None:
        super().__init__(random)
        self.watches = True
        self._clock = clock
        self._times: dict[Backend, tuple[float, float]] = {}

    def use(self, backends: Sequence[Backend]) -> None:
        """Choose among ``backends`` from now on; what is known of those that were there stays known."""
        self._lots.use(backends)
        self._times = {backend: self._times[backend] for backend in backends if backend in self._times}

    def pick(self, key: bytes | None = None, tried: Collection[Backend] = ()) -> Backend | None:
        """The cheaper one of two; of equals the one that was drawn first."""
        first, second = self._lots.two(tried)
        if second is None or first is None:
            return first
        now = self._clock()
        return first if self._cost(first, now) <= self._cost(second, now) else second

    def given_back(self, backend: Backend, seconds: float, now: float) -> None:
        """Take ``seconds`` into the average; 0 says nothing of the backend."""
        self._lots.update(backend)
        if seconds > 0:
            before = self._times.get(backend)
            average = seconds
            if before is not None and seconds < before[0]:
                part = exp(min(0.0, before[1] - now) / DECAY)
                average = before[0] * part + seconds * (1 - part)
            self._times[backend] = average, now

    def _cost(self, backend: Backend, now: float) -> float:
        known = self._times.get(backend)
        if known is None:
            return UNTOLD + backend.leases if backend.leases else 0.0
        average, since = known
        return average * exp(min(0.0, since - now) / DECAY) * (backend.leases + 1) / backend.weight
