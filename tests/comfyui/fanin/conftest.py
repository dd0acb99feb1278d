"""Sessions whose servers have greeted the client, and that client."""

import json

import pytest

from tests.comfyui.fanin.rig import PAGE_FLAGS, Script, SessionRig


@pytest.fixture
def rig() -> SessionRig:
    """A session whose servers have greeted the client."""
    rig = SessionRig()
    rig.open(0, 1, 2)
    return rig


@pytest.fixture
def script(rig: SessionRig) -> Script:
    """A client that does not say what it supports."""
    return rig.script()


@pytest.fixture
def page(rig: SessionRig) -> Script:
    """A client that does."""
    page = rig.script()
    rig.session.from_client(page, json.dumps(PAGE_FLAGS).encode(), False, rig.now)
    return page
