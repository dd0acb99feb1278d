"""One exchange: a request finds its backend, and the answer its way back. The only file that knows the
whole way.

    front.begin ─▶ route ─▶ `Consulting` ─▶ `Attempts` ─▶ send ─▶ answer ─▶ front.finish
                                               ▲                   │
                                               └── another one ◀───┘  (nothing answered, safe to send again)

Both fronts, the daemon's `Downstream` and the resource for twisted.web, drive this and are driven by it
through `Front`. Bodies stream: an exchange holds a piece only while there is no connection to send it on,
with the client paused, or when a router asked to see the whole.
"""

from functools import partial
from typing import TYPE_CHECKING

from comfyproxy.core.balancing.backend import Outcome
from comfyproxy.core.balancing.retries import FAILED_STATUSES
from comfyproxy.core.balancing.routing import Rewrite
from comfyproxy.core.http.answers import choose_request_id
from comfyproxy.core.http.chunked import LAST_CHUNK, encode_chunk
from comfyproxy.core.http.forwarding import (
    UPGRADE,
    answer_fields,
    compose_request,
    informational_fields,
    with_request_id,
)
from comfyproxy.core.http.headerrules import ValueOf, lookup
from comfyproxy.core.http.headers import HOP_BY_HOP, Forwarder, refuse_early
from comfyproxy.core.http.http1 import UNTIL_CLOSE, RequestHead, ResponseHead
from comfyproxy.core.http.websocket import accepts, is_websocket_request
from comfyproxy.errors import BackendProtocolError
from comfyproxy.proxy.admission import TOO_OFTEN
from comfyproxy.proxy.consulting import Consulting
from comfyproxy.proxy.front import Front
from comfyproxy.proxy.relay import Transport
from comfyproxy.proxy.tunnel import Tunnel
from comfyproxy.proxy.upstream import Upstream

if TYPE_CHECKING:
    from comfyproxy.proxy.proxy import Proxy
    from comfyproxy.proxy.websockets import Bridge

_NO_CHANGE = Rewrite()


class Exchange(Consulting):
    """One request and its answer.

    ``status`` and ``sent`` (octets of body, in the framing of the wire) are for the log, as is ``backend``.
    """

    _bridge: "Bridge | None" = None
    _rechunk = False
    _watched: tuple[ResponseHead, list[bytes]] | None = None

    def __init__(self, proxy: "Proxy", front: Front, head: RequestHead, forwarder: Forwarder) -> None:
        self.proxy = proxy
        self.front = front
        self.head = head
        self.request_complete = head.body == 0
        self.started = proxy.reactor.seconds()
        self._forwarder = forwarder

    @property
    def max_body(self) -> int:
        """Octets that the request's body may have; 0 is no limit."""
        assert self.route is not None
        return self.proxy.limits.body if self.route.max_body is None else self.route.max_body

    @property
    def min_rate(self) -> int:
        """Octets a second that the client has to send or take; 0 is no least rate."""
        assert self.route is not None
        return self.proxy.limits.min_rate if self.route.min_rate is None else self.route.min_rate

    def begin(self, data: bytes = b"", complete: bool = False) -> None:
        """Find the route and set out; ``data`` is what is already there of a body of known length."""
        head = self.head
        if data:
            self._pending = (*self._pending, data)
            self.request_complete = complete
        if self.proxy.request_ids != "errors":
            self.request_id = choose_request_id(head, believed=self._forwarder.is_trusted)
        route = self.route = self.proxy.routes.match(head.target)
        if route is None:
            self.refuse(404, "No route of this proxy leads there.")
        elif (refusal := refuse_early(head, self.proxy.name)) is not None:
            self.refuse(*refusal)
        elif route.rate_limits and (wait := self.proxy.admission.wait(route.rate_limits, head, self.client)):
            self.refuse(429, TOO_OFTEN, wait)
        elif head.body and 0 < self.max_body < head.body:
            self.refuse_body(self.max_body)
        else:
            self.upgrading = head.upgrade and is_websocket_request(head)
            self._consult_router(None)

    def refuse_body(self, limit: int) -> None:
        """The request's body has more than ``limit`` octets, which is all that it may have."""
        client = self.client.decode()
        self.proxy.admission.refuse("body", client, f"{client} sends more than {limit} octets in a body")
        self.break_off(413, f"The request's body is larger than the {limit} octets it may have.")

    def body(self, data: bytes, complete: bool) -> None:
        """Take more of the request's body, framed as it came unless `gathers_body`."""
        self.request_complete = complete
        if self._gathered is not None:
            self._take_gathered(data, complete)
        elif self._upstream is not None:
            if data:
                self._body_sent = True
                self._upstream.write(data)
        elif not self.status:
            self._pending = (*self._pending, data)
            self.front.pause_body()

    def _send(self, upstream: Upstream) -> None:
        assert self.route is not None
        self._upstream = upstream
        if self.upgrading and self.proxy.bridges is not None:
            self._bridge = self.proxy.bridges.bridge(self)
        data = self._request_head()
        if self._pending:
            data = b"".join((data, *self._pending))
            self._pending = ()
            self._body_sent = True
        upstream.begin(self, data, self.route.timeouts)
        if not self.request_complete and not upstream.is_full:
            self.front.resume_body()

    def _request_head(self) -> bytes:
        """The request as this backend gets it, with its body if that was gathered."""
        assert self.route is not None and self.backend is not None
        balancer = self.route.balancer
        rewrite = self._rewrite or _NO_CHANGE
        # HTTP/1.0 has requests without a Host.
        host = (self.head.host if balancer.keep_host else b"") or self.backend.authority
        edit = None
        if (rules := self.route.request_rules) is not None:
            value_of = self._lookup()
            host = rules.host(host, value_of)
            edit = partial(rules.apply, value_of=value_of)
        return compose_request(
            self.head,
            target=rewrite.target or self.head.target,
            host=host,
            forwarder=self._forwarder,
            router=balancer.router,
            body=self._body if rewrite.body is None else rewrite.body,
            handshake=self._handshake() if self.upgrading else b"",
            request_id=self.request_id if self.proxy.request_ids != "errors" else "",
            edit=edit,
        )

    def _lookup(self) -> ValueOf:
        """Looks up what the values of rules for fields may name."""
        server = b"" if self.backend is None else self.backend.authority
        return lookup(self.head, self._forwarder, server, self._known_id)

    def _known_id(self) -> str:
        self.request_id = self.request_id or choose_request_id(self.head)
        return self.request_id

    def edited(self, fields: bytes) -> bytes:
        """The fields of the backend's answer with our request id, as the route's rules will have them."""
        assert self.route is not None
        if self.request_id and self.proxy.request_ids == "answers":
            fields = with_request_id(fields, self.request_id)
        rules = self.route.response_rules
        return fields if rules is None else rules.apply(fields, self._lookup())

    def _handshake(self) -> bytes:
        """The lines that ask for a WebSocket; with a bridge the key is its own."""
        return UPGRADE if self._bridge is None else b"%b%b\r\n" % (UPGRADE, self._bridge.key_line)

    def informational(self, head: ResponseHead) -> None:
        """The backend sent a 1xx (RFC 9110 section 15.2)."""
        self.front.informational(head.status, head.reason, informational_fields(head))

    def answered(self, head: ResponseHead, data: bytes, complete: bool) -> None:
        """The final answer comes, with the first octets of its body: pass it on, unless another server is to
        be asked for a better one."""
        assert self.route is not None
        if complete:
            self._upstream = None
        if self.route.balancer.is_curious:
            self._seconds = self.proxy.reactor.seconds() - (self._asked_at or self.started)
        if self._searching and head.status == 404 and self._search_on():
            return
        if head.status in self.route.retry_on and self._ask_another(head, data, complete):
            return
        self.status = head.status
        if self._rewrite is not None and 0 <= head.body <= self._rewrite.watch:
            self._watched = (head, [data])
        fields = answer_fields(head, self.front.takes_chunks)
        if b"date" not in head.notable:
            fields += self.proxy.date()
        if self.route.response_rules is not None or self.proxy.request_ids == "answers":
            fields = self.edited(fields)
        if self._rewrite is not None:
            fields += self._added(self._rewrite)
        delimited = head.body >= 0 or self.front.takes_chunks
        if head.body == UNTIL_CLOSE and delimited:
            self._rechunk = True
            data = encode_chunk(data) if data else b""
        self.sent = len(data)
        self.front.begin(head.status, head.reason, fields, data, delimited)
        if complete:
            self._finish()

    def _added(self, rewrite: Rewrite) -> bytes:
        """The field lines that the router adds to the answer."""
        if rewrite.tls_fields and self._forwarder.scheme(self.head) == b"https":
            return rewrite.tls_fields
        return rewrite.answer_fields

    def answer_data(self, data: bytes, complete: bool) -> None:
        """More of the answer's body."""
        if complete:
            self._upstream = None
        if self._rechunk:
            data = encode_chunk(data) if data else b""
            if complete:
                data += LAST_CHUNK
        if data:
            self.sent += len(data)
            if self._watched is not None:
                self._watched[1].append(data)
            self.front.write(data)
        if complete:
            self._finish()

    def switched(self, upstream: Upstream, head: ResponseHead, rest: bytes) -> None:
        """The backend answered 101: a tunnel if it was asked for and is what it should be, else 502."""
        bridge = self._bridge
        if not self.upgrading or not (
            bridge.accepts(head) if bridge is not None else accepts(self.head, head)
        ):
            upstream.abort()
            self.upstream_failed(
                BackendProtocolError("It switched protocols without being asked to.", request_was_sent=True)
            )
            return
        assert self.route is not None and self._lease is not None
        if self.route.balancer.is_curious:
            self._seconds = self.proxy.reactor.seconds() - (self._asked_at or self.started)
        if self.route.comfyui:
            self.route.balancer.exempt(self._lease)
        self.status = 101
        added = self._added(self._rewrite) if self._rewrite is not None else b""
        upstream.give_away()
        if bridge is not None:
            router = self.route.balancer.router
            key = router.message_key if router is not None else None
            bridge.join(upstream, head, rest, added, key, self.route.timeouts)
            return
        client, held = self.front.tunnel(self.edited(head.block.passing(HOP_BY_HOP)) + UPGRADE + added)
        Tunnel(
            client,
            upstream,
            self.closed,
            self.proxy.deadlines,
            self.route.timeouts,
            to_client=rest,
            to_backend=held,
            drain=self.route.comfyui,
        )

    def closed(self) -> None:
        """A connection of the tunnel, or the client's to its session, is gone."""
        self._upstream = None
        self._end(Outcome.ANSWERED)

    def refuse(self, status: int, message: str, retry_after: float = 0) -> None:
        """Answer ``message`` ourselves; ``retry_after`` is when trying again may help, in seconds."""
        self._drop_upstream()
        self._stop_consulting()
        self.status = status
        self.request_id = self.request_id or choose_request_id(self.head)
        comfyui = self.route is not None and self.route.comfyui
        answer = self.proxy.answer(status, message, self.head, self.request_id, comfyui, retry_after)
        self.sent = len(answer.body)
        self._end()
        self.front.answer(answer)

    def break_off(self, status: int, message: str) -> None:
        """The request went wrong on its way: say so if nothing was answered yet, else cut the answer off."""
        if self.status:
            self._drop_upstream()
            self._stop_consulting()
            self._end()
            self.front.abort()
        else:
            self.refuse(status, message)

    def client_gone(self) -> None:
        """The client left: nobody waits for the answer, so the backend need not make it."""
        if not self.status:
            self.status = 499
        self._drop_upstream()
        self._client_left()
        self._end()

    def _finish(self) -> None:
        if self._watched is not None and self.backend is not None and self.route is not None:
            head, data = self._watched
            router = self.route.balancer.router
            if router is not None:
                router.learn(head, b"".join(data), self.backend, self.proxy.reactor.seconds())
        self._end(Outcome.ERRED if self.status in FAILED_STATUSES else Outcome.ANSWERED)
        self.front.finish()

    def _end(self, outcome: Outcome = Outcome.ABANDONED) -> None:
        self._release(outcome, self._seconds)
        if self._gathered_size:
            self._give_back()
        if self._repeats:
            self._settle_budget()
        self.proxy.log.finished(self)

    def pause_answer(self) -> None:
        """The client takes no more for now."""
        if self._upstream is not None:
            self._upstream.pause_answer()
        elif self._rest is not None:
            self._is_paused = True

    def resume_answer(self) -> None:
        """The client takes more again."""
        if self._upstream is not None:
            self._upstream.resume_answer()
        elif self._rest is not None:
            self._is_paused = False
            self._respond_on()

    @property
    def answer_sink(self) -> Transport | None:
        """Where the octets of an answer's body may go without passing through here, if anywhere."""
        return self.front.body_sink if self._watched is None and self.proxy.splices else None

    @property
    def body_sink(self) -> Transport | None:
        """The same for the request's body: the connection to the backend, once there is one."""
        return self._upstream.transport if self._upstream is not None and self.proxy.splices else None

    def note_body_progress(self) -> None:
        """Octets of the request's body went straight to `body_sink`."""
        self._body_sent = True
        if self._upstream is not None:
            self._upstream.note_progress()
