"""One server URL with ranges in it, such as ``http://gpu[01-20]:8188``: what it says and what it stands for.

The grammar is written down in `comfyproxy.core.configuration.addresses`. Nothing is expanded before its size
is known.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from itertools import product
from math import prod

from comfyproxy.core.configuration.diagnostics import Place

DEFAULT_PORTS = {"http": 80, "https": 443, "tcp": None}
MAX_PORT = 65_535

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SLASHLESS_SCHEME = re.compile(r"(?:https?|tcp|wss?|file):(?![0-9\[])", re.IGNORECASE)
_BRACKETED_NUMBERS = r"\[[0-9]+-[0-9]+\]"
_RANGE = re.compile(r"\[([0-9]+)-([0-9]+)\]")
_TAIL = re.compile(r"[/?#].*")
_BRACKET = re.compile(r"\[[^\]]*\]?|\]")

# Two spellings that lack a mark and cannot mean anything else: no host is called localhost8188, and three
# numbers are not an address. The match ends where the mark belongs.
_FORGOTTEN_MARK = re.compile(
    rf"(?:[a-z0-9+.-]+://)?(?:(localhost)(?={_BRACKETED_NUMBERS}/?$)"
    rf"|[0-9]+\.[0-9]+\.[0-9]+(?={_BRACKETED_NUMBERS}(?:[:/]|$)))",
    re.IGNORECASE,
)

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
# Labels of RFC 1123, and the underscore that container names have. The last one is never all digits: such a
# name is taken for an address by resolvers (WHATWG URL, "ends in a number").
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = rf"(?:{_LABEL}\.)*(?=[0-9]*[a-z_-]){_LABEL}\.?"
_HOST = re.compile(rf"{_NAME}|{_IPV4}")
_MAX_HOST = 253
_PLAIN_URL = re.compile(rf"(https?)://({_NAME}|{_IPV4})(?::([0-9]{{1,5}}))?")

# No host or port has longer numbers, and int() refuses to read very long ones.
_MAX_DIGITS = 18


class _UrlError(Exception):
    """What is wrong with a URL, and how many characters into it."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What ``[first-last]`` stands for; ``width`` is the zero padding, 0 for none."""

    first: int
    last: int
    width: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def __iter__(self) -> Iterator[str]:
        return (f"{number:0{self.width}d}" for number in range(self.first, self.last + 1))


Target = tuple[str, str, int]
"""Scheme, host without brackets, and port."""

_Pieces = tuple[str | _Numbers, ...]


@dataclass(frozen=True, slots=True)
class UrlPattern:
    """A URL that has been read but not expanded; ``plain`` is its spelling without forgotten marks."""

    scheme: str
    host: _Pieces
    port: _Pieces
    plain: str
    _host_place: Place
    _port_place: Place

    @property
    def size(self) -> int:
        """How many servers it stands for."""
        return prod(piece.size for piece in (*self.host, *self.port) if isinstance(piece, _Numbers))

    def expand(self) -> Iterator[Target]:
        """Every server, the leftmost range slowest; raises ConfigError at one that cannot be."""
        ports = [_port_number(text, self._port_place) for text in _spellings(self.port)]
        for host in _spellings(self.host):
            _check_host(host, self._host_place)
            for port in ports:
                yield self.scheme, host, port


def read_plain_url(text: str) -> Target | None:
    """Scheme, host and port of a URL that needs no second look, which in long lists is every one of them.

    Anything else is None, and `parse_url` finds out whether it is a URL at all: this only saves time.
    """
    found = _PLAIN_URL.fullmatch(text)
    if not found or len(found[2]) > _MAX_HOST:
        return None
    scheme, host, port = found.groups()
    number = int(port) if port else DEFAULT_PORTS[scheme]
    return (scheme, host, number) if number and number <= MAX_PORT else None


def parse_url(text: str, place: Place) -> UrlPattern:
    """Read the URL that starts at ``place``; raises ConfigError at the character that is wrong."""
    plain, mark = _plain_spelling(text)

    def place_of(offset: int) -> Place:
        return place.at(offset - (offset > mark))

    try:
        scheme, host_start = _read_scheme(plain)
        authority = _read_authority(plain, host_start)
        host, length = _read_host(authority, host_start)
        colon = host_start + length
        port = _read_port(authority[length:], colon, DEFAULT_PORTS[scheme])
    except _UrlError as error:
        raise place_of(error.offset).error(str(error)) from None
    return UrlPattern(scheme, host, port, plain, place_of(host_start), place_of(colon + 1))


def _plain_spelling(text: str) -> tuple[str, int]:
    """The URL with the colon or dot that its writer forgot, and where that went in."""
    if "[" in text and (found := _FORGOTTEN_MARK.match(text)):
        at = found.end()
        return f"{text[:at]}{':' if found[1] else '.'}{text[at:]}", at
    return text, len(text)


def _read_scheme(text: str) -> tuple[str, int]:
    """The scheme, ``http`` where none is written, and where the rest begins."""
    found = _SCHEME.match(text)
    if not found:
        if slashless := _SLASHLESS_SCHEME.match(text):
            raise _UrlError(0, f"{slashless[0]} lacks its two slashes; write {slashless[0]}//")
        return "http", 0
    scheme = found[1].lower()
    if scheme in ("ws", "wss"):
        raise _UrlError(0, f"write http{scheme[2:]}:// for {scheme}://; WebSockets go over the same URL")
    if scheme == "file":
        raise _UrlError(0, "this is a file, not a server; name it with --file")
    if scheme not in DEFAULT_PORTS:
        raise _UrlError(0, f"the scheme {found[0]} is not known; write http://, https:// or tcp://")
    return scheme, found.end()


def _read_authority(text: str, start: int) -> str:
    """Host and port, after making sure that nothing else stands around them."""
    authority = text[start:].removesuffix("/")
    if tail := _TAIL.search(authority):
        raise _UrlError(start + tail.start(), f"a server URL ends after the port; remove {tail[0]}")
    if "@" in authority:
        raise _UrlError(start, "a server URL has no user and password; remove all up to the @")
    if not authority or (authority.startswith(":") and not authority.startswith("::")):
        raise _UrlError(start, "the host is missing; write for example http://server1:8188")
    return authority


def _read_host(authority: str, start: int) -> tuple[_Pieces, int]:
    """The pieces of the host, and how many characters it takes."""
    if authority.startswith("["):
        literal, bracket, _ = authority[1:].partition("]")
        if ":" in literal:
            if not bracket:
                raise _UrlError(start, f"the bracket of {authority} is not closed")
            return (_ipv6(literal, start),), len(literal) + 2
    host, _, port = authority.partition(":")
    if ":" in port:
        raise _UrlError(
            start, f"{authority} has several colons; an IPv6 address stands in brackets: [::1]:8188"
        )
    return _read_pieces(host.lower(), start), len(host)


def _ipv6(literal: str, start: int) -> str:
    try:
        address = IPv6Address(literal)
    except AddressValueError:
        raise _UrlError(start, f"{literal} is not an IPv6 address (no range can stand in one)") from None
    if address.scope_id:
        raise _UrlError(start, f"a server URL has no IPv6 zone; remove %{address.scope_id}")
    return address.compressed


def _read_port(text: str, start: int, default: int | None) -> _Pieces:
    """The pieces of the port; ``text`` is what follows the host, with its colon."""
    if not text:
        if default is None:
            raise _UrlError(start, "tcp:// has no default port; write for example tcp://db1:5432")
        return (str(default),)
    if not text.startswith(":"):
        raise _UrlError(start, f"a port stands after a colon; write :{text}")
    if text == ":":
        raise _UrlError(start, "the port is missing after the colon")
    return _read_pieces(text[1:], start + 1)


def _read_pieces(text: str, start: int) -> _Pieces:
    """Split at the ranges; what is left must hold no bracket."""
    if "[" not in text and "]" not in text:
        return (text,)
    pieces: list[str | _Numbers] = []
    end = 0
    for found in _RANGE.finditer(text):
        pieces += [_literal(text[end : found.start()], start + end), _numbers(found, start + found.start())]
        end = found.end()
    return (*pieces, _literal(text[end:], start + end))


def _literal(text: str, start: int) -> str:
    if stray := _BRACKET.search(text):
        raise _UrlError(
            start + stray.start(), f"{stray[0]} is not a range; write [start-end], for example [1-100]"
        )
    return text


def _numbers(found: re.Match[str], start: int) -> _Numbers:
    first, last = found.groups()
    if max(len(first), len(last)) > _MAX_DIGITS:
        raise _UrlError(start, f"the numbers of a range have at most {_MAX_DIGITS} digits")
    if int(last) < int(first):
        raise _UrlError(start, f"the range {found[0]} runs backwards; put the smaller number first")
    return _Numbers(int(first), int(last), len(first) if first.startswith("0") else 0)


def _spellings(pieces: _Pieces) -> Iterable[str]:
    """All texts that the pieces stand for."""
    if len(pieces) == 1:
        return (str(pieces[0]),)
    return map("".join, product(*((piece,) if isinstance(piece, str) else piece for piece in pieces)))


def _check_host(host: str, place: Place) -> None:
    if ":" in host or (_HOST.fullmatch(host) and len(host) <= _MAX_HOST):
        return
    if host.rstrip(".").rpartition(".")[2].isdecimal():
        raise place.error(
            f"{host} is not an IPv4 address: that is four numbers from 0 to 255 without leading zeros"
            " (a range of ports stands after a colon)"
        )
    raise place.error(f"{host} is not a host name: that is letters, digits and hyphens, with dots between")


def _port_number(text: str, place: Place) -> int:
    if re.fullmatch(r"[0-9]{1,18}", text) and 0 < int(text) <= MAX_PORT:
        return int(text)
    raise place.error(f"the port {text} is not a number from 1 to {MAX_PORT}")
