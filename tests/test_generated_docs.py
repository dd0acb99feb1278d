"""The generated reference is up to date, and all that can be configured is documented."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from comfyproxy.core.config import BALANCED_PREFIXES
from comfyproxy.core.configuration.option import Option
from comfyproxy.core.configuration.options import OPTIONS

ROOT = Path(__file__).parent.parent
OPTIONS_PAGE = ROOT / "docs" / "reference" / "options.md"
CONFIGURATION_PAGE = ROOT / "docs" / "reference" / "configuration.md"


@pytest.fixture
def generate() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "generate.py")))


def test_the_page_is_what_the_table_says(generate: SimpleNamespace) -> None:
    assert OPTIONS_PAGE.read_text() == generate.render(), "run python docs/generate.py"
    assert generate.main(["--check"]) == 0


def test_a_page_that_is_behind_is_told_and_written_anew(
    generate: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "options.md"
    page.write_text("old")
    generate.main.__globals__["PAGE"] = page
    assert generate.main(["--check"]) == 1
    assert "run python" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_and_its_variable_are_documented(option: Option) -> None:
    text = OPTIONS_PAGE.read_text()
    assert re.search(rf"^\| `--{option.name}[ `]", text, re.MULTILINE)
    assert f"`{option.environment_variable}`" in text


def test_every_variable_that_the_reference_names_is_one() -> None:
    known = {option.environment_variable for option in OPTIONS}
    pages = [ROOT / "tap.conf", *(ROOT / "docs" / "reference").glob("*.md")]
    texts = [page.read_text() for page in pages]
    named = {name for text in texts for name in re.findall(r"(?:COMFYPROXY|DEV_SERVER)_[A-Z_]+", text)}
    # These are for the tests with real servers.
    assert {name for name in named - known if not name.startswith("COMFYPROXY_REAL_")} == set()


def test_the_routes_that_go_to_the_pool_are_documented() -> None:
    text = CONFIGURATION_PAGE.read_text()
    assert [prefix for prefix in BALANCED_PREFIXES if f"`{prefix}`" not in text] == []
