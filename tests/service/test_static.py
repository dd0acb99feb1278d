"""A directory as a server of its own."""

import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
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


async def fetch(port: Any, target: str, *lines: str, method: str = "GET") -> bytes:
    """The whole answer."""
    request = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", "Connection: close", *lines, "", ""])
    endpoint = TCP4ClientEndpoint(global_reactor, "127.0.0.1", port.getHost().port)
    return await (await connectProtocol(endpoint, Asking(request.encode()))).answer


async def ask(port: Any, target: str, *lines: str, method: str = "GET") -> tuple[bytes, bytes]:
    """The status line and the body of the answer."""
    head, _, body = (await fetch(port, target, *lines, method=method)).partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], body


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A directory with a page, a script, and two directories; a secret lies beside it."""
    pages = tmp_path / "dist"
    for directory in ("with", "without"):
        (pages / directory).mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (pages / "index.html").write_text("<p>page</p>")
    (pages / "with" / "index.html").write_text("<p>inner</p>")
    (pages / "without" / "hidden.txt").write_text("hidden")
    (pages / "app.js").write_text("0123456789")
    return pages


@pytest_twisted.async_yield_fixture
async def port(pages: Path) -> AsyncIterator[Any]:
    """Where the directory is served."""
    port = serve_directory(global_reactor, str(pages))
    yield port
    await maybeDeferred(port.stopListening)


# twisted.web makes the page of a 405 with a class of its own that it has deprecated.
@pytest.mark.filterwarnings("ignore:.*_UnsafeErrorPage:DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_files_are_served_on_loopback(port: Any) -> None:
    assert port.getHost().host == "127.0.0.1"
    assert await ask(port, "/") == (b"HTTP/1.1 200 OK", b"<p>page</p>")
    assert await ask(port, "/app.js?v=1") == (b"HTTP/1.1 200 OK", b"0123456789")
    assert await ask(port, "/app.js", method="HEAD") == (b"HTTP/1.1 200 OK", b"")
    assert (await ask(port, "/app.js", method="POST"))[0].startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    ("range_", "status", "body"),
    [
        ("bytes=2-4", b"206 Partial Content", b"234"),
        ("bytes=7-", b"206 Partial Content", b"789"),
        ("bytes=-3", b"206 Partial Content", b"789"),
        ("bytes=90-", b"416 Requested Range not satisfiable", b""),
        ("nonsense", b"200 OK", b"0123456789"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_parts_of_files_are_served(port: Any, range_: str, status: bytes, body: bytes) -> None:
    assert await ask(port, "/app.js", f"Range: {range_}") == (b"HTTP/1.1 " + status, body)


@pytest_twisted.ensureDeferred
async def test_what_the_client_has_is_not_sent_again(port: Any) -> None:
    tomorrow = formatdate(time.time() + 86_400, usegmt=True)
    assert await ask(port, "/app.js", f"If-Modified-Since: {tomorrow}") == (b"HTTP/1.1 304 Not Modified", b"")


@pytest.mark.parametrize(
    "target",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/with/../../secret",
        "/.%00./secret",
        "/%ff",
        "/" + "x" * 5000,
        "//../secret",
        "/..\\secret",
        "/missing",
        "/app.js/more",
    ],
)
@pytest_twisted.ensureDeferred
async def test_nothing_else_is(port: Any, target: str) -> None:
    status, body = await ask(port, target)
    assert status.startswith(b"HTTP/1.1 404")
    assert b"secret" not in body.replace(target.encode(), b"")


@pytest_twisted.ensureDeferred
async def test_a_directory_shows_its_page_and_nothing_else(port: Any) -> None:
    assert await ask(port, "/with/") == (b"HTTP/1.1 200 OK", b"<p>inner</p>")
    status, body = await ask(port, "/without/")
    assert status.startswith(b"HTTP/1.1 404")
    assert b"hidden" not in body
    assert await ask(port, "/without/hidden.txt") == (b"HTTP/1.1 200 OK", b"hidden")


@pytest.mark.parametrize(
    ("target", "location"), [("/with", b"./with/"), ("/with?a=b", b"./with/?a=b"), ("/%77ith", b"./%77ith/")]
)
@pytest_twisted.ensureDeferred
async def test_a_directory_without_its_slash_is_a_redirect_without_a_name(
    port: Any, target: str, location: bytes
) -> None:
    answer = await fetch(port, target)
    assert answer.startswith(b"HTTP/1.1 302 ")
    assert b"\r\nLocation: " + location + b"\r\n" in answer


@pytest_twisted.ensureDeferred
async def test_it_logs_nothing(port: Any, caplog: pytest.LogCaptureFixture) -> None:
    await ask(port, "/")
    await ask(port, "/missing")
    assert [line for line in caplog.messages if "GET" in line or "missing" in line] == []
