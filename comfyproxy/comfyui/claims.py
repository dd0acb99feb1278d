"""What the head of a request says of who sends it and what it is about.

A head is a value, and clients that poll send the same one again and again; a browser sends the same fields
with each of its targets. What they say is read once and kept with them (`ClientRouter`). What bodies say is
read by `comfyproxy.comfyui.wire`.
"""

from dataclasses import dataclass

from comfyproxy.comfyui.files import file_named, is_upload
from comfyproxy.comfyui.origin import check_origin
from comfyproxy.comfyui.wire import OTHER, Endpoint, client_named, find_endpoint, prompts_named
from comfyproxy.core.balancing.routing import Refuse
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.fields import FieldBlock
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.core.http.websocket import is_websocket_request


@dataclass(frozen=True, slots=True)
class Sender:
    """What the fields of a request say of who sends it, whatever it asks for.

    ``is_from_here`` says that no page of another site can have sent it, ``wants_page`` that a browser is to
    show what comes as a page. ``backends`` are the fingerprints in the proxy's cookie.
    """

    is_from_here: bool
    wants_page: bool
    backends: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claims:
    """What one head says, its sender apart.

    ``client`` and ``prompts`` are ids in the target, ``file`` the key of a file asked for by name,
    ``uploads`` says that it brings one.
    """

    refusal: Refuse | None
    endpoint: Endpoint
    client: str | None
    prompts: tuple[str, ...]
    file: str | None
    uploads: bool


def read_sender(block: FieldBlock, cookie: BackendCookie) -> Sender:
    """Read ``block``; ``cookie`` knows the proxy's own."""
    return Sender(
        is_from_here=block.value(b"origin") is None and block.value(b"sec-fetch-site") != b"cross-site",
        wants_page=block.value(b"sec-fetch-dest") == b"document"
        or (block.value(b"accept") or b"").lower().startswith(b"text/html"),
        backends=cookie.fingerprints(block.notable.get(b"cookie")),
    )


def read_claims(head: RequestHead) -> Claims:
    """Read ``head``."""
    endpoint = find_endpoint(head)
    return Claims(
        refusal=check_origin(head),
        endpoint=endpoint,
        client=client_named(endpoint, head, None),
        prompts=tuple(prompts_named(endpoint, head, None)),
        file=file_named(head) if endpoint is OTHER else None,
        uploads=is_upload(head),
    )


def wants_cookie(head: RequestHead, sender: Sender) -> bool:
    """Whether ``sender`` is a browser that asks for a page or a WebSocket: it will come again."""
    if head.method == b"GET" and (sender.wants_page or head.path == b"/"):
        return True
    return head.upgrade and is_websocket_request(head)
