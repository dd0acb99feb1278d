"""Targets that read what clients of ComfyUI say: cookies, ids, prompts."""

import json

from comfyproxy.comfyui.claims import read_claims, read_sender
from comfyproxy.comfyui.wire import read_object, with_prompt_id
from comfyproxy.core.http.answers import make_answer, wants_json
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.errors import ProtocolError
from conformance.reading import read_request

COOKIE = BackendCookie()
PROMPT_ID = "0190b2a0-0000-7000-8000-000000000000"


def claims(data: bytes) -> None:
    """A request head: whatever it says of who sends it, reading that does not fail."""
    try:
        head = read_request([data]).head
    except ProtocolError:
        return
    if not isinstance(head, RequestHead):
        return
    read_claims(head)
    read_sender(head.block, COOKIE)
    made = make_answer(400, "No.", head=head, request_id="1", comfyui=True)
    assert b"\r\n\r\n" not in made.fields


def cookie(data: bytes) -> None:
    """A ``Cookie`` value: without ours, there is none of ours in it."""
    assert COOKIE.fingerprints(COOKIE.without(data)) == ()
    wants_json(data)


def prompt(data: bytes) -> None:
    """A body of ``POST /prompt``: with an id of ours it says the same, and has that id."""
    document = read_object(data)
    if document is None:
        return
    named = with_prompt_id(data, document, PROMPT_ID)
    if named is not None:
        # By their spelling: NaN, which Python's JSON has, does not equal itself.
        found = json.loads(named.decode("utf-8-sig"))
        assert _spelt(found) == _spelt(document | {"prompt_id": PROMPT_ID})


def _spelt(document: dict[str, object]) -> list[tuple[str, str]]:
    return sorted((key, repr(value)) for key, value in document.items())
