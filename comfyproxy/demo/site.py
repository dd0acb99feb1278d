"""twisted.web's side of a simulated ComfyUI: requests and answers between the wire and their values."""

from autobahn.twisted.resource import WebSocketResource
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from comfyproxy.demo.machine import Machine
from comfyproxy.demo.origin import is_forbidden
from comfyproxy.demo.routes.table import all_routes
from comfyproxy.demo.routing import Answer, Asked, parse_query, text_answer
from comfyproxy.demo.socket import EventSocketFactory

_SOCKETS = ("/ws", "/api/ws")
_KEEPALIVE = 3630.0


class SimulatedResource(Resource):
    """Everything that one machine serves, as one leaf; its paths are from the root of the URL."""

    isLeaf = True
    _log = Logger()

    def __init__(self, machine: Machine, reactor: IReactorTime) -> None:
        super().__init__()
        self._installation = machine.installation
        self._routes = all_routes(machine)
        self._sockets = WebSocketResource(EventSocketFactory(machine, reactor))

    def render(self, request: Request) -> int:
        asked = _asked(request)
        if self._installation.origin_check and is_forbidden(asked.fields):
            return _send(request, Answer(403))
        if asked.path in _SOCKETS and asked.fields.get("upgrade", "").lower() == "websocket":
            return self._sockets.render(request)
        limit = self._installation.max_upload_size
        if len(asked.body) > limit:
            return _send(request, text_answer(f"Maximum request body size {limit} exceeded.", 413))
        return _send(request, self._answer(asked))

    def _answer(self, asked: Asked) -> Answer:
        try:
            return self._routes.answer(asked)
        except Exception:
            self._log.failure(
                "the simulated ComfyUI stumbled over {method} {path}", method=asked.method, path=asked.path
            )
            return text_answer("500 Internal Server Error\n\nServer got itself in trouble", 500)


class SimulatedSite(Site):
    """A site that keeps connections as long as aiohttp does, and writes no access log."""

    def __init__(self, resource: SimulatedResource, reactor: IReactorTime) -> None:
        super().__init__(resource, timeout=_KEEPALIVE, reactor=reactor)
        self.displayTracebacks = False

    def log(self, request: http.Request) -> None:
        """The demo's own access log is the proxy's."""


def _asked(request: Request) -> Asked:
    path, _, query = request.uri.decode("latin-1").partition("?")
    fields = {
        name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
    body = request.content.read() if request.content else b""
    return Asked(request.method.decode("latin-1"), path, parse_query(query), fields, body)


def _send(request: Request, answer: Answer) -> int:
    request.setResponseCode(answer.status)
    request.setHeader("Server", "simulated ComfyUI")
    request.responseHeaders.removeHeader("Content-Type")
    for name, value in answer.fields.items():
        request.setHeader(name, value)
    if answer.status not in (204, 304):
        if not answer.chunked:
            request.setHeader("Content-Length", str(len(answer.body)))
        request.write(answer.body)
    request.finish()
    return NOT_DONE_YET
