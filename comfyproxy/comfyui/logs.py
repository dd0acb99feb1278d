"""The terminal's lines in the page (``api_server/services/terminal_service.py``).

``PATCH /internal/logs/subscribe`` names a client, and the server sends its log to that client's WebSocket.
A server that has no such WebSocket drops the subscription, so there has to be one first; and it forgets all
when the WebSocket is lost, which the page does not see, as its own goes on. So subscriptions are kept here.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from comfyproxy.comfyui.wire import Document, client_named, find_endpoint
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Ask, OpenSocket, Operation, Reply, Session
from comfyproxy.core.balancing.routing import Default, Pin
from comfyproxy.core.http.http1 import RequestHead

MAX_SUBSCRIBERS = 10_000

SUBSCRIBE = b"/internal/logs/subscribe"


@dataclass(slots=True)
class _Subscription:
    """Where a client reads the log; ``backend`` is ``None`` while it has to subscribe anew."""

    backend: Backend | None = None
    is_asking: bool = False


class LogSubscriptions:
    """The clients that read the log, each of the backend that ``nearest`` finds for its id."""

    def __init__(self, nearest: Callable[[str], Backend | None]) -> None:
        self._nearest = nearest
        self._clients: OrderedDict[str, _Subscription] = OrderedDict()

    def subscribe(
        self, head: RequestHead, document: Document | None, find: Callable[[str], Session | None]
    ) -> Operation:
        """Let the client that ``document`` names begin or stop reading; returns the decision.

        ``find`` finds the session of a client id.
        """
        client = client_named(find_endpoint(head), head, document)
        backend = None if client is None else self._nearest(client)
        if client is None or backend is None or document is None:
            return Default()
        session = find(client)
        if document.get("enabled"):
            self._clients[client] = _Subscription(backend)
            self._clients.move_to_end(client)
            if len(self._clients) > MAX_SUBSCRIBERS:
                self._clients.popitem(last=False)
            if session is not None:
                yield OpenSocket(session, backend)
        else:
            self._clients.pop(client, None)
        return Pin(backend, strict=True)

    def background(self, sessions: Collection[Session]) -> Iterator[Operation]:
        """Subscribe those anew whose WebSocket was lost or whose nearest backend is another now."""
        if not self._clients:
            return
        by_id = {session.client_id: session for session in sessions}
        for client, subscription in tuple(self._clients.items()):
            session = by_id.get(client)
            if session is None:
                del self._clients[client]
                continue
            backend = self._nearest(client)
            if backend is None or not session.is_greeted(backend):
                subscription.backend = None
            elif backend is not subscription.backend and not subscription.is_asking:
                yield self._again(client, subscription, backend)

    def _again(self, client: str, subscription: _Subscription, backend: Backend) -> Operation:
        subscription.is_asking = True
        body = json.dumps({"clientId": client, "enabled": True}).encode()
        try:
            reply: Reply = yield Ask(backend, b"PATCH", SUBSCRIBE, body)
        finally:
            subscription.is_asking = False
        # A server that has no such route never will.
        if reply.status:
            subscription.backend = backend
