"""Whole proxies on a network in memory, with the daemon's front."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from comfyproxy.testing import Rig


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    """Makes rigs; at the end nothing may be left of them: no lease, connection or timer."""
    rigs: list[Rig] = []

    def make(*backends: Any, **settings: Any) -> Rig:
        rigs.append(Rig(*backends, **settings))
        return rigs[-1]

    yield make
    assert [left for rig in rigs for left in rig.close()] == []


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A rig with one backend that answers every head."""
    return make_rig()
