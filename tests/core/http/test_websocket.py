"""What counts as a WebSocket handshake (RFC 6455 section 4)."""

import pytest

from comfyproxy.core.http.http1 import parse_request_head, parse_response_head
from comfyproxy.core.http.websocket import accepts, is_websocket_request

# The example of RFC 6455 section 1.3.
REQUEST = {
    "Host": "server.example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
RESPONSE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
}


def request(line: str = "GET /chat HTTP/1.1", **changes: str | None):  # type: ignore[no-untyped-def]
    return parse_request_head(_head(line, REQUEST, changes))


def response(line: str = "HTTP/1.1 101 Switching Protocols", **changes: str | None):  # type: ignore[no-untyped-def]
    return parse_response_head(_head(line, RESPONSE, changes), b"GET")


def _head(line: str, fields: dict[str, str], changes: dict[str, str | None]) -> bytes:
    fields = fields | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
    return f"{line}\r\n{''.join(lines)}\r\n".encode()


def test_the_example_of_the_rfc_is_one() -> None:
    assert is_websocket_request(request())
    assert accepts(request(), response())


def test_case_and_other_connection_options_do_not_matter() -> None:
    assert is_websocket_request(request(Upgrade="WebSocket", Connection="keep-alive, UPGRADE"))
    assert accepts(request(), response(Upgrade="WebSocket", Connection="upgrade"))


@pytest.mark.parametrize(
    "changes",
    [
        {"Connection": "keep-alive"},
        {"Upgrade": "h2c"},
        {"Upgrade": "websocket, h2c"},
        {"Upgrade": None},
        {"Sec_WebSocket_Key": None},
        {"Sec_WebSocket_Key": "c2hvcnQ="},
        {"Sec_WebSocket_Version": "8"},
        {"Sec_WebSocket_Version": None},
        {"Content_Length": "3"},
        {"line": "POST /chat HTTP/1.1"},
        {"line": "GET /chat HTTP/1.0"},
    ],
)
def test_anything_else_is_an_ordinary_request(changes: dict[str, str | None]) -> None:
    assert not is_websocket_request(request(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"Sec_WebSocket_Accept": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="},
        {"Sec_WebSocket_Accept": None},
        {"Upgrade": "h2c"},
        {"Connection": "close"},
    ],
)
def test_a_wrong_answer_accepts_nothing(changes: dict[str, str | None]) -> None:
    assert not accepts(request(), response(**changes))
