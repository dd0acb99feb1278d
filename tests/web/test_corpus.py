"""The invalid requests of tests/vectors, through the resource in both kinds of Site.

twisted.web reads them first. Most it refuses with a bare 400; some it mends before anybody sees them, and
`MENDED` has those. What then reaches a server is what was understood, written anew: one request, with the
framing of our own.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h11
import pytest
from twisted.web.server import Site

from comfyproxy.testing import Rig, ScriptedBackend
from comfyproxy.web.resource import RoundRobinResource
from comfyproxy.web.streaming import StreamingSite

VECTORS = Path(__file__).parent.parent / "vectors" / "requests" / "invalid"
MORE = b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"
EXPECTED = tomllib.loads((VECTORS / "expected.toml").read_text())

# twisted.web's own word for a coding or a version that we would know to be another's fault.
PLAIN_400 = {501, 505}

# Silence, until the Site's timeout: the head or the body never comes to its end.
UNFINISHED = {
    "026-tls-client-hello",
    "042-lf-everywhere",
    "043-lf-as-the-empty-line",
    "044-lf-before-the-empty-line",
    "049-cr-everywhere",
    "119-content-length-2-to-the-63",
    "120-content-length-2-to-the-64-plus-5",
    "121-content-length-endless",
    "181-chunk-size-2-to-the-64-plus-5",
    "205-last-chunk-lf-lf",
    "206-last-chunk-cr",
    "224-trailers-endless",
}

MENDED = {
    "082-folded-value": "a folded line is one line",
    "083-folded-value-with-tab": "a folded line is one line",
    "084-folded-transfer-encoding": "a folded line is one line",
    "086-line-of-blanks": "a folded line is one line",
    "182-chunk-size-16-digits": "a size may have 16 digits",
    "194-chunk-extension-blank-after": "extensions are dropped unread",
    "195-chunk-extension-empty": "extensions are dropped unread",
    "196-chunk-extension-without-value": "extensions are dropped unread",
    "197-chunk-extension-quote-left-open": "extensions are dropped unread",
    "202-chunk-extension-too-long": "extensions are dropped unread",
    **{name: "trailers are dropped unread" for name in EXPECTED if "205" <= name[:3] <= "224"},
    "272-asterisk-form-with-get": "twisted.web answers for * itself, with 405",
    "280-connect-asterisk-form": "twisted.web answers for * itself, with 405",
}

# Refused by Twisted 26.10; 24.11 makes the line end a blank.
MENDED_ONCE = {"041-lf-after-a-field", "045-cr-in-a-value", "048-cr-cr-lf"}


@pytest.fixture(params=[Site, StreamingSite], ids=["site", "streaming"])
def make_rig(request: pytest.FixtureRequest) -> Callable[[ScriptedBackend], Rig]:
    """Makes a rig whose front is the resource in a Site."""

    def front(network: Any, balancer: Any, **settings: Any) -> Any:
        resource = RoundRobinResource(balancer, reactor=network, **settings)
        return resource.proxy, request.param(resource, reactor=network)

    return lambda backend: Rig(backend, front=front)


def requests(backend: ScriptedBackend) -> list[tuple[bytes, bool]]:
    """The target of each request that a backend got, and whether it got all of it; h11 must take them all."""
    found = []
    for connection in backend.connections:
        data = connection.received
        while data:
            parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
            parser.receive_data(data)
            head = parser.next_event()
            assert isinstance(head, h11.Request)
            while isinstance(event := parser.next_event(), h11.Data):
                pass
            found.append((head.target, isinstance(event, h11.EndOfMessage)))
            data = parser.trailing_data[0] if found[-1][1] else b""
    return found


@pytest.mark.parametrize("arriving", ["whole", "octet by octet", "with more behind it"])
@pytest.mark.parametrize("name", EXPECTED)
def test_an_invalid_request_does_no_harm(
    make_rig: Callable[[ScriptedBackend], Rig], name: str, arriving: str
) -> None:
    raw = (VECTORS / f"{name}.http").read_bytes()
    backend = ScriptedBackend()
    rig = make_rig(backend)
    client = rig.client()
    client.send(raw + MORE * (arriving == "with more behind it"), piece=int(arriving == "octet by octet"))
    rig.network.run()
    rig.advance(80)
    passed = requests(backend)
    if name in MENDED or (name in MENDED_ONCE and not client.received):
        assert len(passed) <= 1
    else:
        status = EXPECTED[name]["status"]
        if name not in UNFINISHED:
            assert client.received[8:13] == b" %d " % (400 if status in PLAIN_400 else status)
        assert client.is_gone
        assert not any(complete for _, complete in passed)
        assert (b"/smuggled", True) not in passed
    assert rig.close() == []
