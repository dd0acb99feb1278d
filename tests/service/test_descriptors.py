"""How many descriptors there are, and how many clients they are enough for."""

import resource
import sys

import pytest

from comfyproxy.service.descriptors import possible_connections, raise_limit


class Limit:
    """What the system says, in place of it."""

    def __init__(self, monkeypatch, soft: int, hard: int) -> None:
        self.limit = (soft, hard)
        monkeypatch.setattr(resource, "getrlimit", lambda which: self.limit)
        monkeypatch.setattr(resource, "setrlimit", lambda which, limit: setattr(self, "limit", limit))


@pytest.mark.parametrize(
    ("soft", "possible"), [(1024, 480), (65_536, 32_736), (60, 1), (resource.RLIM_INFINITY, 0)]
)
def test_each_client_needs_two_and_some_are_left_for_all_else(monkeypatch, soft, possible):
    Limit(monkeypatch, soft, resource.RLIM_INFINITY)
    assert possible_connections() == possible


def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch):
    limit = Limit(monkeypatch, 1024, 524_288)
    raise_limit()
    raise_limit()
    assert limit.limit == (524_288, 524_288)


def test_where_select_may_be_in_use_it_stays(monkeypatch):
    limit = Limit(monkeypatch, 1024, 524_288)
    monkeypatch.setattr(sys, "platform", "darwin")
    raise_limit()
    assert limit.limit == (1024, 524_288)
