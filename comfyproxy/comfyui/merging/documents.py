"""Reading what servers say, and writing what clients are told, as JSON that every client can read.

Python's ``json``, which ComfyUI writes with, also writes ``NaN`` and ``Infinity``. Browsers refuse the whole
text for one of them, so in an answer for everybody they become ``null``.
"""

import json
import math
import zlib
from collections.abc import Iterable
from typing import Any, TypeGuard
from urllib.parse import parse_qsl

from comfyproxy.core.balancing.operations import MAX_REPLY, Reply

_MAX = 2.0**63


class BadQuery(ValueError):
    """A query that is answered with 400 and this sentence."""


def read(reply: Reply) -> Any:
    """The JSON in an answer of 200; ``None`` for any other answer, for none, and for what is no JSON."""
    if reply.status != 200:
        return None
    try:
        return json.loads(read_body(reply), parse_constant=_nothing)
    except (ValueError, RecursionError):
        return None


def read_body(reply: Reply) -> bytes:
    """The body of an answer without its content coding.

    Raises ValueError if it is in one that nobody asked for, is broken, or is too long.
    """
    coding = reply.head.value(b"content-encoding") if reply.head is not None else None
    if coding is None:
        return reply.body
    if coding not in (b"gzip", b"deflate"):
        raise ValueError("an unknown content coding")
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        body = inflate.decompress(reply.body, MAX_REPLY)
    except zlib.error as error:
        raise ValueError("a broken content coding") from error
    if not inflate.eof:
        raise ValueError("cut off, or too long")
    return body


def write(value: Any) -> bytes | None:
    """``value`` as JSON in ASCII; ``None`` if it is nested too deeply to be written."""
    try:
        try:
            text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        except ValueError:
            text = json.dumps(_finite(value), separators=(",", ":"))
    except RecursionError:
        return None
    return text.encode()


def write_list(values: Iterable[Any]) -> bytes:
    """A list of those of ``values`` that can be written: one that cannot does not cost the others."""
    return b"[%b]" % b",".join(text for value in values if (text := write(value)) is not None)


def write_object(members: Iterable[tuple[str, Any]]) -> bytes:
    """An object of those members that can be written."""
    return b"{%b}" % b",".join(
        b"%b:%b" % (json.dumps(name).encode(), text)
        for name, value in members
        if (text := write(value)) is not None
    )


def read_query(query: bytes) -> dict[str, str]:
    """The parameters of a query; of several with one name the first counts, as in aiohttp."""
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        parameters.setdefault(name, value)
    return parameters


def integer(parameters: dict[str, str], name: str) -> int | None:
    """The parameter ``name``; ``None`` if there is none.

    Raises BadQuery, with ComfyUI's own words, if it is no integer.
    """
    try:
        return int(parameters[name]) if name in parameters else None
    except ValueError:
        raise BadQuery(f"{name} must be an integer") from None


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number to reckon with: no bool, and not beyond all measure (that overflows)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MAX <= value <= _MAX


def _nothing(_name: str) -> None:
    """What stands for ``NaN`` and the infinities."""


def _finite(value: Any) -> Any:
    """``value`` with ``None`` for numbers that JSON does not have (``1e999`` is read as one)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return value
