"""The two ends of a test: a client that sends the octets it is told to, and a backend that follows a script.

They are ordinary protocols: on a `MemoryNetwork` a test runs the network and looks at what they have
received; on real sockets it waits for `Peer.until`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

Ended = Literal["", "closed", "reset"]


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """One end of a connection that does what it is told and remembers what it saw.

    ``received`` is everything that came. ``ended`` is how the other side's sending ended: ``closed`` (a clean
    end), or ``reset``. ``is_gone`` says that the connection does not exist any more. With ``stays_open`` this
    end goes on sending after a clean end of the other; otherwise it closes too, as most programs do.
    """

    transport: Any
    stays_open = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.ended: Ended = ""
        self.is_gone = False
        self._finished = False
        self._waiting: list[tuple[bytes | None, Deferred[bytes]]] = []

    @property
    def received(self) -> bytes:
        """Everything that came, since it was last taken."""
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    def send(self, data: bytes, piece: int = 0) -> None:
        """Send ``data``, in pieces of ``piece`` octets that arrive one after the other (0: as it comes)."""
        if not piece:
            self.transport.write(data)
        elif data and not self.is_gone:
            self.transport.write(data[:piece])
            self.transport.reactor.callLater(0, self.send, data[piece:], piece)

    def finish(self) -> None:
        """Send no more, but read on."""
        self._finished = True
        if self.ended:
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close once everything is sent."""
        self.transport.loseConnection()

    def reset(self) -> None:
        """Break the connection off."""
        self.transport.abortConnection()

    def pause(self) -> None:
        """Do not read what comes."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self.transport.resumeProducing()

    def take(self) -> bytes:
        """What came since the last time."""
        taken, self._pieces = self.received, []
        return taken

    def until(self, what: bytes | None) -> Deferred[bytes]:
        """Fires with everything received once ``what`` is in it; or at the end, which ``None`` waits for."""
        waiting: Deferred[bytes] = Deferred()
        self._waiting.append((what, waiting))
        self._look()
        return waiting

    def _look(self) -> None:
        waiting, self._waiting = self._waiting, []
        for what, one in waiting:
            if self.ended or (what is not None and what in self.received):
                one.callback(self.received)
            else:
                self._waiting.append((what, one))

    def dataReceived(self, data: bytes) -> None:
        """Remember it."""
        self._pieces.append(data)
        self._look()

    def readConnectionLost(self) -> None:
        """The other side sends no more."""
        self.ended = "closed"
        if self._finished or not self.stays_open:
            self.transport.loseConnection()
        self._look()

    def writeConnectionLost(self) -> None:
        """This side sends no more; as it was told."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self.is_gone = True
        if not self.ended:
            self.ended = "closed" if reason.check(ConnectionDone) else "reset"
        self._look()


class RawClient(Peer):
    """A client that sends the octets it is told to."""


@dataclass(frozen=True)
class Step:
    """What a backend does next: when ``after`` has come, send ``send``, then ``end`` the connection.

    ``after`` ends the request, and ``b""`` is there at once. ``piece`` is as in `Peer.send`.
    """

    after: bytes = b"\r\n\r\n"
    send: bytes = b""
    end: Literal["", "finish", "close", "reset"] = ""
    piece: int = 0


class BackendConnection(Peer):
    """A connection to a `ScriptedBackend`; a test may also take it and say itself what it does."""

    def __init__(self, backend: "ScriptedBackend", script: Sequence[Step]) -> None:
        super().__init__()
        self.stays_open = backend.stays_open
        self.requests: list[bytes] = []
        self._backend = backend
        self._script = script
        self._next = 0
        self._seen = 0

    def connectionMade(self) -> None:
        """Do what needs no request."""
        self._backend.made(self)
        self._go_on()

    def dataReceived(self, data: bytes) -> None:
        """Do what this was waited for."""
        super().dataReceived(data)
        self._go_on()

    def _go_on(self) -> None:
        while self._script:
            step = self._script[self._next % len(self._script)]
            at = self.received.find(step.after, self._seen)
            if at < 0 or (not step.after and self._next >= len(self._script)):
                return
            request = self.received[self._seen : at + len(step.after)]
            self._seen += len(request)
            self._next += 1
            if request:
                self.requests.append(request)
                self._backend.requests.append(request)
            if step.send:
                self.send(step.send, step.piece)
            if step.end:
                getattr(self, step.end)()
                return


class ScriptedBackend(Factory):
    """A server that follows a script on each connection, over and over, whatever it is sent.

    Each connection takes the next of ``scripts``, the last one serves all further ones. ``requests`` are the
    octets that each step waited for; ``connections`` are all that were ever made. Without a script it
    only listens, and its connections do what a test tells them.
    """

    noisy = False

    def __init__(self, *scripts: Iterable[Step], stays_open: bool = False) -> None:
        self.connections: list[BackendConnection] = []
        self.requests: list[bytes] = []
        self.stays_open = stays_open
        self._scripts = [tuple(script) for script in scripts] or [()]
        self._built = 0
        self._waiting: list[tuple[int, Deferred[Any]]] = []

    def buildProtocol(self, addr: Any) -> BackendConnection:
        """As `IProtocolFactory.buildProtocol`."""
        script = self._scripts[min(self._built, len(self._scripts) - 1)]
        self._built += 1
        return BackendConnection(self, script)

    def made(self, connection: BackendConnection) -> None:
        """``connection`` stands now."""
        self.connections.append(connection)
        waiting, self._waiting = self._waiting, []
        for number, one in waiting:
            if number < len(self.connections):
                one.callback(self.connections[number])
            else:
                self._waiting.append((number, one))

    def connected(self, number: int = 0) -> Deferred[BackendConnection]:
        """Fires with the connection of that number, counted from 0, once it stands."""
        waiting: Deferred[Any] = Deferred()
        if number < len(self.connections):
            waiting.callback(self.connections[number])
        else:
            self._waiting.append((number, waiting))
        return waiting

    @property
    def open_connections(self) -> list[BackendConnection]:
        """Those that still stand."""
        return [connection for connection in self.connections if not connection.is_gone]
