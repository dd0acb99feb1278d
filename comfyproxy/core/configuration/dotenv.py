"""``.env`` files, read as Vite reads them (dotenv 16): one file serves the dev server and comfyproxy alike.

A line is ``KEY=VALUE``, with or without ``export`` before it. A value in single, double or back quotes is
taken as it stands and may go over several lines; in double quotes ``\\n`` and ``\\r`` mean line breaks. A
value without quotes ends at a ``#`` or with its line, and has no blanks around it. ``$NAME`` is not expanded.
Of several lines for one key the last counts.
"""

import re
from dataclasses import dataclass

from comfyproxy.core.configuration.diagnostics import ConfigWarning, Place

_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?([\w.-]+)(?:[ \t]*=[ \t]*|:[ \t]+)")
_QUOTED = re.compile(
    r"""(?P<quote>['"`])(?P<inside>(?:\\(?P=quote)|(?!(?P=quote)).)*)(?P=quote)""", re.DOTALL
)
_UNQUOTED = re.compile(r"[^#\n]*")
_END_OF_LINE = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Variable:
    """What a key is set to, and where its value begins."""

    text: str
    place: Place


def parse_dotenv(text: str, source: str) -> tuple[dict[str, Variable], list[ConfigWarning]]:
    """Read the content of a ``.env`` file; a line that says nothing is left out, with a warning."""
    text = re.sub(r"\r\n?", "\n", text.removeprefix(_BYTE_ORDER_MARK))
    variables: dict[str, Variable] = {}
    warnings: list[ConfigWarning] = []
    offset, line = 0, 1
    while offset < len(text):
        key = _KEY.match(text, offset)
        if key:
            place = Place(source, line, key.end() - offset + 1)
            variables[key[1]], end = _read_value(text, key.end(), place)
        else:
            end = text.find("\n", offset) + 1 or len(text)
            if not _END_OF_LINE.match(text, offset):
                warnings.append(ConfigWarning(Place(source, line, 1), "this is not KEY=VALUE; left out"))
        line += text.count("\n", offset, end)
        offset = end
    return variables, warnings


def _read_value(text: str, start: int, place: Place) -> tuple[Variable, int]:
    """The value that begins at ``start``, and where the next line does."""
    quoted = _QUOTED.match(text, start)
    if quoted and (ending := _END_OF_LINE.match(text, quoted.end())):
        value = quoted["inside"]
        if quoted["quote"] == '"':
            value = value.replace(r"\n", "\n").replace(r"\r", "\r")
        inside = place.at(1)
        return Variable(value, inside.pin() if "\n" in value else inside), ending.end()
    unquoted = _UNQUOTED.match(text, start)
    value = unquoted[0].rstrip() if unquoted else ""
    return Variable(value, place), text.find("\n", start) + 1 or len(text)
