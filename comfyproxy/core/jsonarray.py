"""The elements of a JSON array one by one, each with its place in the text.

`json.loads` forgets where things stood; a server list of thousands of lines needs to say which one is wrong.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from comfyproxy.core.diagnostics import Place

_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the array; the place of a string without escapes is its first character."""

    value: str | dict[str, object]
    place: Place


class _Cursor:
    """A position in the text that only moves on, so that counting its lines costs nothing twice."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.offset = 0
        self._line = 1
        self._line_start = 0
        self.skip_blanks()

    @property
    def character(self) -> str:
        """The one to be read next, empty at the end."""
        return self.text[self.offset : self.offset + 1]

    @property
    def place(self) -> Place:
        return Place(self.source, self._line, self.offset - self._line_start + 1)

    def move_to(self, offset: int) -> None:
        newlines = self.text.count("\n", self.offset, offset)
        if newlines:
            self._line += newlines
            self._line_start = self.text.rindex("\n", self.offset, offset) + 1
        self.offset = offset

    def skip_blanks(self) -> None:
        found = _BLANKS.match(self.text, self.offset)
        assert found
        self.move_to(found.end())

    def read(self, expected: str, wish: str) -> str:
        """Take one of the characters that are ``expected`` here, and the blanks after it."""
        found = self.character
        if not found or found not in expected:
            raise self.place.error(f"expected {wish} here, found {_named(found)}")
        self.move_to(self.offset + 1)
        self.skip_blanks()
        return found


def elements(text: str, source: str) -> Iterator[Element]:
    """Go through a JSON array (RFC 8259) whose elements are strings and objects; raises ConfigError."""
    cursor = _Cursor(text, source)
    cursor.read("[", "a JSON array of servers, beginning with [")
    separator = cursor.read("]", "]") if cursor.character == "]" else ","
    while separator == ",":
        yield _read_element(cursor)
        separator = cursor.read(",]", "a comma or the closing ] of the array")
    if cursor.character:
        raise cursor.place.error(f"expected nothing after the closing ], found {_named(cursor.character)}")


def _read_element(cursor: _Cursor) -> Element:
    opening, place, start = cursor.character, cursor.place, cursor.offset
    if not opening or opening not in '"{':
        raise place.error(f'expected a URL in double quotes or an object with "url", found {_named(opening)}')
    try:
        value, end = _DECODER.raw_decode(cursor.text, start)
    except json.JSONDecodeError as error:
        cursor.move_to(max(start, error.pos))
        raise cursor.place.error(f"this is not JSON: {error.msg[:1].lower()}{error.msg[1:]}") from None
    except (ValueError, RecursionError):
        raise place.error("this element is nested too deeply, or has a number of too many digits") from None
    cursor.move_to(end)
    cursor.skip_blanks()
    return Element(value, _first_character(place, cursor.text[start + 1 : end - 1], value))


def _first_character(place: Place, written: str, value: object) -> Place:
    """Where the characters of ``value`` begin, given what is written between its quotes or braces."""
    return place.at(1) if written == value else place.pin()


def _named(character: str) -> str:
    return character or "the end of the file"
