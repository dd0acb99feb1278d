"""The lines that the log gets."""

import pytest

from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.events import (
    AdminStateChanged,
    BackendCameUp,
    BackendEjected,
    BackendReturned,
    BackendWentDown,
    Event,
    PanicBegan,
    PanicEnded,
)
from comfyproxy.core.configuration.addresses import Address

GPU = Backend(Address("http", "gpu1", 8188))


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            BackendWentDown(GPU, "connection refused", 3),
            "http://gpu1:8188 is DOWN: connection refused (3 checks)",
        ),
        (
            BackendWentDown(GPU, "connection refused", 1),
            "http://gpu1:8188 is DOWN: connection refused (1 check)",
        ),
        (BackendCameUp(GPU, "it answered", 2), "http://gpu1:8188 is UP: it answered (2 checks)"),
        (
            BackendEjected(GPU, "no connection", 5, 10.0),
            "http://gpu1:8188 is left out for 10 s: no connection (5 requests in a row)",
        ),
        (BackendReturned(GPU), "http://gpu1:8188 is tried again"),
        (AdminStateChanged(GPU, AdminState.DRAIN), "http://gpu1:8188 is set to DRAIN"),
        (PanicBegan("default", 0, 3), "Pool default: 0 of 3 servers up, so all of them get requests"),
        (PanicEnded("default", 1, 3), "Pool default: 1 of 3 servers up, so only those get requests"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_event_is_a_sentence(event: Event, line: str) -> None:
    assert str(event) == line
