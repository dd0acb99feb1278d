"""Who asks: browsers and scripts, told apart so that each is given its own queue, pictures and events.

ComfyUI knows its clients by the id of their WebSocket alone, and most requests do not say it. So a **caller**
is, in this order:

- a browser with all its tabs, known by a random token in the proxy's cookie;
- a script, known by its ``clientId`` or ``client_id``;
- a script that says nothing, known by the address that it asks from.

A caller has a fingerprint of twelve hexadecimal digits. The ids that the proxy mints for a WebSocket carry it
(`comfyproxy.comfyui.identity`), and ComfyUI repeats a prompt's client id in its queue and its history
(``extra_data.client_id``): so any proxy of the pool can tell whose a prompt is, without being told.
"""

import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, partial
from hashlib import blake2b
from heapq import nlargest
from math import log
from os import urandom

from comfyproxy.comfyui.affinity import MAX_ENTRIES
from comfyproxy.comfyui.claims import Sender, read_sender, wants_cookie
from comfyproxy.comfyui.identity import Random, fingerprint_in, mint_client_id
from comfyproxy.comfyui.wire import Document, client_named, find_endpoint
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import AskAddress, Operation
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.selection.keys import address_key
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.fields import KEPT_BLOCKS, FieldBlock
from comfyproxy.core.http.http1 import RequestHead

CALLER_KEY = "comfyproxy_caller"
"""The member of a prompt's ``extra_data`` that says whose it is where its client id does not."""

TOKEN_OCTETS = 16

KEPT_RANKS = 4096
FIRST_RANKS = 4
"""Of so many callers so many backends are remembered, the nearest first."""

SPARE_TOKENS = 32
"""Tokens that are kept ready for each backend at most."""

TRIED_SCORES = 10_000
"""How many scores may be calculated to find a token for one backend."""

_TOKEN = re.compile(r"[0-9a-f]{32}")
_FINGERPRINT = re.compile(r"[0-9a-f]{12}")


class Kind(Enum):
    """How a caller is known."""

    BROWSER = "cookie"
    SCRIPT = "client id"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks; ``fingerprint`` is the same wherever and whenever the caller is met."""

    fingerprint: str
    kind: Kind


class Callers:
    """Knows the callers of one pool, and which backend each is nearest to.

    That backend, the caller's **affinity**, is found by rendezvous hashing over the usable backends (Thaler
    and Ravishankar, "Using name-based mappings to increase hit rates", 1998; with weights as in Schindelhauer
    and Schomaker, "Weighted distributed hash tables", 2005): any proxy finds the same one, and it changes
    only for those whose backend goes.

    Nothing needs to be remembered but two things, each for the `MAX_ENTRIES` latest: a client id that a
    browser uses and that was not minted for it, and the address that a script was last seen at.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        cookie: str = "comfyproxy",
        cookie_path: str = "/",
        random: Random = urandom,
    ) -> None:
        self._pool = pool
        self._cookie = BackendCookie(cookie, cookie_path)
        self._random = random
        self._bound: OrderedDict[str, str] = OrderedDict()
        self._places: OrderedDict[str, str] = OrderedDict()
        self._backends: tuple[Backend, ...] = ()
        self._spare: dict[Backend, deque[str]] = {}
        self.sender = lru_cache(KEPT_BLOCKS)(partial(read_sender, cookie=self._cookie))
        self._browser = lru_cache(KEPT_BLOCKS)(self._read_browser)
        self._ranks = lru_cache(KEPT_RANKS)(self._rank)

    def browser(self, head: RequestHead) -> Caller | None:
        """The caller that the proxy's cookie names; ``None`` without one."""
        return self._browser(head.block)

    def identify(self, head: RequestHead, document: Document | None = None) -> Operation:
        """Find the `Caller` who sends ``head``; ``document`` is the object in its body, if there is one."""
        client = client_named(find_endpoint(head), head, document)
        caller = self.browser(head)
        if caller is not None:
            if client is not None:
                self.bind(client, caller)
            return caller
        address = yield AskAddress()
        place = self.at(address)
        if client is None:
            return place
        fingerprint = self.owner(client)
        _note(self._places, fingerprint, place.fingerprint)
        return Caller(fingerprint, Kind.SCRIPT)

    def at(self, address: bytes) -> Caller:
        """Whoever asks from ``address`` and says nothing else; of IPv6 the first 64 bits count."""
        return Caller(_digest(b"address", address_key(None, address) or b""), Kind.ADDRESS)

    def bind(self, client: str, caller: Caller) -> None:
        """``caller`` uses the client id ``client``, whatever that says itself."""
        self._bound.pop(client, None)
        if self.owner(client) != caller.fingerprint:
            _note(self._bound, client, caller.fingerprint)

    def owner(self, client: str, extra_data: object = None) -> str:
        """The fingerprint of the caller whose the prompts of the client id ``client`` are.

        ``extra_data`` is that of the prompt; a proxy that submits under a client id of its own says there
        for whom.
        """
        if isinstance(extra_data, dict):
            told = extra_data.get(CALLER_KEY)
            if isinstance(told, str) and _FINGERPRINT.fullmatch(told):
                return told
        bound = self._bound.get(client)
        if bound is not None:
            return bound
        fingerprint = fingerprint_in(client)
        # A page from the time when clients were placed has an id that carries its backend's.
        if fingerprint is not None and self._pool.find(fingerprint) is None:
            return fingerprint
        return _digest(b"client", client.encode("utf-8", "surrogatepass"))

    def owns(self, caller: Caller, owner: str) -> bool:
        """Whether ``caller`` may speak for the caller whose fingerprint is ``owner``.

        That is itself, and whoever says nothing speaks for the scripts that were last seen at its address: a
        script's ``POST /interrupt`` does not repeat its client id.
        """
        if caller.fingerprint == owner:
            return True
        return caller.kind is Kind.ADDRESS and self._places.get(owner) == caller.fingerprint

    def place_of(self, owner: str) -> str:
        """The fingerprint of the address at which the script ``owner`` was last seen; empty if unknown."""
        return self._places.get(owner, "")

    def mint(self, caller: Caller) -> str:
        """A client id for a WebSocket of ``caller`` that has none."""
        return mint_client_id(caller.fingerprint, self._random)

    def is_due(self, head: RequestHead) -> bool:
        """Whether the answer to ``head`` is to bring the cookie: it is a page or a WebSocket, without one."""
        return self.browser(head) is None and wants_cookie(head, self.sender(head.block))

    def greet(self) -> tuple[Caller, bytes]:
        """Somebody new: the caller, and the field line (with its CRLF) that makes the browser say so."""
        token = self._random(TOKEN_OCTETS).hex()
        return _browser_of(token), self._line(token)

    def cookie_for(self, backend: Backend) -> bytes:
        """The field line (with its CRLF) for somebody new whose page comes from ``backend``.

        The token is one that is nearest to it, so that the page's scripts come from the same backend as the
        page: frontends of other versions have other ones. In a very large pool it may be another.
        """
        self._look_at_the_pool()
        spare = self._spare.get(backend)
        if spare:
            return self._line(spare.popleft())
        token = ""
        for _ in range(1 + TRIED_SCORES // max(1, len(self._backends))):
            token = self._random(TOKEN_OCTETS).hex()
            ranks = self._rank(_browser_of(token).fingerprint)
            if not ranks or ranks[0] is backend:
                break
            kept = self._spare.setdefault(ranks[0], deque(maxlen=SPARE_TOKENS))
            kept.append(token)
        return self._line(token)

    def cookies(self, value: bytes) -> bytes:
        """A ``Cookie`` value without what is the proxy's own; empty if nothing is left."""
        return self._cookie.without(value)

    def affinity(self, fingerprint: str) -> Backend | None:
        """The usable backend nearest to the caller of that fingerprint; ``None`` if there is none.

        A backup server is one only where no other is.
        """
        self._look_at_the_pool()
        for backend in self._ranks(fingerprint):
            if backend.usable:
                return backend
        usable = [backend for backend in self._backends if backend.usable]
        return max(usable, key=partial(_score, fingerprint), default=None)

    def _look_at_the_pool(self) -> None:
        """Forget what was found for other backends; the pool has a new tuple for each change."""
        if self._backends is not self._pool.backends:
            self._backends = self._pool.backends
            self._ranks.cache_clear()
            self._spare.clear()

    def _rank(self, fingerprint: str) -> Sequence[Backend]:
        return nlargest(FIRST_RANKS, self._backends, key=partial(_score, fingerprint))

    def _read_browser(self, block: FieldBlock) -> Caller | None:
        sender: Sender = self.sender(block)
        token = next((word for word in sender.backends if _TOKEN.fullmatch(word)), None)
        return None if token is None else _browser_of(token)

    def _line(self, token: str) -> bytes:
        return b"%b\r\n" % self._cookie.line_saying(token)


def _browser_of(token: str) -> Caller:
    return Caller(_digest(b"token", token.encode()), Kind.BROWSER)


def _digest(kind: bytes, value: bytes) -> str:
    """Twelve hexadecimal digits; of a token they do not show it, of equal values of two kinds they differ."""
    return blake2b(value, digest_size=6, person=kind).hexdigest()


def _score(fingerprint: str, backend: Backend) -> tuple[bool, float]:
    address = backend.address
    drawn = blake2b(f"{fingerprint}{backend.fingerprint}".encode(), digest_size=7).digest()
    # Never 0, which has no logarithm.
    share = (int.from_bytes(drawn) + 0.5) / 2**56
    return not address.backup, log(share) / address.weight


def _note(table: OrderedDict[str, str], key: str, value: str) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > MAX_ENTRIES:
        table.popitem(last=False)
