"""ComfyUI's check of where a request comes from (server.py, create_origin_only_middleware).

It stops a foreign page from using the reader's own browser to queue workflows on a server on the same
machine.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def is_forbidden(fields: Mapping[str, str]) -> bool:
    """Whether ComfyUI would answer 403; ``fields`` are the request's, with lower-case names.

    That is so when the browser says that the request comes from another site, or when Host is a loopback
    address and Origin another host or port. ComfyUI asks the resolver whether a name is loopback; here only
    `localhost` is.
    """
    if fields.get("sec-fetch-site") == "cross-site":
        return True
    if "host" not in fields or "origin" not in fields:
        return False
    try:
        host, origin = urlsplit("//" + fields["host"].lower()), urlsplit(fields["origin"].lower())
        compare_ports = host.port is not None and origin.port is not None
    except ValueError:
        return False
    if not (host.hostname and origin.hostname and _is_loopback(host.hostname)):
        return False
    return host.netloc != origin.netloc if compare_ports else host.hostname != origin.hostname


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
