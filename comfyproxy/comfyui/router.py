"""Where each request to a pool of ComfyUI servers belongs: a router for each placement.

Those of ``client`` and ``request`` are here, that of ``prompt`` is `comfyproxy.comfyui.prompt_router`.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from os import urandom

from comfyproxy.comfyui.affinity import AffinityTable
from comfyproxy.comfyui.claims import Sender, read_claims, read_sender, wants_cookie
from comfyproxy.comfyui.files import MAX_ANSWER, files_told, files_wanted
from comfyproxy.comfyui.identity import Random, mint_client_id, mint_prompt_id
from comfyproxy.comfyui.messages import message_key
from comfyproxy.comfyui.origin import ORIGIN_FIELDS, check_origin
from comfyproxy.comfyui.prompt_router import DEFAULTS, PromptRouter
from comfyproxy.comfyui.wire import (
    SOCKET,
    SUBMISSION,
    Document,
    client_named,
    names_nothing,
    prompts_named,
    read_object,
    with_client,
    with_prompt_id,
)
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import Decision, Default, NeedBody, Pin, Rewrite, Router, Search
from comfyproxy.core.config import ComfyUIConfig
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.fields import KEPT_BLOCKS
from comfyproxy.core.http.http1 import KEPT_HEADS, RequestHead, ResponseHead

_ANY = Default()
_SEARCH = Search()


def make_router(
    placement: str,
    pool: Pool,
    *,
    cookie: str = "comfyproxy",
    cookie_path: str = "/",
    random: Random = urandom,
    options: ComfyUIConfig = DEFAULTS,
) -> Router:
    """The router for ``placement`` (``client``, ``request`` or ``prompt``); raises `ValueError` for another.

    ``options`` are those of placement ``prompt``.
    """
    if placement == "prompt":
        return PromptRouter(pool, cookie=cookie, cookie_path=cookie_path, random=random, options=options)
    if placement == "client":
        return ClientRouter(pool, cookie=cookie, cookie_path=cookie_path, random=random)
    if placement == "request":
        return RequestRouter()
    raise ValueError(f"There is no placement {placement!r}: it is 'client', 'request' or 'prompt'.")


class RequestRouter:
    """Each request goes to the next server, whoever sends it; only pages of other sites are refused."""

    drop = ORIGIN_FIELDS
    message_key = staticmethod(message_key)

    def route(self, head: RequestHead, body: bytes | None, now: float) -> Decision:
        """Any backend, unless the request is refused."""
        return check_origin(head) or _ANY

    def place(self, head: RequestHead, body: bytes | None, backend: Backend, now: float) -> Rewrite | None:
        """Nothing is to change."""
        return None

    def learn(self, answer: ResponseHead, body: bytes, backend: Backend, now: float) -> None:
        """Nothing is to be learnt."""

    def cookies(self, value: bytes) -> bytes:
        """All of them: none is ours."""
        return value


class ClientRouter:
    """A client stays with its server, and what is asked about a prompt goes to the server that has it.

    What a request says of itself is looked at in this order; the first that leads to a backend of the pool
    counts:

    1. a prompt's id. What there is about it is only there, and any other server would answer that there is
       nothing yet, so this pin is strict;
    2. the client's id, which its WebSocket and its submissions share;
    3. the proxy's cookie.

    A submission goes by its client first, and by the prompt's id only without one: its events are sent to the
    client's WebSocket, and are lost for good if that is on another server.

    A file that is asked for by its name alone, as scripts do, is looked for where it was last told of,
    else on each server in turn; a prompt of a client not seen before goes where the files it loads are.
    What else has no identity rotates, and is given one if it can be: a WebSocket gets a client's id, a
    submission a prompt's id, both minted for the backend that it goes to, and a browser the cookie. An id
    that a client made up is bound to the backend of the first request that has it, and bound anew when
    another backend has to take over.
    """

    drop = ORIGIN_FIELDS
    message_key = staticmethod(message_key)

    def __init__(
        self,
        pool: Pool,
        *,
        cookie: str = "comfyproxy",
        cookie_path: str = "/",
        random: Random = urandom,
    ) -> None:
        self._pool = pool
        # Never with Secure: a pool on one's own network is reached by plain HTTP too, where a browser could
        # not replace a cookie that it stored over TLS when its backend is gone.
        self._cookie = BackendCookie(cookie, cookie_path)
        self._random = random
        self._clients = AffinityTable(pool)
        self._prompts = AffinityTable(pool)
        self._files = AffinityTable(pool)
        self._claims = lru_cache(KEPT_HEADS)(read_claims)
        self._sender = lru_cache(KEPT_BLOCKS)(partial(read_sender, cookie=self._cookie))
        self._parsed: tuple[bytes, Document | None] | None = None
        self._passed_over: RequestHead | None = None

    def route(self, head: RequestHead, body: bytes | None, now: float) -> Decision:
        """Where this request belongs, once its body is known if its endpoint has identities there."""
        sender = self._sender(head.block)
        if sender.is_from_here and names_nothing(head):
            self._passed_over = head
            return _ANY if not sender.backends else self._at_home_or_any(sender)
        claims = self._claims(head)
        if claims.refusal is not None:
            return claims.refusal
        endpoint = claims.endpoint
        if body is None and head.body and endpoint.body_limit:
            return NeedBody(endpoint.body_limit)
        document = self._document(body)
        client = claims.client or client_named(endpoint, head, document)
        owner = self._owner(claims.prompts or prompts_named(endpoint, head, document), now)
        if owner is not None and endpoint is not SUBMISSION:
            return Pin(owner, strict=True)
        home = owner if client is None else self._clients.find(client, now)
        if home is None:
            home = self._named_by_cookie(sender)
        if home is None and document is not None and endpoint is SUBMISSION:
            home = self._owner_of_inputs(document, now)
        if home is not None:
            return Pin(home)
        return _ANY if claims.file is None else self._where_file_is(claims.file, now)

    def _owner_of_inputs(self, document: Document, now: float) -> Backend | None:
        """The backend that was last told of as having a file which the prompt loads."""
        for file in files_wanted(document):
            if (backend := self._files.find(file, now)) is not None:
                return backend
        return None

    def _at_home_or_any(self, sender: Sender) -> Decision:
        home = self._named_by_cookie(sender)
        return _ANY if home is None else Pin(home)

    def _named_by_cookie(self, sender: Sender) -> Backend | None:
        for fingerprint in sender.backends:
            if (backend := self._pool.find(fingerprint)) is not None:
                return backend
        return None

    def _where_file_is(self, file: str, now: float) -> Decision:
        """A file that is asked for by name alone: where it was last told of, else wherever there is one."""
        owner = self._files.find(file, now)
        return _SEARCH if owner is None else Pin(owner)

    def place(self, head: RequestHead, body: bytes | None, backend: Backend, now: float) -> Rewrite | None:
        """Bind the request's ids to ``backend``, mint those that it lacks, and give a browser its cookie."""
        if head is self._passed_over or names_nothing(head):
            return Rewrite(answer_fields=self._cookie_line(backend)) if self._is_due(head, backend) else None
        claims = self._claims(head)
        endpoint = claims.endpoint
        document = self._document(body)
        self._parsed = None
        client = claims.client or client_named(endpoint, head, document)
        prompts = claims.prompts or prompts_named(endpoint, head, document)
        target = new_body = None
        if client is not None:
            self._clients.bind(client, backend, now)
        elif endpoint is SOCKET:
            target = with_client(head.target, mint_client_id(backend.fingerprint, self._random))
        if endpoint is SUBMISSION:
            for prompt in prompts:
                self._prompts.bind(prompt, backend, now)
            if body is not None and document is not None and document.get("prompt_id") is None:
                new_body = with_prompt_id(body, document, mint_prompt_id(backend.fingerprint, self._random))
        # A look at an old prompt elsewhere does not move the browser away from its WebSocket.
        visits = bool(prompts) and endpoint is not SUBMISSION
        fields = self._cookie_line(backend) if not visits and self._is_due(head, backend) else b""
        watch = MAX_ANSWER if claims.uploads or (visits and head.method == b"GET") else 0
        if target is None and new_body is None and not fields and not watch:
            return None
        return Rewrite(target, new_body, fields, watch)

    def _is_due(self, head: RequestHead, backend: Backend) -> bool:
        """Whether to set the cookie: with a page, with a WebSocket, or in place of one that is out of date.

        Nothing else gets one, so that API clients rotate whether they keep cookies or not.
        """
        sender = self._sender(head.block)
        if sender.backends:
            return backend.fingerprint not in sender.backends
        return wants_cookie(head, sender)

    def _cookie_line(self, backend: Backend) -> bytes:
        return b"%b\r\n" % self._cookie.line(backend)

    def learn(self, answer: ResponseHead, body: bytes, backend: Backend, now: float) -> None:
        """Remember which files ``backend`` told of in an answer about a prompt, or about an upload."""
        for name in files_told(answer, body):
            self._files.bind(name, backend, now)

    def cookies(self, value: bytes) -> bytes:
        """A ``Cookie`` value without what is the proxy's own; empty if nothing is left."""
        return self._cookie.without(value)

    def _document(self, body: bytes | None) -> Document | None:
        """The JSON object in ``body``, parsed once: `place` follows `route` with the same octets."""
        if not body:
            return None
        if self._parsed is None or self._parsed[0] is not body:
            self._parsed = (body, read_object(body))
        return self._parsed[1]

    def _owner(self, prompts: Sequence[str], now: float) -> Backend | None:
        """The backend of the first of these prompts that is known."""
        for prompt in prompts:
            if (backend := self._prompts.find(prompt, now)) is not None:
                return backend
        return None
