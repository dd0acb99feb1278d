"""Plain TCP over a pool: accept, choose, connect (the next one if that fails), relay with half-close.

The client is not read until its backend is there, so a backend that refuses costs it nothing and no
octet can have been lost. Where every server has as many as it may, the client waits. That it has left
meanwhile shows when its turn comes, or by its end behind what it sent: an end alone is no leaving, for it
may have said all it has to say.
"""

from socket import MSG_PEEK
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from comfyproxy.core.balancing.backend import Backend, Outcome
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.http.trust import plain_address
from comfyproxy.errors import BackendError
from comfyproxy.proxy.attempts import Attempts
from comfyproxy.proxy.dialing import Dialer
from comfyproxy.proxy.draining import Work
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.proxy.proxyprotocol import greeting
from comfyproxy.proxy.relay import Relay, RelayEnd


class TCPListener(Factory):
    """Accepts TCP clients for the pool of the route ``/``; listen with it on any Twisted server endpoint."""

    noisy = False

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def buildProtocol(self, addr: IAddress | None) -> "TCPDownstream":
        return TCPDownstream(self._proxy)


class TCPDownstream(Attempts, RelayEnd):
    """One TCP client."""

    _held = b""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.started = proxy.reactor.seconds()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.pauseProducing()
        self.proxy.connections.add(self)
        peer = getattr(self.transport.getPeer(), "host", None) or "unknown"
        is_too_many = self.proxy.admission.enter(peer, self.proxy.trusted)
        self.route = self.proxy.routes.match(b"/")
        if is_too_many or self.route is None:
            self.transport.abortConnection()
        else:
            self._choose()

    def _key(self, balancer: Balancer) -> bytes | None:
        host = getattr(self.transport.getPeer(), "host", None) or ""
        return None if balancer.key_of is None else balancer.key_of(None, host.encode())

    def _connect(self, backend: Backend) -> None:
        assert self.route is not None
        timeout = self.route.timeouts.connect
        greeting = self._greeting(backend) if backend.proxy_protocol else b""
        names = self.proxy.names
        self._dialer = Dialer(
            self.proxy.reactor, backend.address, TCPUpstream, self, timeout, None, greeting, names
        )
        self._dialer.dial()

    def _greeting(self, backend: Backend) -> bytes:
        peer = self.transport.getPeer()
        client = plain_address(getattr(peer, "host", "")).encode()
        return greeting(backend.proxy_protocol, client, peer, self.transport.getHost())

    def dataReceived(self, data: bytes) -> None:
        """Keep what came in one piece with a PROXY header; nothing else is read before there is a relay."""
        self._held += data

    def _send(self, upstream: "TCPUpstream") -> None:
        assert self.route is not None
        self._seconds = self.proxy.reactor.seconds() - (self._asked_at or self.started)
        Relay(
            self,
            upstream,
            self._ended,
            self.proxy.deadlines,
            self.route.timeouts.idle,
            to_backend=self._held,
        )

    def _may_repeat(self, error: BackendError) -> bool:
        return not error.request_was_sent

    def _give_up(self, status: int, message: str, retry_after: float = 0) -> None:
        self.proxy.log_of_failures.warn("{message}", message=message)
        self.transport.abortConnection()

    def room(self) -> None:
        """There may be room now, for who is still there to use it."""
        if _was_reset(self.transport):
            self.transport.abortConnection()
        else:
            super().room()

    def _ended(self) -> None:
        self._release(Outcome.ANSWERED, self._seconds)

    @property
    def work(self) -> Work:
        """What it is doing."""
        return Work.TCP

    def drain(self) -> None:
        """Nothing to do: a TCP connection has no point at which it could be ended without loss."""

    def end(self) -> None:
        """The proxy waits no longer: both sides are to see that this is no end of what they had to say."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.connections.discard(self)
        self.proxy.admission.leave(getattr(self.transport.getPeer(), "host", None) or "unknown")
        self._stop_trying()
        if self.relay is None:
            self._release(Outcome.ABANDONED)
        super().connectionLost(reason)


class TCPUpstream(RelayEnd):
    """The connection to the backend of one TCP client."""

    def __init__(self, dialer: Any) -> None:
        self._dialer = dialer

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self._dialer.succeeded(self)


def _was_reset(transport: Any) -> bool:
    """Whether the peer has broken the connection off, though nobody reads."""
    socket = getattr(transport, "socket", None)
    if socket is None:
        return False
    try:
        socket.recv(1, MSG_PEEK)
    except BlockingIOError:
        pass
    except OSError:
        return True
    return False
