"""What all connections of one running proxy share."""

from email.utils import formatdate
from math import ceil
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.internet.task import deferLater
from twisted.logger import Logger

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.routes import Route, RouteTable
from comfyproxy.core.config import Limits, RequestIDs, Timeouts
from comfyproxy.core.http.answers import Answer, make_answer
from comfyproxy.core.http.headers import WRITTEN, Forwarder
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.core.http.trust import Trust, plain_address
from comfyproxy.errors import BackendError
from comfyproxy.proxy.accesslog import AccessLog
from comfyproxy.proxy.admission import Admission
from comfyproxy.proxy.background import Background
from comfyproxy.proxy.connectors import Connector
from comfyproxy.proxy.deadlines import Deadlines
from comfyproxy.proxy.draining import ClientConnection, Draining
from comfyproxy.proxy.proxyprotocol import greeting
from comfyproxy.proxy.resolver import Resolver

if TYPE_CHECKING:
    from comfyproxy.proxy.operations import Running
    from comfyproxy.proxy.sessions import Sessions
    from comfyproxy.proxy.websockets import Bridges

CLOSING_TURNS = 12
"""Turns of the reactor that connections to backends have to say goodbye when the proxy closes."""

FAILURE_LOG_INTERVAL = 5.0
"""Seconds between two log lines about the same backend's failures; what comes between is counted."""


class Proxy:
    """One proxy: its routes, its connections to backends, its clock and its log.

    ``splices`` lets the kernel move long bodies where it can. ``bridges`` joins WebSockets whose
    messages are to be seen; ``None`` relays them as bytes. ``request_ids`` says what carries an
    ``X-Request-ID``: ``errors`` (answers of its own), ``servers`` (requests too) or ``answers`` (all of
    them too). ``gathered`` are the octets of bodies that are held for routers.
    """

    log_of_failures = Logger(namespace="comfyproxy.backends")

    def __init__(
        self,
        reactor: Any,
        routes: RouteTable,
        *,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        log: AccessLog | None = None,
        trusted: tuple[str, ...] = (),
        forwarding: tuple[str, ...] = WRITTEN,
        request_ids: RequestIDs = "errors",
        debug: bool = False,
        splices: bool = True,
        names: Resolver | None = None,
    ) -> None:
        self.reactor = reactor
        self.routes = routes
        self.limits = limits if limits is not None else Limits()
        self.timeouts = timeouts if timeouts is not None else Timeouts()
        self.log = log if log is not None else AccessLog(reactor, lambda lines: None)
        self.request_ids = request_ids
        self.debug = debug
        self.splices = splices
        self.bridges: Bridges | None = None
        self.names = names if names is not None else Resolver(reactor)
        self.deadlines = Deadlines(reactor)
        self.connections: set[ClientConnection] = set()
        self.admission = Admission(reactor, self.connections)
        self.admission.adopt(self.limits)
        self.draining = False
        self.gathered = 0
        self.operations: set[Running] = set()
        self.background = Background(self)
        self.name = b"comfyproxy-" + token_hex(4).encode()
        self.forwarding = forwarding
        self.trust(trusted)
        self._connectors: dict[Backend, Connector] = {}
        self._date = (-1, b"")
        self._failures: dict[Backend, tuple[float, int]] = {}
        self._sessions: Sessions | None = None

    @property
    def sessions(self) -> "Sessions":
        """The WebSockets that are a session's; most proxies have none."""
        if self._sessions is None:
            # It needs autobahn, which takes a third of the start-up time.
            from comfyproxy.proxy.sessions import Sessions

            self._sessions = Sessions(self)
        return self._sessions

    @property
    def has_sessions(self) -> bool:
        """Whether there have been any."""
        return self._sessions is not None

    def route_to(self, balancer: Balancer) -> Route | None:
        """The first route that leads to ``balancer``: what the proxy itself asks there goes by its rules."""
        return next((route for route in self.routes.routes if route.balancer is balancer), None)

    def connector(self, backend: Backend) -> Connector:
        """The connections to ``backend``."""
        connector = self._connectors.get(backend)
        if connector is None:
            connector = self._connectors[backend] = Connector(
                self.reactor, backend, self.deadlines, self.timeouts, names=self.names
            )
        return connector

    def client_left(self, peer: Any, host: Any) -> None:
        """Close what is idle of the connections that were the client's alone, from ``peer`` to ``host``."""
        client = plain_address(getattr(peer, "host", "")).encode()
        for connector in self._connectors.values():
            if connector.backend.proxy_protocol:
                connector.close_greeted(greeting(connector.backend.proxy_protocol, client, peer, host))

    def forwarder(self, peer: str, secure: bool) -> Forwarder:
        """Writes the forwarding fields for requests of the client at ``peer``."""
        scheme = b"https" if secure else b"http"
        return Forwarder(plain_address(peer).encode(), scheme, self.name, self.trusted, self.forwarding)

    def trust(self, networks: tuple[str, ...]) -> None:
        """Believe forwarding fields from clients in ``networks`` (addresses or CIDR), and from no others."""
        self.trusted = Trust(networks)

    def answer(
        self,
        status: int,
        message: str,
        head: RequestHead | None = None,
        request_id: str = "",
        comfyui: bool = False,
        retry_after: float = 0,
    ) -> Answer:
        """An answer of our own to the request of ``head``, or to one that could not be read.

        ``retry_after`` is the number of seconds after which trying again may help, if that is known.
        """
        extra = self.date()
        if retry_after:
            extra += b"Retry-After: %d\r\n" % ceil(retry_after)
        if status == 405:
            extra += b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
        return make_answer(
            status, message, head=head, request_id=request_id or uuid4().hex, comfyui=comfyui, extra=extra
        )

    def date(self) -> bytes:
        """A ``Date`` field line for now, with its CRLF (RFC 9110 section 6.6.1)."""
        second = int(self.reactor.seconds())
        if self._date[0] != second:
            self._date = (second, b"Date: %b\r\n" % formatdate(second, usegmt=True).encode())
        return self._date[1]

    def note_failure(self, backend: Backend, error: BackendError) -> None:
        """Say in the log that ``backend`` failed, but not a thousand times."""
        now = self.reactor.seconds()
        since, count = self._failures.get(backend, (-FAILURE_LOG_INTERVAL, 0))
        if now - since < FAILURE_LOG_INTERVAL:
            self._failures[backend] = (since, count + 1)
            return
        self._failures[backend] = (now, 0)
        more = f" ({count} more failures since the last such line)" if count else ""
        self.log_of_failures.warn("{url}: {error}{more}", url=backend.url, error=error, more=more)

    def ran_short(self) -> None:
        """There was no descriptor for a connection to a server: give up those that are not in use."""
        self.admission.gate.run_short()
        for connector in self._connectors.values():
            connector.close_idle()

    def forget_removed(self) -> None:
        """After a reload: close the idle connections of backends that it took out, let those that stay go by
        the new timeouts; what runs goes on."""
        for backend in [backend for backend in self._connectors if backend.removed]:
            connector = self._connectors[backend]
            connector.close_idle()
            # What is still open may be idle again when another reload has brought the backend back.
            if not connector.open:
                del self._connectors[backend]
            self._failures.pop(backend, None)
        for connector in self._connectors.values():
            connector.timeouts = self.timeouts

    def close_idle(self, backend: Backend) -> None:
        """Close the idle connections to ``backend``: nothing is to be sent there for now."""
        connector = self._connectors.get(backend)
        if connector is not None:
            connector.close_idle()

    def drain(self, seconds: float) -> Draining:
        """Begin to stop: from now on each connection's answer is its last. What runs has ``seconds``."""
        self.draining = True
        self.background.drain()
        return Draining(self.reactor, self.connections, seconds, lambda: self.background.in_hand)

    async def close(self) -> None:
        """Close every connection; done when nothing is left open and no timer runs."""
        for connection in tuple(self.connections):
            connection.transport.abortConnection()
        self.background.stop()
        for operation in tuple(self.operations):
            operation.stop()
        if self._sessions is not None:
            await self._sessions.close()
        for connector in self._connectors.values():
            connector.close_idle()
        turns = 0
        while self.connections or any(connector.open for connector in self._connectors.values()):
            if turns == CLOSING_TURNS:
                for connector in self._connectors.values():
                    connector.abort()
            turns += 1
            await deferLater(self.reactor, 0)
        self._connectors.clear()
        self.admission.stop()
        self.deadlines.stop()
        self.names.stop()
        self.log.flush()
