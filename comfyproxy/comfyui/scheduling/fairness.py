"""Fair shares among clients: whose turn it is.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): a prompt is tagged with the virtual time at which its
client's share lets it start, the later of the present virtual time and the finish of the client's prompt
before; its finish is so much later as it is work. Prompts start by their tags, so one client's five hundred
and another's one are served in turn, and a client that was idle has saved nothing up.

The present virtual time is the least tag that waits, or what started last if nothing waits. (With one server
both are the same. Where many start prompts at once, and one that is idle takes over any, the tag of what
started last may be far ahead of those whose turn it is.)
"""

from collections import OrderedDict
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

MAX_CLIENTS = 10_000

MAX_TAG = 1e12
"""Anybody can give a number to ComfyUI; one that is larger is nobody's turn."""


@dataclass(slots=True)
class _Turn:
    client: str
    tag: float
    cost: float
    is_front: bool
    is_waiting: bool = False


class Fairness:
    """The tags of the prompts of one pool. Costs are in any unit, seconds of work for example.

    A prompt has its turn from `enter` or `restore` until `leave`.
    """

    def __init__(self, size: int = MAX_CLIENTS) -> None:
        self._size = size
        self._now = 0.0
        self._latest = 0.0
        self._ends: OrderedDict[str, float] = OrderedDict()
        self._turns: dict[str, _Turn] = {}
        self._own: dict[str, dict[str, _Turn]] = {}
        self._waiting: list[tuple[float, str]] = []
        self._number_waiting = 0

    def enter(self, prompt_id: str, client: str, cost: float, front: float = 0.0) -> float:
        """The tag of a prompt that begins to wait; one that has had its turn already gets the same again.

        With ``front`` it has the turn of the first of the client's own that wait, but while others wait too
        only as long as all that this client has put in front is not more work than that.
        """
        turn = self._turns.get(prompt_id)
        if turn is None:
            turn = self._new_turn(client, cost, front)
        self._wait(prompt_id, turn)
        return turn.tag

    def restore(self, prompt_id: str, client: str, tag: float, cost: float) -> float:
        """A prompt waits that was tagged before anything remembered here. Returns its tag from now on."""
        turn = self._turns.get(prompt_id)
        if turn is None:
            turn = _Turn(client, tag if abs(tag) < MAX_TAG else self.now, cost, False)
            self._charge(client, max(self._ends.get(client, 0.0), turn.tag + cost))
        self._wait(prompt_id, turn)
        return turn.tag

    def start(self, prompt_id: str) -> None:
        """A prompt began to run."""
        turn = self._turns.get(prompt_id)
        if turn is not None and self._unwait(prompt_id, turn):
            self._latest = max(self._latest, turn.tag)

    def pause(self, prompt_id: str) -> None:
        """A prompt waits nowhere at the moment; it may `enter` again."""
        turn = self._turns.get(prompt_id)
        if turn is not None:
            self._unwait(prompt_id, turn)

    def rename(self, prompt_id: str, new_id: str) -> None:
        """A prompt has another id from here on."""
        turn = self._turns.pop(prompt_id, None)
        if turn is not None:
            self.leave(new_id, None)
            self._turns[new_id] = turn
            if self._unwait(prompt_id, turn):
                self._wait(new_id, turn)

    def leave(self, prompt_id: str, used: float | None) -> None:
        """A prompt is over after so much work, if that is known. The client pays for what it used."""
        turn = self._turns.pop(prompt_id, None)
        if turn is not None:
            self._unwait(prompt_id, turn)
            if used is not None and turn.client in self._ends:
                self._ends[turn.client] += used - turn.cost

    @property
    def now(self) -> float:
        """The present virtual time; it never goes back."""
        while self._waiting:
            if self._is_valid(*self._waiting[0]):
                self._now = max(self._now, self._waiting[0][0])
                return self._now
            heappop(self._waiting)
        self._now = max(self._now, self._latest)
        return self._now

    def _new_turn(self, client: str, cost: float, front: float) -> _Turn:
        own = self._own.get(client)
        end = max(self.now, self._ends.get(client, 0.0))
        tag = end
        is_front = False
        if own:
            tag = end = max(end, max(turn.tag for turn in own.values()))
            before = cost + sum(turn.cost for turn in own.values() if turn.is_front)
            if front > 0 and (before <= front or len(own) == self._number_waiting):
                tag, is_front = min(turn.tag for turn in own.values()), True
        self._charge(client, end + cost)
        return _Turn(client, tag, cost, is_front)

    def _wait(self, prompt_id: str, turn: _Turn) -> None:
        if not turn.is_waiting:
            turn.is_waiting = True
            self._number_waiting += 1
            self._turns[prompt_id] = turn
            self._own.setdefault(turn.client, {})[prompt_id] = turn
            if len(self._waiting) > 2 * self._number_waiting + 64:
                self._waiting = [one for one in self._waiting if self._is_valid(*one)]
                heapify(self._waiting)
            heappush(self._waiting, (turn.tag, prompt_id))

    def _unwait(self, prompt_id: str, turn: _Turn) -> bool:
        if not turn.is_waiting:
            return False
        turn.is_waiting = False
        self._number_waiting -= 1
        own = self._own[turn.client]
        del own[prompt_id]
        if not own:
            del self._own[turn.client]
        return True

    def _is_valid(self, tag: float, prompt_id: str) -> bool:
        turn = self._turns.get(prompt_id)
        return turn is not None and turn.is_waiting and turn.tag == tag

    def _charge(self, client: str, end: float) -> None:
        self._ends.pop(client, None)
        self._ends[client] = end
        while len(self._ends) > self._size:
            self._ends.popitem(last=False)
