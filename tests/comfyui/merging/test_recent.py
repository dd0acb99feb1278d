"""Answers that are given again for a moment."""

from comfyproxy.comfyui.merging.recent import Recent


def test_an_answer_is_given_again_for_a_moment() -> None:
    recent = Recent(lifetime=0.5)
    recent.put("a", b"x", recent.version, 10.0)
    assert recent.get("a", 10.4) == b"x"
    assert recent.get("b", 10.4) is None
    assert recent.get("a", 10.5) is None


def test_after_a_change_nothing_is_given_again() -> None:
    recent = Recent()
    recent.put("a", b"x", recent.version, 10.0)
    recent.changed()
    assert recent.get("a", 10.0) is None


def test_an_answer_from_before_a_change_is_not_kept() -> None:
    recent = Recent()
    version = recent.version
    recent.changed()
    recent.put("a", b"x", version, 10.0)
    assert recent.get("a", 10.0) is None


def test_what_is_kept_is_bounded_and_room_comes_back() -> None:
    recent = Recent(lifetime=0.5, max_octets=5)
    recent.put("a", b"xxx", recent.version, 10.0)
    recent.put("b", b"xxx", recent.version, 10.1)
    assert recent.get("b", 10.2) is None
    assert recent.get("b", 10.6) is None
    recent.put("b", b"xxxxx", recent.version, 10.6)
    assert recent.get("b", 10.7) == b"xxxxx"
    recent.changed()
    recent.put("c", b"xxxxx", recent.version, 10.8)
    assert recent.get("c", 10.8) == b"xxxxx"


def test_of_two_that_asked_at_once_the_first_answer_is_kept() -> None:
    recent = Recent(max_octets=5)
    for answer in (b"x", b"y"):
        recent.put("a", answer, recent.version, 10.0)
    assert recent.get("a", 10.0) == b"x"


def test_an_answer_that_took_long_is_not_given_for_longer() -> None:
    recent = Recent(lifetime=0.5)
    recent.put("quick", b"x", recent.version, 10.3)
    recent.put("slow", b"y", recent.version, 10.0)
    assert recent.get("slow", 10.4) == b"y"
    assert recent.get("slow", 10.6) is None
    assert recent.get("quick", 10.6) == b"x"
