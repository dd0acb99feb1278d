"""What the client supports and what the servers support: the exchange of ``feature_flags``."""

from collections.abc import Mapping
from math import inf

from comfyproxy.comfyui.fanin.upstreams import Answer, Upstream
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend

MAX_FLAGS = 64 * 1024
"""Octets of a client's ``feature_flags``; more are not flags."""

ANSWER_AFTER = 5.0
"""Seconds after which any server's answer is as good as that of the home, which has not come."""

_TEXTS = "supports_progress_text_metadata"


class Features:
    """One client's ``feature_flags`` and the one answer to them for each of its connections.

    ``flags`` is its message, the first that each server gets. The client's later connections may bring
    others.

    ``texts_name_prompts`` says which form of texts the client expects: with the prompt if both sides said
    that they know it (``send_progress_text`` in ``server.py``); ``None`` if nothing was said.
    """

    def __init__(self) -> None:
        self.flags: bytes | None = None
        self.texts_name_prompts: bool | None = None
        self._knows_texts = False
        self._asked_at = inf

    def begin(self) -> None:
        """A new connection of the client: it has said nothing yet."""
        self.texts_name_prompts = None
        self._asked_at = inf

    def ask(self, payload: bytes, document: Document, now: float) -> None:
        """The client has sent ``payload`` and is owed an answer."""
        data = document.get("data")
        self.flags = payload
        self._knows_texts = isinstance(data, dict) and data.get(_TEXTS) is True
        self._asked_at = now

    def answer(self, home: Backend | None, upstreams: Mapping[Backend, Upstream], now: float) -> bytes | None:
        """The answer, if one is owed and there is one: as the home says it."""
        if self._asked_at == inf:
            return None
        answers = {backend: one.features for backend, one in upstreams.items() if one.features is not None}
        found = answers.get(home) if home is not None else None
        if found is None and now - self._asked_at >= ANSWER_AFTER:
            found = next(iter(answers.values()), None)
        if found is None:
            return None
        self._asked_at = inf
        self.texts_name_prompts = self._knows_texts and found.names_prompts
        return found.payload


def read_answer(payload: bytes, data: Document) -> Answer:
    """A server's ``feature_flags``, whose ``data`` was read already."""
    return Answer(payload, data.get(_TEXTS) is True)
