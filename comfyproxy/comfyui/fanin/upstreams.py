"""Which servers a session should be connected to, and what is known of the connections."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend

Send = Callable[[bytes, bool], None]
"""Sends a message: the payload, and whether it is binary."""

Note = Callable[[Backend, Document], None]
"""Is told of every JSON message of a backend, but not of each ``progress_state`` of a prompt that runs."""

Unsure = Callable[[Backend], None]
"""Is told that events of a backend may have been missed: what its prompts do is to be asked for."""

LINGER = 30.0
"""Seconds that a connection is kept after its last prompt: the next one may be near."""

LINGER_UNHEARD = 3.0
"""The same where the client has no WebSocket. A page that is loaded again is back within it; scripts that
take an id for each prompt leave no connections, to all of which a server tells every change of its queue."""

PATIENCE = 2.0
"""Seconds in which a server says ``status`` after it has taken a prompt; one that has not sends our events to
another connection."""

REOPENING = 10.0
"""Seconds to wait for the end of a connection that is to be opened anew, at most."""

RESTS = (0.0, 2.0, 6.0, 14.0, 30.0, 60.0)
"""Seconds before a connection that went deaf is opened anew, the first time, the second, and so on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's ``feature_flags``; ``names_prompts`` says that it can put the prompt into its texts."""

    payload: bytes
    names_prompts: bool


class Upstream:
    """An open connection. ``heard`` is when its last ``status`` came, ``deadline`` when one must have come.

    ``flags`` is what the server was told of the client's features, ``features`` what it answered.
    """

    __slots__ = ("deadline", "features", "flags", "heard", "send")

    def __init__(self, send: Send) -> None:
        self.send = send
        self.heard = -inf
        self.deadline = inf
        self.flags: bytes | None = None
        self.features: Answer | None = None


class Upstreams:
    """The side of a session that faces the servers (see `comfyproxy.core.balancing.operations.Session`).

    ComfyUI keeps one connection for each client id. When a second one opens it is the second that gets the
    events, and when either closes, neither does, while both look open (``websocket_handler`` in
    ``server.py``). Another proxy with the same client does that to us. So after a prompt was taken, a
    ``status`` has to come; where none does, the connection is deaf: `wanted` lacks that backend until the
    connection has ended (`lost`), and then has it again.

    ``note`` gets the JSON messages. ``unsure`` is called when a connection that has prompts is lost or deaf,
    and again when it is back.
    """

    def __init__(self, client_id: str, home: Backend | None, *, note: Note, unsure: Unsure) -> None:
        self.client_id = client_id
        self.home = home
        self.wanted: frozenset[Backend] = frozenset()
        self._home_until = -inf
        self._note = note
        self._unsure = unsure
        self._upstreams: dict[Backend, Upstream] = {}
        self._places: dict[str, Backend] = {}
        self._work: Counter[Backend] = Counter()
        self._kept_until: dict[Backend, float] = {}
        self._linger = LINGER_UNHEARD
        self._resting: dict[Backend, float] = {}
        self._deafness: Counter[Backend] = Counter()
        self._missed: set[Backend] = set()

    def moves_to(self, home: Backend | None, now: float) -> None:
        """``home`` is the client's affinity backend from now on."""
        self.home = home
        self._review(now)

    def client_listens(self, is_there: bool, now: float) -> None:
        """Whether the client has a WebSocket from now on."""
        self._linger = LINGER if is_there else LINGER_UNHEARD
        for backend, until in self._kept_until.items():
            self._kept_until[backend] = min(until, now + self._linger)
        self._review(now)

    def adds(self, backend: Backend, prompt_id: str, now: float) -> None:
        """A prompt of this client is on ``backend``, and nowhere else."""
        self._leave(prompt_id, now)
        self._places[prompt_id] = backend
        self._work[backend] += 1
        self._review(now)

    def ended(self, prompt_id: str, now: float) -> None:
        """That prompt has ended or is gone."""
        self._leave(prompt_id, now)
        self._review(now)

    def expects(self, backend: Backend, since: float, now: float) -> None:
        """``backend`` must have sent a ``status`` since the time ``since``, or do so soon."""
        upstream = self._upstreams.get(backend)
        if upstream is not None and upstream.heard > -inf and upstream.heard < since:
            upstream.deadline = min(upstream.deadline, now + PATIENCE)

    def opened(self, backend: Backend, send: Send, now: float) -> None:
        """The connection to ``backend`` is open."""
        self._upstreams[backend] = Upstream(send)
        if self._work[backend]:
            self._missed.add(backend)

    def lost(self, backend: Backend, why: str, now: float) -> None:
        """It is gone, or could not be had."""
        self._upstreams.pop(backend, None)
        if backend in self._resting:
            times = max(1, self._deafness[backend])
            self._resting[backend] = now + RESTS[min(times, len(RESTS)) - 1]
        self._doubt(backend)
        self._review(now)

    def is_greeted(self, backend: Backend) -> bool:
        """Whether the first ``status`` has come over the present connection."""
        upstream = self._upstreams.get(backend)
        return upstream is not None and upstream.heard > -inf

    def due(self, now: float) -> None:
        """Look for connections that are deaf or not needed any more."""
        for backend, upstream in list(self._upstreams.items()):
            if upstream.deadline <= now:
                self._deafness[backend] += 1
                self._reopen(backend, now)
        self._review(now)

    def _status_came(self, backend: Backend, now: float) -> bool:
        """A ``status`` came; whether it is only the greeting of a new connection."""
        upstream = self._upstreams.get(backend)
        if upstream is None:
            return False
        if upstream.deadline < inf:
            upstream.deadline = inf
            del self._deafness[backend]
        is_first, upstream.heard = upstream.heard == -inf, now
        if is_first and backend in self._missed:
            self._missed.discard(backend)
            self._unsure(backend)
        return is_first

    def _reopen(self, backend: Backend, now: float) -> None:
        """Have the connection closed and opened again; until then what comes over it counts."""
        del self._upstreams[backend]
        self._resting[backend] = now + REOPENING
        self._doubt(backend)

    def _doubt(self, backend: Backend) -> None:
        if self._work[backend]:
            self._missed.add(backend)
            self._unsure(backend)

    def _leave(self, prompt_id: str, now: float) -> None:
        backend = self._places.pop(prompt_id, None)
        if backend is not None:
            self._kept_until[backend] = now + self._linger
            self._work[backend] -= 1
            if not self._work[backend]:
                del self._work[backend]
                self._missed.discard(backend)

    def _review(self, now: float) -> None:
        for times in (self._kept_until, self._resting):
            for backend in [backend for backend, until in times.items() if until <= now]:
                del times[backend]
        wanted = self._work.keys() | self._kept_until.keys()
        if self.home is not None and now < self._home_until:
            wanted.add(self.home)
        wanted -= self._resting.keys()
        if wanted != self.wanted:
            self.wanted = frozenset(wanted)
