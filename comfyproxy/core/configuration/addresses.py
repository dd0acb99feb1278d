"""Server lists: from text, files of text and files of JSON to a tuple of addresses.

The grammar, in which ``blank`` is a space or a tab::

    list       = [ server ] *( ( "," / ";" ) [ server ] )        blanks around servers are skipped
    server     = url *( blank attribute )
    url        = [ scheme "://" ] host [ ":" port ] [ "/" ]      no scheme means http
    scheme     = "http" / "https" / "tcp"                        ports 80 and 443; tcp has none by default
    host       = 1*( name-character / range ) / "[" ipv6-address "]"
    port       = 1*( digit / range )
    range      = "[" 1*digit "-" 1*digit "]"
    attribute  = "weight=" number / "max_conns=" number / "name=" word / "backup=" ( "0" / "1" )

A range stands for each of its numbers, both ends included, padded with zeros if its start is: ``[01-20]``.
Several ranges in one URL multiply out, the leftmost slowest. Two spellings are understood though a mark is
missing, with a warning: ``localhost[8188-8190]`` is ``localhost:[8188-8190]``, and ``192.168.1[1-50]`` is
``192.168.1.[1-50]``.

A text file has one list a line; ``#`` at the start of a line or after a blank begins a comment. A JSON file
is an array whose elements are lists as strings, or servers as objects of the form
``{"url": ..., "weight": 2, "max_conns": 8, "name": "gpu-a", "backup": true}``.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyproxy.core.configuration.diagnostics import ConfigWarning, Place, did_you_mean
from comfyproxy.core.configuration.jsonarray import elements
from comfyproxy.core.configuration.urls import DEFAULT_PORTS, Target, parse_url, read_plain_url

MAX_SERVERS = 100_000
MAX_WEIGHT = 65_535

_SERVER = re.compile(r"([^\s,;]+)((?:\s+[^\s,;]+)*)")
_BETWEEN_SERVERS = re.compile(r"[\s,;]")
_WORD = re.compile(r"\S+")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_BYTE_ORDER_MARK = "\ufeff"

_Attributes = Mapping[str, Any]
_NO_ATTRIBUTES: _Attributes = {}


@dataclass(frozen=True, slots=True)
class Address:
    """Where one server is and how it is to be used.

    ``host`` has no brackets even for IPv6; ``max_conns`` 0 is no limit; a ``backup`` gets work only when no
    other server can; ``origin`` says where it was named (``servers.txt:3``, ``--url``) and does not count in
    comparisons. ``key`` is what makes it the same server after a reload: its URL.
    """

    scheme: str
    host: str
    port: int
    weight: int = 1
    max_conns: int = 0
    name: str = ""
    backup: bool = False
    origin: str = field(default="", compare=False)
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Reloads look at it several times for each of what may be 100,000 servers.
        object.__setattr__(self, "key", f"{self.scheme}://{self._bracketed}:{self.port}")

    @property
    def url(self) -> str:
        """``http://server1:8188``: always with its port, IPv6 in brackets."""
        return self.key

    @property
    def authority(self) -> str:
        """Host and port as a Host field has them (RFC 9110, 7.2): without the scheme's default port."""
        if self.port == DEFAULT_PORTS[self.scheme]:
            return self._bracketed
        return f"{self._bracketed}:{self.port}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        """The line of a text file that means this address."""
        attributes = (
            ("weight", self.weight, 1),
            ("max_conns", self.max_conns, 0),
            ("name", self.name, ""),
            ("backup", int(self.backup), 0),
        )
        return " ".join(
            (self.url, *(f"{key}={value}" for key, value, default in attributes if value != default))
        )


@dataclass(frozen=True, slots=True)
class Parsed:
    """The servers of a list in their order, each once, and what was odd about it."""

    addresses: tuple[Address, ...]
    warnings: tuple[ConfigWarning, ...] = ()


def parse_addresses(text: str, origin: str = "--url", limit: int = MAX_SERVERS) -> tuple[Address, ...]:
    """Expand a list such as ``http://gpu[1-8]:8188, http://spare:8188``; raises ConfigError.

    ``limit`` bounds how many servers there may be in all, and is checked before anything is expanded.
    """
    servers = ServerList(limit)
    servers.add_text(text, Place(origin, column=1))
    return servers.parsed().addresses


def parse_text_file(text: str, origin: str, limit: int = MAX_SERVERS) -> Parsed:
    """Read the content of a text file; ``origin`` is the name it has in errors. Raises ConfigError."""
    servers = ServerList(limit)
    servers.add_text_file(text, origin)
    return servers.parsed()


def parse_json_file(text: str, origin: str, limit: int = MAX_SERVERS) -> Parsed:
    """Read the content of a JSON file; ``origin`` is the name it has in errors. Raises ConfigError."""
    servers = ServerList(limit)
    servers.add_json_file(text, origin)
    return servers.parsed()


class ServerList:
    """The servers of one pool, collected from as many sources as it has.

    A server that is named again is left out with a warning: it would get a double share by mistake, and
    nobody could tell the two apart.
    """

    def __init__(self, limit: int = MAX_SERVERS, tcp: bool | None = None) -> None:
        """``tcp`` says that all servers are ``tcp://``, or that none is; any may be if it is None."""
        self._limit = limit
        self._tcp = tcp
        self._count = 0
        self._addresses: dict[Target, Address] = {}
        self._names: dict[str, str] = {}
        self._warnings: list[ConfigWarning] = []

    def parsed(self) -> Parsed:
        """What has been collected so far."""
        return Parsed(tuple(self._addresses.values()), tuple(self._warnings))

    def add_text(self, text: str, place: Place) -> None:
        """Add a list that begins at ``place``; raises ConfigError, as the other two do."""
        for item in _SERVER.finditer(text):
            url, words = item.groups()
            attributes = _attributes(words, place.at(item.start(2))) if words else _NO_ATTRIBUTES
            self._add_url(url, place.at(item.start()), attributes)

    def add_text_file(self, text: str, source: str) -> None:
        """Add a list a line; a byte order mark and CRLF do no harm."""
        for number, line in enumerate(text.removeprefix(_BYTE_ORDER_MARK).split("\n"), 1):
            self.add_text(_COMMENT.sub("", line) if "#" in line else line, Place(source, number, 1))

    def add_json_file(self, text: str, source: str) -> None:
        """Add the elements of a JSON array."""
        for element in elements(text.removeprefix(_BYTE_ORDER_MARK), source):
            if isinstance(element.value, dict):
                self._add_object(element.value, element.place)
            else:
                self.add_text(element.value, element.place)

    def _add_object(self, entry: dict[str, object], place: Place) -> None:
        """Add one server as JSON writes it when it has attributes."""
        url = entry.pop("url", None)
        if not isinstance(url, str):
            raise place.error('this object has no "url" that is a string')
        if _BETWEEN_SERVERS.search(url):
            raise place.error(f'"url" is one URL, not {url!r}; write several as strings')
        attributes: dict[str, Any] = {}
        for key, value in entry.items():
            text = value if isinstance(value, str) else json.dumps(value)
            _read_attribute(attributes, key, text, place)
        self._add_url(url, place, attributes)

    def _add_url(self, url: str, place: Place, attributes: _Attributes) -> None:
        targets: Iterable[Target]
        if target := read_plain_url(url):
            scheme, targets, size = target[0], (target,), 1
        else:
            pattern = parse_url(url, place)
            scheme, targets, size = pattern.scheme, pattern.expand(), pattern.size
            if pattern.plain != url:
                self._warn(place, f"{url} is read as {pattern.plain}; write it that way")
        if self._tcp is not None and (scheme == "tcp") != self._tcp:
            raise place.error(_told_of_scheme(url, scheme))
        self._count += size
        if self._count > self._limit:
            raise place.error(self._told_of_limit(url))
        if "name" in attributes:
            self._take_name(attributes["name"], size, url, place)
        self._add_targets(targets, attributes, place)

    def _add_targets(self, targets: Iterable[Target], attributes: _Attributes, place: Place) -> None:
        origin = place.origin
        doubles: dict[str, list[str]] = {}
        for target in targets:
            address = Address(*target, origin=origin, **attributes)
            first = self._addresses.setdefault(target, address)
            if first is not address:
                doubles.setdefault(first.origin, []).append(address.url)
        for first_origin, urls in doubles.items():
            self._warn(place, _told_of_doubles(urls, first_origin))

    def _warn(self, place: Place, message: str) -> None:
        self._warnings.append(ConfigWarning(place, message))

    def _told_of_limit(self, url: str) -> str:
        return (
            f"{url} makes {self._count:,} servers in all, more than the {self._limit:,} allowed;"
            " shorten the range or raise --max-servers"
        )

    def _take_name(self, name: str, size: int, url: str, place: Place) -> None:
        if size > 1:
            raise place.error(
                f"{url} stands for {size:,} servers, and a name is for one; leave out name={name}"
            )
        if name in self._names:
            raise place.error(
                f"the name {name} is taken, at {self._names[name]}; each server has a name of its own"
            )
        self._names[name] = place.origin


def _told_of_scheme(url: str, scheme: str) -> str:
    if scheme == "tcp":
        return f"{url} is for plain TCP; balance that with --tcp, or write http://"
    return f"{url} is an HTTP server; write tcp:// for plain TCP, or leave out --tcp"


def _told_of_doubles(urls: list[str], first_origin: str) -> str:
    rest = len(urls) - 1
    subject = f"{urls[0]} and {rest:,} more are" if rest else f"{urls[0]} is"
    return f"{subject} named before, at {first_origin}; left out here"


def _attributes(text: str, place: Place) -> _Attributes:
    """Read what follows a URL in a text."""
    attributes: dict[str, Any] = {}
    for word in _WORD.finditer(text):
        at = place.at(word.start())
        key, equals, value = word[0].partition("=")
        if not equals:
            raise at.error(
                f"{key} is not an attribute; put a comma, a semicolon or a new line between servers"
            )
        _read_attribute(attributes, key, value, at)
    return attributes


def _read_attribute(attributes: dict[str, Any], key: str, text: str, place: Place) -> None:
    if key in attributes:
        raise place.error(f"{key} is given twice for one server")
    if key not in _ATTRIBUTES:
        raise place.error(f"{key} is not an attribute of a server{did_you_mean(key, _ATTRIBUTES)}")
    try:
        attributes[key] = _ATTRIBUTES[key](text)
    except ValueError as error:
        raise place.error(f"{key}={text} does not work: {error}") from None


def _weight(text: str) -> int:
    weight = _whole_number(text)
    if not 1 <= weight <= MAX_WEIGHT:
        raise ValueError(f"a weight is from 1 to {MAX_WEIGHT:,}; remove the server to send it nothing")
    return weight


def _whole_number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError("this takes a whole number of up to 9 digits")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("0", "1", "false", "true"):
        raise ValueError("this takes 1 or 0, in JSON true or false")
    return text in ("1", "true")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("a name has up to 64 letters, digits, dots, - and _")
    return text


_ATTRIBUTES: dict[str, Callable[[str], int | str]] = {
    "weight": _weight,
    "max_conns": _whole_number,
    "name": _name,
    "backup": _flag,
}
