"""Pairs of connected peers, in memory and on loopback: what one shows, the other must show."""

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import deferLater

from comfyproxy.testing import MemoryNetwork, RawClient, ScriptedBackend


class Wires:
    """Connects peers on ``reactor`` and waits for what they are to see."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._ports: list[Any] = []

    async def pair(self, backend: ScriptedBackend) -> RawClient:
        """A client that is connected to ``backend``."""
        port = self.reactor.listenTCP(0, backend, interface="127.0.0.1")
        self._ports.append(port)
        client = RawClient()
        made: Deferred[None] = Deferred()
        client.connectionMade = lambda: made.callback(None)
        factory = ClientFactory()
        factory.noisy = False
        factory.protocol = lambda: client
        self.reactor.connectTCP("127.0.0.1", port.getHost().port, factory)
        await self.wait(made)
        await self.wait(backend.connected())
        return client

    async def wait(self, what: Deferred[Any]) -> Any:
        """Let things happen until ``what`` fires."""
        if isinstance(self.reactor, MemoryNetwork):
            self.reactor.run()
            assert what.called, "nothing more happens, and it has not fired"
        return await what

    async def turn(self) -> None:
        """Let things happen for a moment."""
        if isinstance(self.reactor, MemoryNetwork):
            self.reactor.run()
        else:
            await deferLater(self.reactor, 0)

    def close(self) -> None:
        """Listen no more."""
        for port in self._ports:
            port.stopListening()


@pytest.fixture(params=["memory", "loopback"])
def wires(request: pytest.FixtureRequest, running_reactor: Any) -> Iterator[Wires]:
    """In memory, then on real sockets."""
    wires = Wires(MemoryNetwork() if request.param == "memory" else running_reactor)
    yield wires
    wires.close()


@pytest.fixture
def network() -> MemoryNetwork:
    """A network in memory."""
    return MemoryNetwork()
