"""Places in sources, and the ends of messages about unknown words."""

import pytest

from comfyproxy.core.configuration.diagnostics import ConfigWarning, Place, did_you_mean


@pytest.mark.parametrize(
    ("place", "text", "origin"),
    [
        (Place("servers.txt", 3, 7), "servers.txt:3:7", "servers.txt:3"),
        (Place("tap.conf", 12), "tap.conf:12", "tap.conf:12"),
        (Place("--url", column=21), "--url:21", "--url"),
        (Place("--listen"), "--listen", "--listen"),
    ],
)
def test_a_place_is_written_as_far_as_it_is_known(place: Place, text: str, origin: str) -> None:
    assert (str(place), place.origin) == (text, origin)


@pytest.mark.parametrize(
    ("place", "moved"),
    [
        (Place("a", 1, 5), Place("a", 1, 8)),
        (Place("a", 1, 5, pinned=True), Place("a", 1, 5, pinned=True)),
        (Place("a", 1), Place("a", 1)),
    ],
)
def test_an_offset_moves_a_column_that_is_known_and_not_pinned(place: Place, moved: Place) -> None:
    assert place.at(3) == moved
    assert place.at(0) == place


def test_a_pinned_place_stays_where_it_is() -> None:
    assert Place("a", 1, 5).pin().at(3).column == 5


def test_an_error_carries_its_place_and_shows_it() -> None:
    error = Place("servers.txt", 3, 7).error("this is wrong")
    assert (error.source, error.line, error.column, error.message) == ("servers.txt", 3, 7, "this is wrong")
    assert str(error) == "servers.txt:3:7: this is wrong"


def test_a_warning_shows_its_place() -> None:
    assert str(ConfigWarning(Place("servers.txt", 3), "this is odd")) == "servers.txt:3: this is odd"


def test_the_nearest_known_word_is_suggested() -> None:
    assert did_you_mean("wieght", ["name", "weight", "max_conns"]) == "; did you mean weight?"


def test_all_known_words_are_told_when_none_is_near() -> None:
    assert did_you_mean("colour", ["weight", "name"]) == "; known are name, weight"
