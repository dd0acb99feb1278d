"""Proxies on loopback, and what their splices did."""

import pytest
import pytest_twisted

from tests.accelerators.loopback import Spliced, proxies

make_proxy = pytest_twisted.async_yield_fixture(proxies)


@pytest.fixture
def spliced(monkeypatch: pytest.MonkeyPatch) -> Spliced:
    """The splices of one test."""
    return Spliced(monkeypatch)
