"""A directory as a server of its own."""

from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from comfyproxy.service.static import serve_directory


class Asking(Protocol):
    """Sends one request and gathers what comes until the connection ends."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = b""
        self.answer: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.answer.callback(self._received)


async def ask(port: Any, target: str, *lines: str, method: str = "GET") -> tuple[bytes, bytes]:
    """The status line and the body of the answer."""
    request = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", "Connection: close", *lines, "", ""])
    endpoint = TCP4ClientEndpoint(global_reactor, "127.0.0.1", port.getHost().port)
    answer = await (await connectProtocol(endpoint, Asking(request.encode()))).answer
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], body


@pytest_twisted.ensureDeferred
async def test_files_are_served_with_ranges_and_nothing_outside(tmp_path: Path) -> None:
    pages = tmp_path / "dist"
    pages.mkdir()
    (tmp_path / "secret").write_text("secret")
    (pages / "index.html").write_text("<p>page</p>")
    (pages / "app.js").write_text("0123456789")
    port = serve_directory(global_reactor, str(pages))
    try:
        assert port.getHost().host == "127.0.0.1"
        assert await ask(port, "/") == (b"HTTP/1.1 200 OK", b"<p>page</p>")
        status, body = await ask(port, "/app.js", "Range: bytes=2-4")
        assert (status, body) == (b"HTTP/1.1 206 Partial Content", b"234")
        assert await ask(port, "/app.js", method="HEAD") == (b"HTTP/1.1 200 OK", b"")
        for target in ("/../secret", "/%2e%2e/secret", "/..%2fsecret", "/missing"):
            status, body = await ask(port, target)
            assert status.startswith(b"HTTP/1.1 404")
            assert b"secret" not in body.replace(target.encode(), b"")
    finally:
        await maybeDeferred(port.stopListening)
