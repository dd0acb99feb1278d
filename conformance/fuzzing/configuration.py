"""Targets that read what operators write: server lists, ``tap.conf``, ``.env`` files."""

import json
import tomllib
from math import isclose

from comfyproxy.core.configuration.addresses import Address, parse_addresses, parse_json_file, parse_text_file
from comfyproxy.core.configuration.diagnostics import Place
from comfyproxy.core.configuration.dotenv import parse_dotenv
from comfyproxy.core.configuration.loading import load
from comfyproxy.core.configuration.options import OPTIONS
from comfyproxy.core.configuration.tapconf import parse_tap_conf
from comfyproxy.core.configuration.tomllines import statement_lines
from comfyproxy.core.configuration.urls import parse_url
from comfyproxy.core.http.headerrules import HeaderRules, parse_rule
from comfyproxy.errors import ConfigError

SOURCE = "fuzz"
LIMIT = 500
"""Servers of one list, so that a range takes no time."""

MARK = "\ufeff"


class OneFile:
    """A disk on which every path is a directory, and a file with one server."""

    def read(self, path: str, named_by: Place | None) -> str:
        """One server."""
        return "http://a:1\n"

    def is_directory(self, path: str) -> bool:
        """It is."""
        return True

    def shown(self, path: str) -> str:
        """As it is."""
        return path


def servers(data: bytes) -> None:
    """A text file of servers."""
    text = data.decode(errors="replace")
    try:
        parsed = parse_text_file(text, SOURCE, LIMIT)
    except ConfigError as error:
        check_place(error, text)
    else:
        check_servers(parsed.addresses)


def server_list(data: bytes) -> None:
    """A list in one line, as ``--url`` takes it."""
    text = data.decode(errors="replace")
    try:
        addresses = parse_addresses(text, SOURCE, LIMIT)
    except ConfigError as error:
        assert error.source == SOURCE
    else:
        check_servers(addresses)


def server_range(data: bytes) -> None:
    """One URL with ranges: as many servers as it says before it is expanded."""
    text = data.decode(errors="replace")
    try:
        pattern = parse_url(text, Place(SOURCE, 1, 1))
        if pattern.size <= LIMIT:
            assert len(list(pattern.expand())) == pattern.size
    except ConfigError as error:
        assert error.source == SOURCE
        assert error.column is None or 1 <= error.column <= len(text) + 1


def server_json(data: bytes) -> None:
    """A JSON file of servers: what is accepted is JSON, and a list."""
    text = data.decode(errors="replace")
    try:
        parsed = parse_json_file(text, SOURCE, LIMIT)
    except ConfigError as error:
        check_place(error, text)
    else:
        assert isinstance(json.loads(text.removeprefix(MARK)), list)
        check_servers(parsed.addresses)


def tap_conf(data: bytes) -> None:
    """A ``tap.conf``: what is accepted is TOML, and every statement of it stands where we say."""
    text = data.decode(errors="replace")
    try:
        conf = parse_tap_conf(text, SOURCE, "/etc")
        load([], conf, OneFile())
    except ConfigError as error:
        if error.source == SOURCE:
            check_place(error, text)
        return
    text = text.removeprefix(MARK)
    document = tomllib.loads(text)
    lines = statement_lines(text)
    assert {path[0] for path in lines} == document.keys()
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def dot_env(data: bytes) -> None:
    """A ``.env`` file: no text is an error."""
    text = data.decode(errors="replace")
    variables, warnings = parse_dotenv(text, SOURCE)
    count = text.count("\n") + text.count("\r") + 1
    for place in [*(one.place for one in variables.values()), *(one.place for one in warnings)]:
        assert place.line is not None
        assert 1 <= place.line <= count


def header_rule(data: bytes) -> None:
    """A rule for header fields: what is accepted is read back, and adds no line of its own."""
    text = data.decode(errors="replace")
    try:
        rule = parse_rule(text, "request")
    except ValueError:
        return
    assert parse_rule(str(rule), "request") == rule
    HeaderRules([rule])
    assert not any(mark in str(rule) for mark in "\r\n\0")


def option_value(data: bytes) -> None:
    """A value of any option, chosen by the first octet: what is accepted is shown, and read again."""
    if not data:
        return
    kind = OPTIONS[data[0] % len(OPTIONS)].kind
    try:
        value = kind.parse(data[1:].decode(errors="replace"))
    except ValueError:
        return
    again = kind.parse(kind.show(value))
    assert isclose(again, value, rel_tol=1e-12) if isinstance(value, float) else again == value


def check_place(error: ConfigError, text: str) -> None:
    """An error of a file names a line of it, and a column in or just behind that line."""
    lines = text.split("\n")
    assert error.source == SOURCE
    assert error.line is not None, str(error)
    assert 1 <= error.line <= len(lines), str(error)
    assert error.column is None or 1 <= error.column <= len(lines[error.line - 1]) + 1, str(error)


def check_servers(addresses: tuple[Address, ...]) -> None:
    """No more than allowed, each once; what is written of them is read as the same, without a warning."""
    assert len(addresses) <= LIMIT
    assert len({address.key for address in addresses}) == len(addresses)
    again = parse_text_file("\n".join(map(str, addresses)), SOURCE, LIMIT)
    assert again.addresses == addresses
    assert again.warnings == ()
