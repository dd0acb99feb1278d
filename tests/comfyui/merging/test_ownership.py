"""Whom to believe where several servers tell of one prompt."""

from itertools import pairwise

import pytest

from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.merging.ownership import Sighting, believed
from tests.comfyui.merging.servers import START, A, B, C

BEST_FIRST = [Status.COMPLETED, Status.IN_PROGRESS, Status.PENDING, Status.FAILED, Status.CANCELLED]


def test_each_prompt_has_its_server() -> None:
    seen = [Sighting("a", A, Status.PENDING), Sighting("b", B, Status.PENDING)]
    assert believed(seen, {}) == {"a": A, "b": B}


@pytest.mark.parametrize(("better", "worse"), list(pairwise(BEST_FIRST)))
def test_who_says_that_it_is_further_is_believed(better: Status, worse: Status) -> None:
    one, other = Sighting("a", A, worse), Sighting("a", B, better)
    assert believed([one, other], {}) == believed([other, one], {}) == {"a": B}


def test_the_first_of_two_that_say_the_same_is_believed() -> None:
    assert believed([Sighting("a", B, Status.PENDING), Sighting("a", A, Status.PENDING)], {}) == {"a": B}


def test_who_is_known_to_have_it_is_believed_before_all() -> None:
    seen = [Sighting("a", one, Status.COMPLETED) for one in (A, B)] + [Sighting("a", C, Status.CANCELLED)]
    known = {"a": Known("a", Status.PENDING, 0, START, C)}
    assert believed(seen, known) == {"a": C}


def test_who_is_known_to_have_it_and_does_not_say_so_is_not() -> None:
    known = {"a": Known("a", Status.PENDING, 0, START, C)}
    assert believed([Sighting("a", A, Status.PENDING)], known) == {"a": A}
