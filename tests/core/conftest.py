"""The readers of whole messages, as fixtures."""

from collections.abc import Callable, Iterable

import pytest

from conformance import reading

ReadRequest = Callable[[Iterable[bytes]], reading.Message]
ReadResponse = Callable[[Iterable[bytes], bytes], reading.Message]


@pytest.fixture(scope="session")
def read_request() -> ReadRequest:
    """Reads one request from its pieces; `ProtocolError` as soon as it is found out to be none."""
    return reading.read_request


@pytest.fixture(scope="session")
def read_response() -> ReadResponse:
    """Reads one response to a method; `BackendProtocolError` or `ProtocolError` (its body) if it is none."""
    return reading.read_response
