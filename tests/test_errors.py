"""The error tree: who is at fault, what status, and whether the request was sent."""

import pytest

from comfyproxy.errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    ComfyproxyError,
    ConfigError,
    ConnectFailed,
    NoBackendAvailable,
    ProtocolError,
    UnknownServer,
)


@pytest.mark.parametrize(
    ("line", "column", "text"),
    [
        (3, 14, "servers.txt:3:14: no such thing"),
        (3, None, "servers.txt:3: no such thing"),
        (None, None, "servers.txt: no such thing"),
    ],
)
def test_config_error_says_where(line: int | None, column: int | None, text: str) -> None:
    error = ConfigError("no such thing", "servers.txt", line, column)
    assert str(error) == text
    assert (error.message, error.source, error.line, error.column) == (
        "no such thing",
        "servers.txt",
        line,
        column,
    )


def test_what_a_config_error_quotes_does_nothing_to_a_terminal() -> None:
    error = ConfigError("a\x1b[2J\nb\u202e\udcffé is wrong", "servers\r.txt", 3)
    assert error.message == r"a\x1b[2J\nb\u202e\udcffé is wrong"
    assert str(error) == rf"servers\r.txt:3: {error.message}"


def test_protocol_error_carries_the_status_that_the_client_is_told() -> None:
    error = ProtocolError(414, "Too long.")
    assert (error.status, str(error)) == (414, "Too long.")


def test_no_backend_is_a_503_of_a_pool() -> None:
    error = NoBackendAvailable("gpus", "Full.")
    assert (error.status, error.pool, str(error), error.is_full) == (503, "gpus", "Full.", False)
    assert NoBackendAvailable("gpus", "Full.", is_full=True).is_full


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ([], "No pool has a server 'gpu9'; there are none."),
        (["http://a:1", "http://b:1"], "No pool has a server 'gpu9'; there are http://a:1, http://b:1."),
        (list("abcdefg"), "No pool has a server 'gpu9'; there are a, b, c, d, e and 2 more."),
    ],
)
def test_unknown_server_names_those_that_there_are(known: list[str], text: str) -> None:
    error = UnknownServer("gpu9", known)
    assert (str(error), error.name, error.known) == (text, "gpu9", known)


@pytest.mark.parametrize(
    ("error", "status", "sent"),
    [
        (ConnectFailed("refused"), 502, False),
        (BackendLost("gone", request_was_sent=True), 502, True),
        (BackendLost("gone", request_was_sent=False), 502, False),
        (BackendTimeout("silent", request_was_sent=True), 504, True),
        (BackendProtocolError("odd", request_was_sent=True), 502, True),
    ],
)
def test_backend_error_says_whether_the_request_was_sent(
    error: BackendError, status: int, sent: bool
) -> None:
    assert (error.status, error.request_was_sent) == (status, sent)
    assert isinstance(error, ComfyproxyError)
