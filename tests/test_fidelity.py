"""docs/reference/one-comfyui.md: each row of its tables names tests, and these exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "one-comfyui.md"

ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
HEADERS = [row for row in ROWS if row.endswith("| Shown by |")]


def test_the_page_has_its_three_tables() -> None:
    assert len(HEADERS) == 3
    assert len(ROWS) > 50


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """The names of all tests."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found.update(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    return found


@pytest.mark.parametrize("row", [row for row in ROWS if row not in HEADERS], ids=lambda row: row[2:40])
def test_each_row_names_tests_that_exist(row: str, tests: set[str]) -> None:
    named = set(re.findall(r"`(test_\w+)`", row.split("|")[-2]))
    assert named
    assert named <= tests, f"no such tests: {named - tests}"
