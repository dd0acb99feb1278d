"""Fair shares among clients, written into the numbers by which ComfyUI orders its queue.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): a prompt is tagged with the virtual time at which its
client's share lets it start, the later of the present virtual time and the finish of the client's prompt
before; its finish is so much later as it is work. The present virtual time is the tag of what started last.
So one client's five hundred prompts and another's one are served in turn, and an idle client saves up nothing.

ComfyUI runs its queue by ``number``, smallest first, and takes any number from who submits (``server.py``).
"""

from collections import OrderedDict

MAX_CLIENTS = 10_000


class Fairness:
    """Numbers for the prompts of one pool; ``cost`` is in any unit, seconds for example."""

    def __init__(self, size: int = MAX_CLIENTS) -> None:
        self._size = size
        self._now = 0.0
        self._ends: OrderedDict[str, float] = OrderedDict()

    def number(self, client: str, cost: float) -> float:
        """The number of the client's next prompt."""
        start = max(self._now, self._ends.pop(client, 0.0))
        self._ends[client] = start + cost
        while len(self._ends) > self._size:
            self._ends.popitem(last=False)
        return start

    def front(self, pending: list[float]) -> float:
        """A number before all of a client's ``pending`` ones, as ``front: true`` asks, but before nobody else
        who is due now."""
        return min([self._now, *pending]) if not pending else min(pending) - FRONT

    def started(self, number: float) -> None:
        """A prompt of that number began to run."""
        self._now = max(self._now, number)


FRONT = 1e-6
"""How far before a client's own first prompt one goes that wants to be in front of it."""
