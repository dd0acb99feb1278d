"""Lines that a stranger can cause."""

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, formatEvent, globalLogPublisher

from comfyproxy.proxy.sparinglog import INTERVAL, MOST_KEYS, SparingLog


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines():
    """What is logged."""
    found: list[str] = []

    def observe(event):
        if event.get("log_namespace") == "sparing":
            assert event["log_level"] is LogLevel.warn
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def sparing(clock):
    return SparingLog(clock, Logger(namespace="sparing"))


def test_the_same_is_said_once_in_an_interval_and_then_how_often_it_was_so(clock, sparing, lines):
    for _ in range(10):
        sparing.warn("a", "It is {so}.")
        clock.advance(1)
    assert lines == ["It is {so}."]
    clock.advance(INTERVAL)
    sparing.warn("a", "It is {so}.")
    assert lines[1:] == ["It is {so}. (9 more of the same since the last such line)"]
    clock.advance(INTERVAL)
    sparing.warn("a", "It is {so}.")
    assert lines[2:] == ["It is {so}."]


def test_each_key_has_its_lines(sparing, lines):
    for key in "abab":
        sparing.warn(key, f"It is {key}.")
    assert lines == ["It is a.", "It is b."]


def test_of_many_keys_only_some_are_named(clock, sparing, lines):
    for number in range(1000):
        sparing.warn(number, f"{number} is odd.")
    assert len(lines) == MOST_KEYS
    clock.advance(INTERVAL)
    sparing.warn("a", "It is a.")
    assert lines[MOST_KEYS:] == [f"It is a. ({1000 - MOST_KEYS} of others since the last such line)"]


def test_what_was_counted_of_a_key_that_is_forgotten_is_told_among_the_others(clock, sparing, lines):
    for number in range(MOST_KEYS):
        sparing.warn(number, f"{number} is odd.")
        sparing.warn(number, f"{number} is odd.")
    clock.advance(INTERVAL)
    sparing.warn("a", "It is a.")
    assert lines[MOST_KEYS:] == [f"It is a. ({MOST_KEYS} of others since the last such line)"]
