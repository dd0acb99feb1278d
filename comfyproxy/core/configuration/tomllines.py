"""On which line each key of a TOML document is set, which `tomllib` does not tell."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
"""Keys from the top of the document, and indices in arrays of tables: ``("routes", 0, "prefix")``."""

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[{]|[\]}]|\n',
    re.DOTALL,
)


def statement_lines(text: str) -> dict[Path, int]:
    """The lines, from 1, of all keys and tables of a document that `tomllib` reads without an error."""
    lines: dict[Path, int] = {}
    arrays: dict[Path, int] = {}
    table: Path = ()
    for line, statement in _statements(text):
        content = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _table_path(content, arrays)
            for size in range(1, len(table) + 1):
                lines.setdefault(table[:size], line)
        else:
            for path in _paths(content):
                lines.setdefault(table + path, line)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header or key with its value, which may go over several lines, and the line it begins on."""
    start, line, depth = 0, 1, 0
    for token in _TOKEN.finditer(f"{text}\n"):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        elif token[0] == "\n" and depth == 0:
            statement = text[start : token.end()]
            if statement.strip():
                yield line, statement
            line += statement.count("\n")
            start = token.end()


def _table_path(header: dict[str, Any], arrays: dict[Path, int]) -> Path:
    """Where the keys below a header belong; ``arrays`` has the last index of each array of tables so far."""
    path: Path = ()
    content: Any = header
    while content:
        if isinstance(content, list):
            arrays[path] = arrays.get(path, -1) + 1
            path += (arrays[path],)
            content = content[0]
        else:
            key, content = next(iter(content.items()))
            path += (key,)
            if isinstance(content, dict) and path in arrays:
                path += (arrays[path],)
    return path


def _paths(content: Any) -> Iterator[Path]:
    """The path of every key in a value, those of tables included."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield (key,)
            yield from ((key, *path) for path in _paths(value))
