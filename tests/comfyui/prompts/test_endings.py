"""Prompts that ended with their servers are remembered in bounds."""

from comfyproxy.comfyui.merging.known import Known, Status
from comfyproxy.comfyui.prompts.endings import Endings


def known(name: str) -> Known:
    return Known(name, Status.FAILED, 0.0, 0)


def names(endings: Endings) -> list[str]:
    return [one.prompt_id for one in endings]


def test_the_oldest_give_way_to_the_newest() -> None:
    endings = Endings(size=2)
    for name in "abc":
        endings.add(known(name), "me", 1)
    assert names(endings) == ["b", "c"]


def test_large_ones_take_the_room_of_others() -> None:
    endings = Endings(octets=10)
    for name, size in (("a", 4), ("b", 4), ("c", 9), ("d", 99)):
        endings.add(known(name), "me", size)
    assert names(endings) == ["d"]
    endings.add(known("e"), "me", 1)
    assert names(endings) == ["e"]


def test_they_can_be_forgotten_by_whose_they_are() -> None:
    endings = Endings()
    endings.add(known("a"), "me", 1)
    endings.add(known("b"), "you", 1)
    endings.add(known("a"), "me", 1)
    assert names(endings) == ["b", "a"]
    assert endings.of("me".__eq__) == ["a"]
    assert endings.remove("a")
    assert not endings.remove("a")
    assert names(endings) == ["b"]
