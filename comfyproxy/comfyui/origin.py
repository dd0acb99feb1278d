"""ComfyUI's check on requests that pages of other sites make (``server.py``, ``origin_only_middleware``).

A browser lets any page send a POST or open a WebSocket to a server on its user's own machine, and ComfyUI
runs whatever it is sent. So it refuses, with 403, what the browser marks as coming from another site and,
if it is addressed by a loopback name, what has an ``Origin`` other than its ``Host``. Behind a proxy the
``Host`` is no longer the one that the browser used: the check is made here, and `ORIGIN_FIELDS` are kept
from the backends, which would go by them and refuse what was let through.

Two things differ from ComfyUI's own check. Opening a page by a link, or by the redirect after signing on,
is let through: it only shows the page (Comfy-Org/ComfyUI#16203). And ``Host`` is not looked up, since
nothing here does I/O: of names only ``localhost`` and those below it are known to lead to the machine
itself.
"""

import re
from ipaddress import IPv6Address, ip_address

from comfyproxy.core.balancing.routing import Refuse
from comfyproxy.core.http.http1 import RequestHead

ORIGIN_FIELDS = frozenset((b"origin", b"sec-fetch-site"))

_AUTHORITY = re.compile(rb"(\[[^\]]*\]|[^:/?#@]*)(?::([0-9]*))?")
_REFUSAL = Refuse(
    403, "A page of another site may not send requests to this ComfyUI: open ComfyUI itself in the browser."
)


def check_origin(head: RequestHead) -> Refuse | None:
    """Refuse a request that a page of another site makes; ``None`` lets it pass."""
    if head.value(b"sec-fetch-site") == b"cross-site" and not _opens_a_page(head):
        return _REFUSAL
    origin = head.value(b"origin")
    if origin is None or _may_ask(origin.lower(), head.host.lower()):
        return None
    return _REFUSAL


def _opens_a_page(head: RequestHead) -> bool:
    """Whether a person follows a link (W3C Fetch Metadata): to a page, not an image, a frame or a script."""
    return (
        head.method in (b"GET", b"HEAD")
        and head.value(b"sec-fetch-mode") == b"navigate"
        and head.value(b"sec-fetch-dest") == b"document"
    )


def _may_ask(origin: bytes, host: bytes) -> bool:
    """Whether ``Origin`` and ``Host`` agree, as far as ComfyUI compares them.

    It does so on loopback only. A port that one of them leaves out agrees with any, as some reverse proxies
    cut it off, and an ``Origin`` without a host (``null``) is taken for none.
    """
    match = _AUTHORITY.fullmatch(host)
    if match is None or not _is_loopback(match[1]):
        return True
    authority = origin.partition(b"//")[2].partition(b"/")[0]
    if not authority:
        return True
    other = _AUTHORITY.fullmatch(authority)
    if other is None or other[1] != match[1]:
        return False
    return not other[2] or not match[2] or other[2] == match[2]


def _is_loopback(host: bytes) -> bool:
    """Whether a name (RFC 6761 section 6.3) or an address means the machine itself.

    The unspecified address does: systems connect ``0.0.0.0`` to themselves.
    """
    name = host.decode("latin-1").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name.strip("[]"))
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified
