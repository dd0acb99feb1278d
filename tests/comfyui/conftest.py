"""Request heads, pools, and what an exchange does with a router, without any bytes moving."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

import pytest

from comfyproxy.comfyui.router import make_router
from comfyproxy.core.balancing.backend import Backend, Lease
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.operations import Ask, AskAddress, Operation, Reply
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import NeedBody, Pin, Refuse, Rewrite
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.core.http.http1 import RequestHead, parse_request_head, parse_response_head
from comfyproxy.demo.files import Files, StoredFile
from comfyproxy.demo.multipart import parse_form

SERVERS = "http://server[1-3]:8188"


def head(
    method: str, target: str, *lines: str, host: str = "comfy.example:8080", length: int = 0
) -> RequestHead:
    """A parsed request head with these field lines."""
    fields = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines]
    if length:
        fields.append(f"Content-Length: {length}")
    return parse_request_head("\r\n".join([*fields, "", ""]).encode("latin-1"))


def pool(servers: str = SERVERS) -> Pool:
    """A pool of these servers, called main."""
    return Pool("main", parse_addresses(servers))


@dataclass(frozen=True)
class Sent:
    """What became of one request: the backends it was placed on in turn, and the last one's changes."""

    placed: list[Backend]
    rewrite: Rewrite
    refusal: Refuse | None = None
    pinned: bool = False

    @property
    def backend(self) -> Backend:
        """The backend that answered."""
        return self.placed[-1]

    @property
    def server(self) -> str:
        """Its name, such as server1."""
        return self.backend.address.host

    @property
    def cookie(self) -> str | None:
        """The name and value of the cookie that was set."""
        lines = [line.decode() for line in self.rewrite.answer_fields.splitlines()]
        assert all(line.startswith("Set-Cookie: ") for line in lines)
        return lines[0].removeprefix("Set-Cookie: ").partition(";")[0] if lines else None


@dataclass
class Proxy:
    """One process: a pool with a router, and the part of an exchange that asks them."""

    placement: str = "client"
    servers: str = SERVERS
    now: float = 1000.0
    refusing: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pool = pool(self.servers)
        self.router = make_router(self.placement, self.pool)
        self.balancer = Balancer(self.pool, router=self.router, keep_host=False)

    def backend(self, host: str) -> Backend:
        """The backend of that name."""
        (found,) = [one for one in (*self.pool.backends, *self.pool.removed) if one.address.host == host]
        return found

    def reload(self, servers: str) -> None:
        """Take a new list of servers, as on SIGHUP."""
        self.balancer.apply(diff(self.pool.addresses, parse_addresses(servers)))

    def send(self, method: str, target: str, *lines: str, body: bytes | None = None) -> Sent:
        """Route and place one request; `refusing` servers make it try again, as a failed connection does."""
        asked = head(method, target, *lines, length=len(body or b""))
        decision = self.router.route(asked, None, self.now)
        if isinstance(decision, NeedBody):
            assert body is not None
            decision = self.router.route(asked, body, self.now)
            assert not isinstance(decision, NeedBody)
        else:
            body = None
        if isinstance(decision, Refuse):
            return Sent([], Rewrite(), decision)
        pinned = isinstance(decision, Pin)
        placed: list[Backend] = []
        lease = Lease(decision.backend) if isinstance(decision, Pin) else self.balancer.choose()
        while True:
            placed.append(lease.backend)
            rewrite = self.router.place(asked, body, lease.backend, self.now)
            lease.release()
            failed = lease.backend.address.host in self.refusing
            if not failed or (isinstance(decision, Pin) and decision.strict):
                return Sent(placed, rewrite or Rewrite(), Refuse(503, "") if failed else None, pinned)
            lease = self.balancer.choose(placed)


class FileServers:
    """The files of the servers of a pool, which answer what an operation asks about them.

    ``asked`` has what each was asked, ``at_once`` how much at the same time, ``silent`` those who do not
    answer, ``full`` those who take no uploads; ``instead`` gives another reply.
    """

    def __init__(self, pool: Pool, now: float = 1_700_000_000.0) -> None:
        self.files = {backend: Files() for backend in pool.backends}
        self.now = now
        self.asked: list[Ask] = []
        self.at_once: list[int] = []
        self.silent: set[Backend] = set()
        self.full: set[Backend] = set()
        self.instead: Callable[[Ask, Reply], Reply] = lambda ask, reply: reply

    def put(self, backend: Backend, name: str, data: bytes, kind: str = "input", subfolder: str = "") -> None:
        """Let ``backend`` have that file, made a second after the last one."""
        self.now += 1
        self.files[backend].save(kind, subfolder, name, data, self.now)

    def data(self, backend: Backend, name: str, kind: str = "input", subfolder: str = "") -> bytes | None:
        """What is in that file of ``backend``."""
        found = self.files[backend].find(kind, subfolder, name)
        return None if found is None else found.data

    def run(self, operation: Operation, address: bytes = b"192.0.2.1") -> Any:
        """Carry ``operation`` out and return what it returns."""
        answer: Any = None
        while True:
            try:
                step = operation.send(answer)
            except StopIteration as done:
                return done.value
            before = len(self.asked)
            answer = self._answer(step, address)
            self.at_once.append(len(self.asked) - before)

    def said(self, method: bytes) -> list[tuple[str, bytes]]:
        """Who was asked by that method for what."""
        return [(ask.backend.address.host, ask.target) for ask in self.asked if ask.method == method]

    def _answer(self, step: Any, address: bytes) -> Any:
        if isinstance(step, tuple):
            return tuple(self._answer(one, address) for one in step)
        if isinstance(step, AskAddress):
            return address
        assert isinstance(step, Ask)
        self.asked.append(step)
        if step.backend in self.silent:
            return Reply(step.backend, why="it is silent", was_sent=False)
        if step.method == b"POST":
            return self._take(step)
        path, _, query = step.target.decode().partition("?")
        assert path == "/view"
        said = {key: values[0] for key, values in parse_qs(query).items()}
        stored = self.files[step.backend].find(said["type"], said.get("subfolder", ""), said["filename"])
        if stored is None:
            return self._reply(step, 404)
        return self._reply(step, 200, stored.data if step.method == b"GET" else b"", stored)

    def _take(self, step: Ask) -> Reply:
        if step.backend in self.full:
            return self._reply(step, 413)
        form = parse_form(step.content_type.decode(), step.body)
        image = form["image"]
        assert image.filename is not None
        said = {key: form[key].data.decode() for key in ("overwrite", "type", "subfolder")}
        assert said["overwrite"] == "true"
        self.put(step.backend, image.filename, image.data, said["type"], said["subfolder"])
        body = {"name": image.filename, "subfolder": said["subfolder"], "type": said["type"]}
        return self._reply(step, 200, json.dumps(body).encode())

    def _reply(self, step: Ask, status: int, body: bytes = b"", stored: StoredFile | None = None) -> Reply:
        fields = f"Content-Length: {len(body) if stored is None else len(stored.data)}\r\n"
        if stored is not None:
            fields += f"ETag: {stored.etag}\r\nLast-Modified: {formatdate(stored.modified, usegmt=True)}\r\n"
        head = parse_response_head(f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode(), step.method)
        return self.instead(step, Reply(step.backend, head, body[: step.limit]))


@pytest.fixture(scope="session")
def make_file_servers() -> Callable[..., FileServers]:
    """See `FileServers`."""
    return FileServers


@pytest.fixture(scope="session")
def make_head() -> Callable[..., RequestHead]:
    """See `head`."""
    return head


@pytest.fixture(scope="session")
def make_pool() -> Callable[..., Pool]:
    """See `pool`."""
    return pool


@pytest.fixture(scope="session")
def make_proxy() -> Callable[..., Proxy]:
    """See `Proxy`."""
    return Proxy


@pytest.fixture
def proxy() -> Proxy:
    """A process with placement `client` over server1, server2 and server3."""
    return Proxy()


@pytest.fixture
def servers_of() -> Callable[[Iterable[Sent]], list[str]]:
    """The names of the servers that answered."""
    return lambda sent: [one.server for one in sent]
