"""The examples of embedding, run as they are."""

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.web.resource import Resource
from twisted.web.server import Site

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ON_LOOPBACK = "tcp:0:interface=127.0.0.1"


class Running(ProcessProtocol):
    """A process whose output can be waited for."""

    def __init__(self) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()
        self._awaited: list[tuple[str, Deferred[str]]] = []

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()
        waiting, self._awaited = self._awaited, []
        for pattern, deferred in waiting:
            self._await(pattern, deferred)

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        for _, deferred in self._awaited:
            deferred.errback(AssertionError(self.output))
        self.ended.callback(reason.value.exitCode)

    def line(self, pattern: str) -> "Deferred[str]":
        """What the group of ``pattern`` finds in the output, when it is there."""
        deferred: Deferred[str] = Deferred()
        self._await(pattern, deferred)
        return deferred

    def _await(self, pattern: str, deferred: "Deferred[str]") -> None:
        if found := re.search(pattern, self.output):
            deferred.callback(found[1])
        else:
            self._awaited.append((pattern, deferred))


class Named(Resource):
    """Says its name and what it was asked for."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render(self, request: Any) -> bytes:
        return f"{self._name} {request.uri.decode()}".encode()


class Bench:
    """Two servers, and a process before them."""

    def __init__(self) -> None:
        self._ports = []
        self.urls = []
        for name in ("one", "two"):
            port = reactor.listenTCP(0, Site(Named(name)), interface="127.0.0.1")
            self._ports.append(port)
            self.urls.append(f"http://127.0.0.1:{port.getHost().port}")
        self.process = Running()

    def run(self, *arguments: str, **environment: str) -> Running:
        command = [sys.executable, *arguments]
        reactor.spawnProcess(self.process, sys.executable, command, env=os.environ | environment)
        return self.process

    async def stop(self) -> None:
        with suppress(ProcessExitedAlready):
            self.process.transport.signalProcess("TERM")
        await self.process.ended
        assert "Traceback" not in self.process.output
        for port in self._ports:
            await port.stopListening()


@pytest_twisted.async_yield_fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.stop()


async def fetch(port: str, path: str) -> str:
    """The body of the answer to a GET over a connection of its own."""
    from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
    from twisted.internet.testing import AccumulatingProtocol

    protocol = AccumulatingProtocol()
    gone = protocol.closedDeferred = Deferred()
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", int(port)), protocol)
    protocol.transport.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    await gone
    return bytes(protocol.data).partition(b"\r\n\r\n")[2].decode()


@pytest_twisted.ensureDeferred
async def test_a_site_with_a_page_of_its_own(bench: Bench) -> None:
    process = bench.run(str(EXAMPLES / "embedded_site.py"), ON_LOOPBACK, ", ".join(bench.urls))
    port = await process.line(r"Serving on http://127\.0\.0\.1:(\d+)/")
    assert await fetch(port, "/") == "<h1>Our own page</h1>"
    assert await fetch(port, "/api/x?y") == "one /api/x?y"
    assert await fetch(port, "/api") == "two /api"
    assert "No Such Resource" in await fetch(port, "/elsewhere")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
@pytest_twisted.ensureDeferred
async def test_an_application_that_reloads(bench: Bench, tmp_path: Path) -> None:
    servers = tmp_path / "servers.txt"
    servers.write_text(f"{bench.urls[0]}  # the first\n")
    process = bench.run(
        *("-c", "from twisted.scripts.twistd import run; run()"),
        *(
            "--nodaemon",
            "--pidfile",
            "",
            "--rundir",
            str(tmp_path),
            "--python",
            str(EXAMPLES / "application.tac"),
        ),
        SERVERS=str(servers),
        LISTEN=ON_LOOPBACK,
    )
    port = await process.line(r"StreamingSite starting on (\d+)")
    assert await fetch(port, "/a") == "one /a"
    assert await fetch(port, "/b") == "one /b"
    servers.write_text("\n".join(bench.urls[1:]))
    process.transport.signalProcess("HUP")
    assert await process.line(r"(1 added, 1 removed)")
    assert await fetch(port, "/c") == "two /c"
    servers.write_text("http://[1-")
    process.transport.signalProcess("HUP")
    assert await process.line(r"(Nothing changes: servers\.txt:1:\d+)")
    assert await fetch(port, "/d") == "two /d"
