"""The field lines of a head, read once (RFC 9112 section 5).

A client's requests on one connection, and a server's answers within one second, mostly have the very same
lines, and many clients send the same ones too. So what reading them yields is a value of its own, shared
by all heads that have these lines: reading again costs one look-up. Only small blocks are kept, and only
so many.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from comfyproxy.core.http.grammar import TEXT, TOKEN
from comfyproxy.errors import ProtocolError

Fields = list[tuple[bytes, bytes]]
"""Lower-cased name and whole line (without its CRLF), in the order received."""

KEPT_BLOCKS = 1024
KEPT_SIZE = 2048
"""Octets of the largest block that is kept: with `KEPT_BLOCKS`, some ten megabytes at the very most."""

KEPT_FORMS = 8
"""In how many forms a block that passes is kept: one for each kind of client and pool that it comes by."""

_PLAIN_LINES = re.compile(rb"(?:[0-9A-Za-z-]++:" + TEXT + rb"*+\r\n)*+")
_LINES = re.compile(rb"(?:" + TOKEN + rb":" + TEXT + rb"*+\r\n)*+")

_NOTABLE = frozenset(
    b"host content-length transfer-encoding connection upgrade expect te max-forwards date via cookie".split()
)
_SINGLE = frozenset((b"host", b"content-length"))
_ORDINARY = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"date"))

_UNREMOVABLE = frozenset(
    b"host content-length content-type content-encoding content-range content-location transfer-encoding "
    b"trailer location cookie set-cookie authorization www-authenticate cache-control expect max-forwards "
    b"date via origin forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip x-request-id "
    b"sec-websocket-key sec-websocket-version sec-websocket-protocol sec-websocket-extensions "
    b"sec-websocket-accept".split()
)
"""Fields that ``Connection`` may not name away: they are meant for all recipients (RFC 9110 section 7.6.1),
and removing them would change what the message means or who is believed to have sent it."""


class FieldBlock:
    """The lines of one head, and what they say.

    ``fields`` holds every line; ``notable`` the values (blanks trimmed, repeats joined by a comma, of
    ``Cookie`` by a semicolon) of the fields that framing, routing and forwarding look at. ``close``,
    ``keep_alive``, ``upgrade`` and ``options`` are what ``Connection`` says; ``options`` the fields it names.
    ``has_odd_names`` says that a name has other marks than letters, digits and hyphens: no standard field
    does, and CGI cannot tell them apart. ``is_ordinary`` says that no field asks for special treatment.
    """

    __slots__ = (
        "_first",
        "_passing",
        "close",
        "fields",
        "has_odd_names",
        "is_ordinary",
        "keep_alive",
        "notable",
        "options",
        "upgrade",
    )

    def __init__(self, raw: bytes, has_odd_names: bool) -> None:
        self.has_odd_names = has_odd_names
        self.fields: Fields = []
        self.notable: dict[bytes, bytes] = {}
        self._passing: dict[Any, bytes] = {}
        for line in raw.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            name = name.lower()
            self.fields.append((name, line))
            if name in _NOTABLE:
                self._note(name, value.strip(b" \t"))
        self._first = dict(reversed(self.fields))
        self.is_ordinary = self.notable.keys() <= _ORDINARY
        self._read_connection(self.notable.get(b"connection", b""))

    def _note(self, name: bytes, value: bytes) -> None:
        before = self.notable.get(name)
        if before is not None:
            if name in _SINGLE:
                raise ProtocolError(400, f"The field {name.decode().title()} is there more than once.")
            value = before + (b"; " if name == b"cookie" else b",") + value
        self.notable[name] = value

    def _read_connection(self, value: bytes) -> None:
        options = {option.strip(b" \t") for option in value.lower().split(b",")}
        self.close = b"close" in options
        self.keep_alive = b"keep-alive" in options
        self.upgrade = b"upgrade" in options
        self.options = frozenset(options - _UNREMOVABLE - {b"close", b"keep-alive", b"upgrade", b"te", b""})

    def value(self, name: bytes) -> bytes | None:
        """The first field of that lower-case ``name``, trimmed, or ``None``."""
        line = self._first.get(name)
        return None if line is None else line[len(name) + 1 :].strip(b" \t")

    def passing(self, drop: frozenset[bytes], cookies: Callable[[bytes], bytes] | None = None) -> bytes:
        """The lines, each with its CRLF, without those that ``drop`` or ``Connection`` names.

        ``cookies`` says what is left of the value of a ``Cookie``; a line of which nothing is left goes too.
        """
        key = drop if cookies is None else (drop, cookies)
        passing = self._passing.get(key)
        if passing is None:
            drops = drop | self.options
            lines = [line for name, line in self.fields if name not in drops]
            if cookies is not None and b"cookie" in self.notable:
                lines = [kept for line in lines if (kept := _cut(line, cookies))]
            lines.append(b"")
            if len(self._passing) >= KEPT_FORMS:
                self._passing.clear()
            self._passing[key] = passing = b"\r\n".join(lines)
        return passing


def _cut(line: bytes, cookies: Callable[[bytes], bytes]) -> bytes:
    if line[:7].lower() != b"cookie:":
        return line
    value = line[7:].strip(b" \t")
    kept = cookies(value)
    if kept == value:
        return line
    return b"%b %b" % (line[:7], kept) if kept else b""


def read_fields(raw: bytes) -> FieldBlock | None:
    """Read the lines of a head, each ending in CRLF; ``None`` where they are malformed.

    Raises `ProtocolError` 400 where a field that may be there once is there more often.
    """
    return _read_kept(raw) if len(raw) <= KEPT_SIZE else _read(raw)


def _read(raw: bytes) -> FieldBlock | None:
    is_plain = _PLAIN_LINES.fullmatch(raw) is not None
    if not is_plain and _LINES.fullmatch(raw) is None:
        return None
    return FieldBlock(raw, has_odd_names=not is_plain)


_read_kept = lru_cache(KEPT_BLOCKS)(_read)
