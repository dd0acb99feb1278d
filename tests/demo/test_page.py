"""The page as a file: it needs nothing from elsewhere, works under any path, and everything has a name."""

import re
from importlib.resources import files

import pytest


@pytest.fixture(scope="module")
def page() -> str:
    return files("comfyproxy.demo").joinpath("page.html").read_text(encoding="utf-8")


def test_it_loads_nothing_from_elsewhere(page: str) -> None:
    addresses = re.findall(r"""https?://[^\s"'<>)]+""", page)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script[^>]+src=|<link[^>]+stylesheet|@import|url\(", page)


def test_its_addresses_are_relative_to_where_it_is_served(page: str) -> None:
    assert 'new URL(".", location.href)' in page
    assert not re.search(r"""(?:fetch|new URL|WebSocket)\(\s*["'`]/""", page)


def test_every_input_has_a_label_and_every_button_words(page: str) -> None:
    inputs = re.findall(r"<input [^>]*>", page)
    labelled = re.findall(r"<label>[^<]+<input [^>]*></label>", page)
    assert len(inputs) == len(labelled) > 0
    assert all(words.strip() for words in re.findall(r"<button[^>]*>([^<]*)</button>", page))
    assert '<html lang="en">' in page
    assert 'role="status"' in page
