"""What the head of a request says of who sends it and what it is about.

A head is a value, and clients that poll send the same one again and again: what it says is read once and kept
with it (`ClientRouter`). What bodies say is read by `comfyproxy.comfyui.wire`.
"""

from dataclasses import dataclass

from comfyproxy.comfyui.cookie import BackendCookie
from comfyproxy.comfyui.files import file_named, is_upload
from comfyproxy.comfyui.origin import check_origin
from comfyproxy.comfyui.wire import OTHER, Endpoint, client_named, find_endpoint, prompts_named
from comfyproxy.core.http1 import RequestHead
from comfyproxy.core.routing import Refuse
from comfyproxy.core.websocket import is_websocket_request


@dataclass(frozen=True, slots=True)
class Claims:
    """What one head says.

    ``client`` and ``prompts`` are ids in the target, ``file`` the key of a file asked for by name,
    ``uploads`` says that it brings one. ``backends`` are the fingerprints in the proxy's cookie.
    ``wants_cookie`` says that a browser asks for a page or a WebSocket. ``nothing`` says that the head
    has none of all this, so that any backend will do.
    """

    refusal: Refuse | None
    endpoint: Endpoint
    client: str | None
    prompts: tuple[str, ...]
    file: str | None
    uploads: bool
    backends: tuple[str, ...]
    wants_cookie: bool
    nothing: bool


def read_claims(head: RequestHead, cookie: BackendCookie) -> Claims:
    """Read ``head``; ``cookie`` knows the proxy's own."""
    refusal = check_origin(head)
    endpoint = find_endpoint(head)
    client = client_named(endpoint, head, None)
    prompts = tuple(prompts_named(endpoint, head, None))
    file = file_named(head) if endpoint is OTHER else None
    uploads = is_upload(head)
    backends = tuple(cookie.fingerprints(head))
    wants_cookie = _asks_for_page(head) or is_websocket_request(head)
    said = (
        refusal or endpoint is not OTHER or client or prompts or file or uploads or backends or wants_cookie
    )
    return Claims(refusal, endpoint, client, prompts, file, uploads, backends, wants_cookie, not said)


def _asks_for_page(head: RequestHead) -> bool:
    """Whether a browser is to show what comes as a page."""
    return head.method == b"GET" and (
        head.path == b"/"
        or head.value(b"sec-fetch-dest") == b"document"
        or (head.value(b"accept") or b"").lower().startswith(b"text/html")
    )
