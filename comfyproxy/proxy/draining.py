"""How a proxy stops: no new connections, what runs is finished, and what is left is cut with a word.

    stop listening ──▶ finish what runs ──▶ say what there is to say ──▶ abort
                       (the drain's time)   (`FAREWELL`)

What counts as running is the connections' to say (`Work`), and what has been taken from one backend on its
way to another is waited for too. A WebSocket of ComfyUI's is not waited for: it
never ends by itself, carries events alone, and its page opens the next one within a second; but it stays for
as long as something else runs, for that may be what its events are about. Other WebSockets and plain TCP may
be at work, which nobody can see, so they have the whole time.
"""

from collections import Counter
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

TICK = 0.05
"""Seconds between two looks at what is left."""

QUIET = 0.5
"""Seconds that an idle connection stays: a client that uses it has a request on its way at any time, and
hears with the answer that it is the last. One that has not sent any by then is closed."""

FAREWELL = 1.0
"""Seconds that clients have to take the last that they are told."""

STOPPING = "The proxy is stopping."


class Work(Enum):
    """What a client's connection is doing, as the log calls it."""

    IDLE = "idle connection"
    REQUEST = "request"
    WEBSOCKET = "WebSocket"
    EVENTS = "WebSocket of ComfyUI"
    TCP = "TCP connection"
    MOVED = "moving prompt"


WAITED_FOR = frozenset((Work.REQUEST, Work.WEBSOCKET, Work.TCP))
"""What keeps a drain waiting."""


class ClientConnection(Protocol):
    """A client's connection, as long as it is the proxy's."""

    @property
    def transport(self) -> Any:
        """What it can be aborted by."""

    @property
    def work(self) -> Work:
        """What it is doing."""

    def drain(self) -> None:
        """Close as soon as nothing is being answered."""

    def end(self) -> None:
        """The time is up: tell the client in the way that it understands, and close."""


class Draining:
    """The end of what goes on over ``connections``, a live collection, within ``seconds``; ``in_hand`` counts
    what goes on beside them and would be lost.

    `cut` shortens it: once, to what there is to say; twice, to nothing.
    """

    log = Logger(namespace="comfyproxy")

    def __init__(
        self,
        reactor: Any,
        connections: Collection[ClientConnection],
        seconds: float,
        in_hand: Callable[[], int] = lambda: 0,
    ) -> None:
        self._reactor = reactor
        self._connections = connections
        self._in_hand = in_hand
        self._seconds = seconds
        self._until = 0.0
        self._is_cut = False
        self._is_hurried = False

    def cut(self) -> None:
        """Wait no longer."""
        if self._is_cut or not self._seconds:
            self._is_hurried = True
        self._is_cut = True

    async def run(self) -> None:
        """Done when no connection is left, or nothing more is to be had from those that are."""
        running = self._running()
        if self._seconds and running:
            self.log.info("Draining: {running}, up to {seconds:g} s.", running=running, seconds=self._seconds)
        for connection in tuple(self._connections):
            if connection.work is not Work.IDLE:
                connection.drain()
        await self._wait(self._seconds, self._is_at_work)
        self._say_what_is_cut()
        for connection in tuple(self._connections):
            connection.end()
        await self._wait(FAREWELL, lambda: bool(self._connections or self._in_hand()))

    def _is_at_work(self) -> bool:
        """Whether to wait on; closes what has become idle."""
        if self._is_cut:
            return False
        begun = self._until - self._seconds
        may_close = self._reactor.seconds() >= begun + QUIET
        at_work = bool(self._in_hand())
        for connection in tuple(self._connections):
            work = connection.work
            if work is Work.IDLE and may_close:
                connection.drain()
            at_work = at_work or work is Work.IDLE or work in WAITED_FOR
        return at_work

    async def _wait(self, seconds: float, goes_on: Callable[[], bool]) -> None:
        self._until = self._reactor.seconds() + seconds
        while not self._is_hurried and self._reactor.seconds() < self._until and goes_on():
            await _later(self._reactor, TICK)

    def _running(self, *but: Work) -> str:
        """What runs, in words: ``3 requests, 2 WebSockets``."""
        found = Counter(connection.work for connection in self._connections)
        found[Work.MOVED] = self._in_hand()
        if Work.EVENTS in found and not but:
            found[Work.WEBSOCKET] += found.pop(Work.EVENTS)
        counted = ((found[work], work.value) for work in Work if work is not Work.IDLE and work not in but)
        return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counted if count)

    def _say_what_is_cut(self) -> None:
        if running := self._running(Work.EVENTS):
            self.log.warn("Cut off what still ran: {running}.", running=running)


def _later(reactor: Any, seconds: float) -> "Deferred[None]":
    return deferLater(reactor, seconds, lambda: None)
