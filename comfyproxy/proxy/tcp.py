"""Plain TCP over a pool: accept, choose, connect (the next one if that fails), relay with half-close.

The client is not read until its backend is there, so a backend that refuses costs it nothing and no
octet can have been lost.
"""

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from comfyproxy.core.backend import Backend, Lease
from comfyproxy.core.balancer import Balancer
from comfyproxy.errors import ConnectFailed, NoBackendAvailable
from comfyproxy.proxy.connectors import Dialer
from comfyproxy.proxy.draining import Work
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.proxy.relay import Relay, RelayEnd


class TCPListener(Factory):
    """Accepts TCP clients for one pool; listen with it on any Twisted server endpoint."""

    noisy = False

    def __init__(self, proxy: Proxy, balancer: Balancer) -> None:
        self._proxy = proxy
        self._balancer = balancer

    def buildProtocol(self, addr: IAddress | None) -> "TCPDownstream":
        return TCPDownstream(self._proxy, self._balancer)


class TCPDownstream(RelayEnd):
    """One TCP client."""

    def __init__(self, proxy: Proxy, balancer: Balancer) -> None:
        self._proxy = proxy
        self._balancer = balancer
        self._dialer: Dialer | None = None
        self._lease: Lease | None = None
        self._tried: list[Backend] = []

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.pauseProducing()
        self._proxy.connections.add(self)
        self._choose()

    def _choose(self) -> None:
        try:
            self._lease = lease = self._balancer.choose(self._tried)
        except NoBackendAvailable as error:
            self._proxy.log_of_failures.warn("{error}", error=error)
            self.transport.abortConnection()
            return
        self._proxy.log.routed(lease.backend, len(self._balancer.pool))
        self._dialer = Dialer(
            self._proxy.reactor, lease.backend.address, TCPUpstream, self, self._proxy.timeouts.connect
        )
        self._dialer.dial()

    def connection_ready(self, upstream: "TCPUpstream") -> None:
        """The backend is there."""
        self._dialer = None
        Relay(self, upstream, self._release, self._proxy.deadlines, self._proxy.timeouts.idle)

    def connect_failed(self, error: ConnectFailed) -> None:
        """The backend is not; try the next."""
        assert self._lease is not None
        self._proxy.note_failure(self._lease.backend, error)
        self._tried.append(self._lease.backend)
        self._release()
        self._choose()

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

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
        self._proxy.connections.discard(self)
        dialer, self._dialer = self._dialer, None
        if dialer is not None:
            dialer.cancel()
            self._release()
        super().connectionLost(reason)


class TCPUpstream(RelayEnd):
    """The connection to the backend of one TCP client."""

    def __init__(self, dialer: Any) -> None:
        self._dialer = dialer

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self._dialer.succeeded(self)
