"""WebSocket peers of another make (the `websockets` library) at both ends of a proxy on a memory network."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.protocol import ClientFactory, Factory, connectionDone
from twisted.python.failure import Failure
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from comfyproxy.comfyui.router import RequestRouter
from comfyproxy.core.config import Timeouts
from comfyproxy.proxy.websocket_end import CLOSE_TIMEOUT
from comfyproxy.proxy.websockets import Bridges
from comfyproxy.testing import Rig
from comfyproxy.testing.peers import Peer

MIB = 1024 * 1024

Message = str | bytes


class Socket(Peer):
    """One peer's end of a WebSocket: remembers what came, answers pings and closes as the library does.

    ``frames`` is everything that came since the handshake, ``messages`` what it means. With ``echoes`` each
    message is sent back, with ``ignores_close`` a Close frame has no effect, with ``raw`` the octets behind
    the handshake are only kept.
    """

    protocol: Any
    echoes = False
    ignores_close = False
    raw = False

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.messages: list[Message] = []
        self._parts: list[Frame] = []

    def dataReceived(self, data: bytes) -> None:
        if self.raw or self.ignores_close:
            super().dataReceived(data)
            return
        self.protocol.receive_data(data)
        self._flush()
        for event in self.protocol.events_received():
            if isinstance(event, Frame):
                self.take_frame(event)
            else:
                self.shaken(event)

    def take_frame(self, frame: Frame) -> None:
        """A frame has come."""
        self.frames.append(frame)
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        self._parts.append(frame)
        if frame.fin:
            whole = b"".join(bytes(part.data) for part in self._parts)
            is_text = self._parts[0].opcode is Opcode.TEXT
            self._parts = []
            self.messages.append(whole.decode() if is_text else whole)
            if self.echoes:
                self.say(self.messages[-1])

    def shaken(self, event: Any) -> None:
        """A request or a response has come."""

    def say(self, message: Message, *more: Message) -> None:
        """Send a message, in fragments if there is ``more`` of it."""
        parts = [part.encode() if isinstance(part, str) else part for part in (message, *more)]
        send = self.protocol.send_text if isinstance(message, str) else self.protocol.send_binary
        send(parts[0], fin=not more)
        for number, part in enumerate(parts[1:], 2):
            self.protocol.send_continuation(part, fin=number == len(parts))
        self._flush()

    def ping(self, payload: bytes = b"") -> None:
        self.protocol.send_ping(payload)
        self._flush()

    def say_goodbye(self, code: int | None = None, reason: str = "") -> None:
        self.protocol.send_close(code, reason)
        self._flush()

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            else:  # The library's way to say that the connection is to be closed.
                self.transport.loseConnection()

    @property
    def closed_with(self) -> tuple[int | None, str]:
        """The code and the reason that came, ``None`` for a Close frame without a code."""
        assert self.protocol.parser_exc is None, self.protocol.parser_exc
        received = self.protocol.close_rcvd
        assert received is not None, "no Close frame came"
        return (None if received.code == 1005 else int(received.code)), received.reason

    @property
    def pongs(self) -> list[bytes]:
        return [bytes(frame.data) for frame in self.frames if frame.opcode is Opcode.PONG]

    @property
    def pings(self) -> int:
        return sum(frame.opcode is Opcode.PING for frame in self.frames)

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.protocol.receive_eof()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self.protocol.state is not State.CLOSED:
            self.protocol.receive_eof()


class Client(Socket):
    """A client that asks for a WebSocket when it is connected, and has its ``response`` then."""

    protocol: ClientProtocol
    response: Response

    def __init__(
        self, path: str = "/ws", deflate: bool = False, offers: str = "", subprotocols: Any = None
    ) -> None:
        super().__init__()
        extensions = [ClientPerMessageDeflateFactory()] if deflate else None
        self.protocol = ClientProtocol(
            parse_uri(f"ws://comfy.example{path}"),
            extensions=extensions,
            subprotocols=subprotocols,
            max_size=None,
        )
        self._offers = offers

    def connectionMade(self) -> None:
        request = self.protocol.connect()
        if self._offers:
            request.headers["Sec-WebSocket-Extensions"] = self._offers
        self.protocol.send_request(request)
        self._flush()

    def shaken(self, event: Response) -> None:
        self.response = event


class Server(Socket):
    """What a `Backend` makes for each connection; has its ``request`` once it has come."""

    protocol: ServerProtocol
    request: Request

    def __init__(self, backend: "Backend") -> None:
        super().__init__()
        self.protocol = ServerProtocol(subprotocols=backend.subprotocols, max_size=None)
        self._backend = backend

    def connectionMade(self) -> None:
        self._backend.connections.append(self)

    def shaken(self, event: Request) -> None:
        self.request = event
        if not self._backend.is_silent:
            self.answer()

    def answer(self) -> None:
        """Accept what was asked for, or as the backend says; what it says at once goes behind it, glued."""
        response = self.protocol.accept(self.request)
        self._backend.change(response.headers)
        self.protocol.send_response(response)
        glued = b"".join([*self.protocol.data_to_send(), self._backend.glued])
        self.transport.write(glued)


class Backend(Factory):
    """A server that accepts every WebSocket; ``change`` may change the head of its answer."""

    noisy = False

    def __init__(
        self,
        *,
        subprotocols: Any = None,
        change: Callable[[Headers], Any] = lambda headers: None,
        glued: bytes = b"",
        is_silent: bool = False,
    ) -> None:
        self.connections: list[Server] = []
        self.subprotocols = subprotocols
        self.change = change
        self.glued = glued
        self.is_silent = is_silent

    def buildProtocol(self, addr: Any) -> Server:
        return Server(self)

    @property
    def socket(self) -> Server:
        (socket,) = self.connections
        return socket


class Joined:
    """A rig whose proxy joins WebSockets by messages, with a client and a backend already talking."""

    def __init__(
        self,
        *backends: Any,
        client: Client | None = None,
        comfyui: bool = False,
        max_message: int = 128 * MIB,
        backlog: int = 96 * MIB,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.backend = backends[-1] if backends else Backend()
        router = RequestRouter() if comfyui else None
        self.rig = Rig(*(backends or (self.backend,)), router=router, timeouts=timeouts)
        self.rig.proxy.bridges = Bridges(self.rig.network, max_message=max_message, backlog=backlog)
        self.client = client or Client()
        self.is_closed = False
        self.run = self.rig.network.run
        self.advance = self.rig.advance

    def open(self, port: int = 8080, wrap: Callable[[Factory], Any] = lambda factory: factory) -> "Joined":
        """Connect the client, whose factory may be wrapped."""
        self.rig.clients.append(self.client)  # type: ignore[arg-type]
        factory = ClientFactory.forProtocol(lambda: self.client)
        factory.noisy = False
        self.rig.network.connectTCP("127.0.0.1", port, wrap(factory))
        self.run()
        return self

    def close(self) -> None:
        """Let everybody read, and the client leave; nothing may be left once all patience is over."""
        for socket in [self.client, *self.backend.connections]:
            if socket.connected and not socket.is_gone:
                socket.resume()
        self.client.close()
        self.advance(2 * CLOSE_TIMEOUT)
        self.is_closed = True
        assert self.rig.close() == []

    @property
    def server(self) -> Server:
        return self.backend.socket


Join = Callable[..., Joined]


def joining() -> Iterator[Join]:
    """For a fixture: makes a `Joined`, of which no lease, connection or timer may be left at the end."""
    made: list[Joined] = []

    def make(*backends: Any, opened: bool = True, **options: Any) -> Joined:
        made.append(Joined(*backends, **options))
        return made[-1].open() if opened else made[-1]

    yield make
    for joined in made:
        if not joined.is_closed:
            joined.close()


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A frame, sound or not; the mask is zeros, so that the payload is itself."""
    size = len(payload)
    length = (
        bytes([size])
        if size < 126
        else b"\x7e" + struct.pack("!H", size)
        if size < 65536
        else b"\x7f" + struct.pack("!Q", size)
    )
    length = bytes([length[0] | (0x80 if masked else 0)]) + length[1:]
    return (
        bytes([(0x80 if fin else 0) | rsv << 4 | opcode]) + length + (bytes(4) if masked else b"") + payload
    )
