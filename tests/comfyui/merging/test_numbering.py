"""Numbers of what has ended, for pages that list by them."""

import pytest

from comfyproxy.comfyui.merging import numbering
from comfyproxy.comfyui.merging.numbering import LATEST, EndNumbers


def test_the_number_is_the_time_of_the_end() -> None:
    numbers = EndNumbers()
    assert [numbers.number("a", 7.5, "x"), numbers.number("b", 5.0, "y")] == [7, 5]


def test_what_ended_since_its_server_was_listed_is_greater_than_all_that_was() -> None:
    numbers = EndNumbers()
    numbers.number("a", 70.0, "x")
    numbers.listed("x", 70.0)
    numbers.listed("y", 0.0)
    assert numbers.number("b", 50.0, "y") == 71
    assert numbers.number("c", 60.0, "y") == 72
    assert numbers.number("b", 50.0, "y") == 71, "it stays what it was"
    numbers.listed("y", 60.0)
    assert numbers.number("old", 40.0, "y") == 40, "an older one that a longer list has"
    assert numbers.number("d", 900.0, "y") == 900


def test_a_clock_that_is_far_out_does_not_use_up_the_numbers() -> None:
    numbers = EndNumbers()
    numbers.listed("x", 0.0)
    assert numbers.number("a", 1e300, "x") == 1
    assert numbers.number("b", LATEST - 1, "x") == LATEST - 1


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "MAX_KEPT", 1)
    numbers = EndNumbers()
    numbers.number("a", 70.0, "x")
    numbers.listed("y", 0.0)
    assert [numbers.number("b", 50.0, "y"), numbers.number("c", 60.0, "y")] == [71, 72]
    assert numbers.number("b", 50.0, "y") == 73
