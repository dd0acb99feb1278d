"""See `tests.comfyui.prompts.rig`."""

from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.core.http.http1 import RequestHead
from tests.comfyui.prompts import rig as rigs
from tests.comfyui.prompts.rig import Rig


@pytest.fixture
def make_rig() -> Callable[..., Rig]:
    """See `Rig`."""
    return Rig


@pytest.fixture(name="make_head")
def _make_head() -> Callable[..., RequestHead]:
    """See `make_head`."""
    return rigs.make_head


@pytest.fixture
def rig() -> Rig:
    """A proxy before two servers, which it knows already."""
    rig = Rig()
    rig.turn(1)
    return rig


@pytest.fixture
def seconds() -> Callable[..., dict[str, Any]]:
    """See `sampled`."""
    return rigs.sampled
