"""Ids that say where they belong.

A prompt id or client id that the proxy mints is a UUID of version 8, whose layout is the application's own
(RFC 9562 section 5.8): 74 random bits and, in the last twelve digits, the fingerprint of a backend. Whoever
has the same pool reads it alike: another process, another proxy, this one after a restart.

The random digits come first because pages and logs shorten ids to their beginning, where they should differ.
"""

import re
from collections.abc import Callable
from os import urandom

Random = Callable[[int], bytes]
"""Gives that many random octets."""

_MINTED = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-([0-9a-f]{12})"
    r"|[0-9a-f]{12}8[0-9a-f]{3}[89ab][0-9a-f]{3}([0-9a-f]{12})"
)


def mint_prompt_id(fingerprint: str, random: Random = urandom) -> str:
    """A prompt id in the canonical lower-case form, the only one that ComfyUI takes since 0.25."""
    octets = random(10)
    digits = octets.hex()
    variant = "89ab"[octets[9] & 3]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[12:15]}-{variant}{digits[15:18]}-{fingerprint}"


def mint_client_id(fingerprint: str, random: Random = urandom) -> str:
    """A client id in the form of those that ComfyUI mints itself: 32 digits without dashes."""
    return mint_prompt_id(fingerprint, random).replace("-", "")


def fingerprint_in(identifier: str) -> str | None:
    """The fingerprint that ``identifier`` carries if it has the form of a minted one, else ``None``.

    A UUID of version 8 made by somebody else has digits there too; no backend has that fingerprint.
    """
    match = _MINTED.fullmatch(identifier)
    return None if match is None else match[1] or match[2]
