"""A router of placement prompt over simulated servers, carried out by hand: no network, and a clock."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.task import Clock

from comfyproxy.comfyui.prompt_router import PromptRouter
from comfyproxy.comfyui.prompts.ledger import Prompt
from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.operations import Ask, AskAddress, OpenSocket, Operation, Reply, Session, Step
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import (
    Decision,
    Default,
    Join,
    NeedBody,
    Operate,
    Pin,
    Refuse,
    Respond,
)
from comfyproxy.core.config import ComfyUIConfig
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.core.http.http1 import RequestHead, ResponseHead, parse_request_head, parse_response_head
from comfyproxy.demo import events
from comfyproxy.demo.machine import Installation, Machine
from comfyproxy.demo.routes.table import all_routes
from comfyproxy.demo.routing import Answer, Asked, parse_query

TURN = 0.25
EPOCH = 1_700_000_000.0


class SimulatedClock(Clock):
    """A clock that shows a time of today."""

    rightNow = EPOCH


@dataclass(eq=False)
class Line:
    """One WebSocket of a session to a server."""

    session: Session
    server: "Server"
    backend: Backend
    is_open: bool = True

    @property
    def writable(self) -> bool:
        return True

    def send(self, payload: str | bytes) -> None:
        if self.is_open and not self.server.is_mute:
            data = payload.encode() if isinstance(payload, str) else payload
            now = self.server.rig.clock.seconds()
            self.session.from_backend(self.backend, data, isinstance(payload, bytes), now)


class Server:
    """One simulated ComfyUI, and what is wrong with it.

    ``is_down``: no connection comes about. ``is_silent``: it takes requests and answers none. ``is_mute``:
    its WebSockets say nothing. ``loses_answers``: those to prompts do not arrive. ``takes_and_is_silent``: it
    takes a prompt and is silent from then on. ``replies`` (objects) and ``statuses``
    are what it answers to a method and a path, in the content coding ``coding`` as it says.
    """

    def __init__(self, rig: "Rig", backend: Backend, **manners: Any) -> None:
        self.rig = rig
        self.backend = backend
        self.is_down = self.is_silent = self.is_mute = False
        self.loses_answers = self.takes_and_is_silent = False
        self.coding = ""
        self.asked: list[tuple[str, str, Any]] = []
        self.statuses: dict[tuple[str, str], int] = {}
        self.replies: dict[tuple[str, str], Any] = {}
        self._manners = manners
        self.start()

    def start(self) -> None:
        """A new process: nothing is left of what the former one had in memory."""
        self.machine = Machine(Installation(self.name, 0.5, **self._manners), self.rig.clock)
        self._routes = all_routes(self.machine)

    @property
    def name(self) -> str:
        return self.backend.address.host

    @property
    def running(self) -> str | None:
        running = self.machine.queue.running
        return None if running is None else running.prompt_id

    @property
    def pending(self) -> list[str]:
        return [prompt.prompt_id for prompt in sorted(self.machine.queue.pending, key=lambda one: one.number)]

    @property
    def history(self) -> list[str]:
        return list(self.machine.queue.history)

    def answer(self, ask: Ask) -> Reply:
        """What comes of a request."""
        path, _, query = ask.target.decode().partition("?")
        body = json.loads(ask.body) if ask.body.startswith(b"{") else ask.body
        if self.is_down:
            return Reply(ask.backend, why="connection refused", was_sent=False)
        self.asked.append((ask.method.decode(), path, body))
        status = self.statuses.get((ask.method.decode(), path))
        if (told := self.replies.get((ask.method.decode(), path))) is not None:
            return reply(ask.backend, Answer(200, json.dumps(told).encode()))
        if self.is_silent or status == 0:
            return Reply(ask.backend, why="no answer in time")
        if status is not None:
            fields = {"Content-Encoding": self.coding} if self.coding else {}
            return reply(ask.backend, Answer(status, b"{}", fields))
        answer = self._routes.answer(Asked(ask.method.decode(), path, parse_query(query), {}, ask.body))
        if ask.method == b"POST" and path == "/prompt" and (self.loses_answers or self.takes_and_is_silent):
            self.is_silent = self.takes_and_is_silent
            return Reply(ask.backend, why="the connection was lost")
        return reply(ask.backend, answer)

    def ask_directly(self, graph: Mapping[str, Any], **members: Any) -> str:
        """Somebody submits a prompt without the proxy; returns its id."""
        body = json.dumps({"prompt": graph, **members}).encode()
        answer = self._routes.answer(Asked("POST", "/prompt", {}, {}, body))
        return str(json.loads(answer.body)["prompt_id"])

    def posts(self, path: str = "/prompt") -> list[Any]:
        """The bodies that were posted there."""
        return [body for method, asked, body in self.asked if method == "POST" and asked == path]


def reply(backend: Backend, answer: Answer) -> Reply:
    fields = "".join(f"{name}: {value}\r\n" for name, value in answer.fields.items())
    text = f"HTTP/1.1 {answer.status} Any\r\n{fields}Content-Length: {len(answer.body)}\r\n\r\n"
    head = parse_response_head(text.encode(), b"GET")
    assert isinstance(head, ResponseHead)
    return Reply(backend, head, answer.body)


@dataclass(eq=False)
class Page:
    """A client's WebSocket, and what it was told."""

    session: Any = None
    events: list[dict[str, Any]] = field(default_factory=list)
    closed: tuple[int, bytes] | None = None

    def send(self, payload: bytes, is_binary: bool, key: object = None) -> None:
        if not is_binary:
            self.events.append(json.loads(payload))

    def close(self, code: int, reason: bytes) -> None:
        self.closed = code, reason

    def told(self, prompt_id: str) -> list[str]:
        """The kinds of the events about one prompt; ``end`` is ``executing`` without a node."""
        return [
            "end" if event["type"] == "executing" and event["data"]["node"] is None else event["type"]
            for event in self.events
            if event["data"].get("prompt_id") == prompt_id
        ]

    @property
    def remaining(self) -> int:
        """The queue's length as it was told last."""
        told = [event for event in self.events if event["type"] == "status"]
        return int(told[-1]["data"]["status"]["exec_info"]["queue_remaining"])


class Rig:
    """A proxy and its servers. ``before`` is called with each request of the proxy before it is answered."""

    def __init__(
        self,
        count: int = 2,
        options: ComfyUIConfig = ComfyUIConfig(),  # noqa: B008
        beside: "Rig | None" = None,
        **manners: Any,
    ) -> None:
        self.clock = SimulatedClock() if beside is None else beside.clock
        self.pool = Pool("main", parse_addresses(f"http://gpu[1-{count}]:8188"))
        self.router = PromptRouter(self.pool, options=options)
        self.balancer = Balancer(self.pool, router=self.router, keep_host=False)
        self.dispatch = self.router._dispatch
        if beside is None:
            self.servers = [Server(self, backend, **manners) for backend in self.pool.backends]
        else:
            self.servers = beside.servers
        self.lines: dict[tuple[str, Backend], Line] = {}
        self.before: Callable[[Ask], None] = lambda ask: None
        self.is_stopping = False
        self.address = b"10.0.0.1"

    def server(self, backend: Backend) -> Server:
        (found,) = [one for one in self.servers if one.backend.fingerprint == backend.fingerprint]
        return found

    def holder(self, prompt_id: str) -> Server | None:
        """The server that has a prompt in its queue."""
        found = [one for one in self.servers if prompt_id in (one.running, *one.pending) and not one.is_down]
        assert len(found) < 2, "a prompt is on two servers"
        return found[0] if found else None

    def prompt(self, prompt_id: str) -> Prompt:
        found = self.dispatch.ledger.get(prompt_id)
        assert found is not None
        return found

    # What the proxy does with operations and sessions

    def run(self, operation: Operation, result: Any = None) -> Any:
        """Carry ``operation`` out, from its start or with the ``result`` of a step; returns its result."""
        while True:
            try:
                step = operation.send(result)
            except StopIteration as end:
                return end.value
            result = self.perform(step)

    def perform(self, step: Step) -> Any:
        if isinstance(step, Ask):
            self.before(step)
            return self.server(step.backend).answer(step)
        if isinstance(step, OpenSocket):
            self.connect(step.session, step.backend)
            return step.session.is_greeted(step.backend)
        if isinstance(step, AskAddress):
            return self.address
        return tuple(self.perform(one) for one in step)

    def connect(self, session: Session, backend: Backend) -> None:
        """Have a line, if there is none and the server is there."""
        key = (session.client_id, backend)
        server, now = self.server(backend), self.clock.seconds()
        if key in self.lines:
            return
        if server.is_down or server.is_silent:
            session.lost(backend, "connection refused", now)
            return
        line = self.lines[key] = Line(session, server, backend)
        server.machine.clients.join(session.client_id, line)
        session.opened(backend, lambda payload, is_binary: None, now)
        server.machine.clients.answer(
            events.status(len(server.machine.queue), session.client_id), session.client_id
        )

    def disconnect(self, line: Line) -> None:
        line.is_open = False
        del self.lines[line.session.client_id, line.backend]
        line.server.machine.clients.leave(line.session.client_id)
        line.session.lost(line.backend, "it closed", self.clock.seconds())

    def turn(self, seconds: float = TURN) -> None:
        """Let so much time pass, and do in it what is to be done in the background."""
        for _ in range(max(1, round(seconds / TURN))):
            self.clock.advance(TURN)
            self.settle()

    def settle(self) -> None:
        """Do what is to be done now."""
        now = self.clock.seconds()
        work = self.router.settle if self.is_stopping else self.router.background
        for operation in tuple(work(now)):
            self.run(operation)
        for session in self.router.sessions:
            session.due(now)
            for backend in tuple(session.wanted):
                self.connect(session, backend)
            for (client, backend), line in tuple(self.lines.items()):
                if client == session.client_id and backend not in session.wanted:
                    self.disconnect(line)
        self.clock.advance(0)

    def stop(self) -> None:
        """The proxy is to end."""
        self.is_stopping = True

    def kill(self, server: Server) -> None:
        """The server's process ends."""
        server.is_down = True
        server.machine.worker.stop()
        for line in [line for line in self.lines.values() if line.server is server]:
            self.disconnect(line)

    def restart(self, server: Server) -> None:
        """It is there again, with nothing of what it had."""
        self.kill(server)
        server.start()
        server.is_down = False

    def admit(self, server: Server, state: AdminState) -> None:
        """An operator sets the state of a server."""
        (backend,) = [one for one in self.pool.backends if self.server(one) is server]
        self.pool.set_admin(backend, state, self.clock.seconds())

    def reload(self, servers: str) -> None:
        self.balancer.apply(diff(self.pool.addresses, parse_addresses(servers)))

    # What clients do

    def decide(self, method: str, target: str, *lines: str, body: bytes = b"") -> Decision:
        """What becomes of a request."""
        head = make_head(method, target, *lines, length=len(body))
        decision = self.router.route(head, None, self.clock.seconds())
        if isinstance(decision, NeedBody):
            decision = self.router.route(head, body, self.clock.seconds())
        while isinstance(decision, Operate):
            decision = self.run(decision.operation)
        self.clock.advance(0)
        return decision

    def ask(self, method: str, target: str, document: object = None, *lines: str) -> tuple[int, Any]:
        """The status and the JSON of the answer, whoever gives it."""
        body = b"" if document is None else json.dumps(document).encode()
        decision = self.decide(method, target, *lines, body=body)
        if isinstance(decision, Refuse):
            return decision.status, decision.message
        if isinstance(decision, Respond):
            return decision.status, json.loads(decision.body) if decision.body else None
        assert isinstance(decision, Pin | Default)
        backend = decision.backend if isinstance(decision, Pin) else self.pool.backends[0]
        answer = self.server(backend).answer(Ask(backend, method.encode(), target.encode(), body))
        return answer.status, json.loads(answer.body) if answer.body else None

    def submit(self, graph: Mapping[str, Any], *lines: str, **members: Any) -> str:
        """Submit a prompt that is taken; returns its id."""
        status, told = self.ask("POST", "/prompt", {"prompt": graph, **members}, *lines)
        assert status == 200, told
        return str(told["prompt_id"])

    def open(self, target: str = "/ws", *lines: str) -> Page:
        """Open a WebSocket."""
        decision = self.decide("GET", target, *UPGRADE, *lines)
        assert isinstance(decision, Join), decision
        page = Page(decision.session)
        decision.session.attach(page, self.clock.seconds())
        self.settle()
        return page


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


def make_head(method: str, target: str, *lines: str, length: int = 0) -> RequestHead:
    fields = [f"{method} {target} HTTP/1.1", "Host: comfy.example:8080", *lines]
    if length:
        fields.append(f"Content-Length: {length}")
    return parse_request_head("\r\n".join([*fields, "", ""]).encode("latin-1"))


def sampled(seconds: float, seed: int = 7, **inputs: Any) -> dict[str, Any]:
    """A prompt that takes so many seconds, in four steps."""
    return {
        "1": {
            "class_type": "DemoSampler",
            "inputs": {"seed": seed, "steps": 4, "seconds": seconds, **inputs},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "picture"}},
    }
