"""A simulated ComfyUI that listens, and several of them at once."""

import zlib
from collections.abc import Iterable
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorTime
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from comfyproxy.demo.machine import Installation, Machine
from comfyproxy.demo.site import SimulatedResource, SimulatedSite


class SimulatedComfyUI:
    """One simulated ComfyUI named ``name``.

    Without `listen` it can be used inside another site (`resource`, `site`) or without any network
    (`machine`). ``speed`` is how many times faster than life its jobs run; 0: as fast as the reactor turns.
    ``hue`` (0 to 1) colours its pictures; None: a colour of its own by its name. The other ``manners`` are
    those of `machine.Installation`: ``jobs_api``, ``uuid_check``, ``interrupt_by_id``, ``origin_check``,
    ``max_upload_size``, ``nodes``, ``models``.
    """

    def __init__(
        self,
        name: str,
        reactor: IReactorTime,
        *,
        speed: float = 1.0,
        hue: float | None = None,
        **manners: Any,
    ) -> None:
        self.name = name
        self._reactor = reactor
        shade = zlib.crc32(name.encode()) / 2**32 if hue is None else hue
        self.machine = Machine(Installation(name, shade, **manners), reactor, speed)
        self.resource = SimulatedResource(self.machine, reactor)
        self.site = SimulatedSite(self.resource, reactor)
        self._connections = _Connections(self.site)
        self._listening: IListeningPort | None = None

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises RuntimeError when it does not listen.
        """
        return self._address.port

    @property
    def url(self) -> str:
        """Its address, for example `http://127.0.0.1:8188`.

        Raises RuntimeError when it does not listen.
        """
        return f"http://{self._address.host}:{self._address.port}"

    def listen(self, port: int = 0, interface: str = "127.0.0.1") -> Deferred["SimulatedComfyUI"]:
        """Listen on a TCP port (0: one that is free); the Deferred fires with the server itself.

        Fails with CannotListenError.
        """
        endpoint = TCP4ServerEndpoint(cast(IReactorTCP, self._reactor), port, interface=interface)

        def listening(bound: IListeningPort) -> SimulatedComfyUI:
            self._listening = bound
            return self

        return endpoint.listen(self._connections).addCallback(listening)

    def stop(self) -> Deferred[None]:
        """Be gone as a process that was killed: nobody is told. Once it fires, the reactor is clean.

        It does not come back; a server that was started again is a new one.
        """
        self.machine.worker.stop()
        listening, self._listening = self._listening, None
        closed = listening.stopListening() if listening else None
        dropped = self._connections.drop_all()
        waits = [dropped, closed] if isinstance(closed, Deferred) else [dropped]
        return DeferredList(waits, fireOnOneErrback=True, consumeErrors=True).addCallback(lambda _: None)

    @property
    def _address(self) -> Any:
        if self._listening is None:
            raise RuntimeError(f"{self.name} is not listening")
        return self._listening.getHost()


def start_demo_servers(
    reactor: IReactorTime, count: int = 3, **options: Any
) -> Deferred[list[SimulatedComfyUI]]:
    """``count`` servers gpu-1, gpu-2 ... on free loopback ports, in colours far apart.

    ``options`` are SimulatedComfyUI's. If one cannot listen, those that do are stopped again and the Deferred
    fails.
    """
    servers = [
        SimulatedComfyUI(f"gpu-{number}", reactor, hue=(0.58 + (number - 1) * 0.382) % 1, **options)
        for number in range(1, count + 1)
    ]
    return Deferred.fromCoroutine(_listen_all(servers))


def stop_all(servers: Iterable[SimulatedComfyUI]) -> Deferred[None]:
    """Stop several at once; fires when all are gone."""
    return DeferredList([server.stop() for server in servers], consumeErrors=True).addCallback(lambda _: None)


async def _listen_all(servers: list[SimulatedComfyUI]) -> list[SimulatedComfyUI]:
    try:
        for server in servers:
            await server.listen()
    except Exception:
        await stop_all(servers)
        raise
    return servers


class _Connections(WrappingFactory):
    """Knows every open connection of a site, upgraded ones too, so that they can be dropped."""

    protocol = ProtocolWrapper
    noisy = False

    def __init__(self, site: SimulatedSite) -> None:
        super().__init__(site)
        self._waiting: list[Deferred[None]] = []

    def drop_all(self) -> Deferred[None]:
        """Abort every connection; fires once the last is gone."""
        if not self.protocols:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        for connection in list(self.protocols):
            connection.transport.abortConnection()
        return waiting

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        if not self.protocols:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)
