"""Rules 1 to 7 and 18 to 20 by the corpus in tests/vectors, through a whole proxy.

Each message arrives whole, octet by octet, and with more behind it.
"""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from comfyproxy.testing import ScriptedBackend, Step

VECTORS = Path(__file__).parent.parent / "vectors"
MORE = b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"
NOT_PASSED = {
    "009-trace": "TRACE is not passed on",
    "044-content-length-largest": "its body does not end",
    "046-content-length-not-all-there": "its body does not end",
    "081-chunked-not-all-there": "its body does not end",
    "082-chunked-without-the-last-line-end": "its body does not end",
}


def corpus(folder: str) -> list[Any]:
    """The cases of one folder as parameters: the octets and what is expected of them."""
    tables = tomllib.loads((VECTORS / folder / "expected.toml").read_text())
    return [
        pytest.param((VECTORS / folder / f"{name}.http").read_bytes(), expected, id=name)
        for name, expected in tables.items()
        if name not in NOT_PASSED
    ]


def octets(text: str) -> bytes:
    return text.encode("latin-1")


@pytest.mark.parametrize("arriving", ["whole", "octet by octet", "with more behind it"])
@pytest.mark.parametrize(("raw", "expected"), corpus("requests/invalid"))
def test_an_invalid_request_is_refused_and_never_passed_on(make_rig, raw, expected, arriving):
    rig = make_rig(ScriptedBackend())
    client = rig.client()
    if arriving == "whole":
        client.send(raw)
    elif arriving == "octet by octet":
        client.send(raw, piece=1)
    else:
        client.send(raw + MORE)
    rig.network.run()
    answer = rig.answer(client, "HEAD" if raw.startswith(b"HEAD") else "GET")
    assert answer.status == expected["status"]
    assert answer.value(b"connection") == b"close"
    rig.advance(40)
    assert client.is_gone
    # A chunked body is passed on while it is right; what is wrong with it must not reach an end.
    for request in rig.requests():
        assert b"chunked" in raw
        assert b"smuggled" not in request.start
        assert not request.complete
    assert rig.leases == 0


@pytest.mark.parametrize("arriving", ["whole", "octet by octet", "with more behind it"])
@pytest.mark.parametrize(("raw", "expected"), corpus("requests/valid"))
def test_a_valid_request_is_passed_on_as_it_is_meant(make_rig, raw, expected, arriving):
    backend = ScriptedBackend()
    rig = make_rig(backend)
    client = rig.client()
    client.send(raw + MORE * (arriving == "with more behind it"), piece=int(arriving == "octet by octet"))
    rig.network.run()
    request = rig.request()
    assert request.start == octets(f"{expected['method']} {expected['target']}")
    assert request.body == octets(expected.get("payload", ""))
    # A request of HTTP/1.0 may have none; then it is the backend's own.
    assert request.value(b"host") == (octets(expected["host"]) or b"10.0.0.1:8188")
    for named in map(octets, expected.get("options", [])):
        assert named not in request.names
    backend.connections[0].send(b"HTTP/1.1 204 No Content\r\n\r\n")
    rig.network.run()
    assert client.received.startswith(b"HTTP/1.1 204 No Content\r\n")


@pytest.mark.parametrize(("raw", "expected"), corpus("responses/invalid"))
@pytest.mark.parametrize("piece", [0, 1])
def test_rule_18_a_malformed_answer_is_502_and_its_connection_closed(make_rig, raw, expected, piece):
    method = octets(expected.get("request", "GET"))
    backend = ScriptedBackend([Step(send=raw, piece=piece)])
    rig = make_rig(backend)
    client = rig.ask(method + b" / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    if b"chunked" in raw and client.received.startswith(b"HTTP/1.1 200"):
        # What breaks in the body breaks the answer off: its head had been passed on.
        (answer,) = rig.answers(client, method.decode())
        assert not answer.complete
        assert client.is_gone
    else:
        answer = rig.answer(client, method.decode())
        assert answer.status == 502
    assert backend.open_connections == []
