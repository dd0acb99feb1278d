"""The byte files of ``tests/vectors``, each with what is expected of it."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "tests" / "vectors"

REQUESTS = ("requests/valid", "requests/invalid")
RESPONSES = ("responses/valid", "responses/invalid")


@dataclass(frozen=True)
class Case:
    """One file: ``folder`` is of `REQUESTS` or `RESPONSES`, ``raw`` its octets, ``expected`` its table."""

    folder: str
    name: str
    raw: bytes
    expected: dict[str, Any]

    @property
    def is_valid(self) -> bool:
        """Whether it is a message that is to be passed on."""
        return self.folder.endswith("/valid")

    @property
    def is_request(self) -> bool:
        """Whether it is a request; else it is an answer."""
        return self.folder in REQUESTS

    @property
    def method(self) -> str:
        """The method of the request, or of the request that it answers."""
        if self.is_request:
            return "HEAD" if self.raw.startswith(b"HEAD") else "GET"
        return str(self.expected.get("request", "GET"))


def cases(*folders: str) -> Iterator[Case]:
    """The cases of ``folders``, in the order of their numbers."""
    for folder in folders:
        tables = tomllib.loads((VECTORS / folder / "expected.toml").read_text())
        for name, expected in sorted(tables.items()):
            yield Case(folder, name, (VECTORS / folder / f"{name}.http").read_bytes(), expected)


def rule_titles() -> dict[int, str]:
    """What each number under ``rule`` stands for, as the corpora's README says."""
    rows = (line.split("|") for line in (VECTORS / "README.md").read_text().splitlines())
    return {int(row[1]): row[2].strip() for row in rows if len(row) > 3 and row[1].strip().isdigit()}
