"""The elements of a JSON array one by one, each with its place in the text.

`json.loads` forgets where things stood; a server list of thousands of lines needs to say which one is wrong.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from comfyproxy.core.configuration.diagnostics import Place
from comfyproxy.errors import ConfigError

_BLANKS = re.compile(r"[ \t\r\n]*")
_SEPARATOR = re.compile(r"[ \t\r\n]*([,\]])[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Element(NamedTuple):
    """One element of the array; the place of a string without escapes is its first character."""

    value: str | dict[str, object]
    place: Place


class _Positions:
    """Turns offsets into places. They are asked for in their order, so that nothing is counted twice."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._line = 1
        self._line_start = 0
        self._counted = 0

    def place(self, offset: int) -> Place:
        newlines = self._text.count("\n", self._counted, offset)
        if newlines:
            self._line += newlines
            self._line_start = self._text.rindex("\n", self._counted, offset) + 1
        self._counted = offset
        return Place(self._source, self._line, offset - self._line_start + 1)


def elements(text: str, source: str) -> Iterator[Element]:
    """Go through a JSON array (RFC 8259) whose elements are strings and objects; raises ConfigError."""
    positions = _Positions(text, source)
    offset = _skip_blanks(text, 0)
    if text[offset : offset + 1] != "[":
        raise _unexpected(text, offset, positions, "a JSON array of servers, which begins with [")
    offset = _skip_blanks(text, offset + 1)
    if text[offset : offset + 1] == "]":
        offset, more = _skip_blanks(text, offset + 1), False
    else:
        more = True
    while more:
        element, offset = _read_element(text, offset, positions)
        yield element
        separator = _SEPARATOR.match(text, offset)
        if not separator:
            expected = "a comma or the closing ] of the array"
            raise _unexpected(text, _skip_blanks(text, offset), positions, expected)
        offset, more = separator.end(), separator[1] == ","
    if offset < len(text):
        raise _unexpected(text, offset, positions, "nothing after the closing ]")


def _read_element(text: str, start: int, positions: _Positions) -> tuple[Element, int]:
    """The element that begins at ``start``, and where it ends."""
    opening = text[start : start + 1]
    if opening not in ('"', "{"):
        raise _unexpected(text, start, positions, 'a URL in double quotes or an object with "url"')
    place = positions.place(start + 1 if opening == '"' else start)
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        reason = f"this is not JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise positions.place(max(start, error.pos)).error(reason) from None
    except (ValueError, RecursionError):
        raise place.error("this element is nested too deeply, or has a number of too many digits") from None
    is_verbatim = opening == '"' and len(value) == end - start - 2
    return Element(value, place if is_verbatim else place.pin()), end


def _skip_blanks(text: str, offset: int) -> int:
    found = _BLANKS.match(text, offset)
    return found.end() if found else offset


def _unexpected(text: str, offset: int, positions: _Positions, expected: str) -> ConfigError:
    found = text[offset : offset + 1] or "the end of the file"
    return positions.place(offset).error(f"expected {expected}, found {found}")
