"""No input makes a reader slow: what repeats itself takes about as long as it is.

Readers are mostly regular expressions, and one that goes back on itself takes the square of its input, or
worse. `conformance.fuzzing` has small inputs only.
"""

from collections.abc import Callable
from contextlib import suppress
from time import process_time
from typing import Any

import pytest

from comfyproxy.comfyui.wire import read_object
from comfyproxy.core.configuration.addresses import parse_json_file, parse_text_file
from comfyproxy.core.configuration.dotenv import parse_dotenv
from comfyproxy.core.http.answers import wants_json
from comfyproxy.core.http.chunked import ChunkedReader
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.headerrules import parse_rule
from comfyproxy.core.http.http1 import is_valid_host, parse_request_head, parse_response_head
from comfyproxy.core.http.proxyprotocol import ProxyHeaderReader
from comfyproxy.core.http.trust import Trust, told_by_forwarded, told_by_list
from comfyproxy.errors import ComfyproxyError

SIZE = 48 * 1024
"""Octets: nearly as many as a head may have."""

SECONDS = 0.5
"""Processor time for one input; each takes some milliseconds."""

TRUST = Trust(["10.0.0.0/8"])


def text(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda data: parse(data.decode("latin-1"))


READERS: dict[str, Callable[[bytes], Any]] = {
    "target": lambda data: parse_request_head(b"GET /" + data + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "host": lambda data: is_valid_host(data),
    "fields": lambda data: parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"),
    "connection": lambda data: parse_request_head(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + data + b"\r\n\r\n"
    ),
    "coding": lambda data: parse_request_head(
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + data + b"\r\n\r\n"
    ),
    "answer": lambda data: parse_response_head(b"HTTP/1.1 200 " + data + b"\r\n\r\n", b"GET"),
    "chunk extensions": lambda data: ChunkedReader(True).feed(b"5;" + data[:900] + b"\r\nhello\r\n"),
    "chunks": lambda data: ChunkedReader(True).feed(data),
    "trailers": lambda data: ChunkedReader(True).feed(b"0\r\n" + data[:8000] + b"\r\n\r\n"),
    "cookie": lambda data: BackendCookie().without(data),
    "cookie found": lambda data: BackendCookie().fingerprints(b"comfyproxy=a;" + data),
    "accept": wants_json,
    "PROXY header": lambda data: ProxyHeaderReader().feed(data),
    "X-Forwarded-For": lambda data: TRUST.client(b"10.0.0.1", told_by_list([data])),
    "Forwarded": lambda data: list(told_by_forwarded([data])),
    "JSON": read_object,
    "servers": text(lambda data: parse_text_file(data, "x", 500)),
    "servers in JSON": text(lambda data: parse_json_file(data, "x", 500)),
    ".env": text(lambda data: parse_dotenv(data, "x")),
    "header rule": text(lambda data: parse_rule(data, "request")),
}

REPEATED = [
    *(b"a", b" ", b"\t", b",", b";", b":", b'"', b"\\", b'\\"', b"[", b"]", b"{", b"%", b"=", b"#"),
    *(b"/", b".", b"0", b"\n", b"\r\n", b"a:\r\n", b"a: b\r\n", b", ", b";a", b";a=b", b';a="'),
    *(b';a="b"', b",a=b;", b"a.", b"[1-2]", b"1\r\na\r\n", b"for=1.2.3.4,", b'for="', b'for="a,'),
    *(b"10.0.0.1,", b"'", b'"""', b"a=", b"a='", b"export ", b"http://", b"http://a[1-2], ", b'"a",'),
    *(b"[[a]]\n", b"a = 1\n", b"a.b.c.", b"PROXY ", b"q=0.", b";q=1", b"comfyproxy=", b"comfyproxy=a;"),
    *(b"set a: ", b"{client}", b"\xff"),
]  # fmt: skip
ENDS = (b"", b"\0", b"!")


@pytest.mark.parametrize("reader", READERS)
def test_what_repeats_itself_is_read_or_refused_at_once(reader: str) -> None:
    slow = {}
    for part in REPEATED:
        for end in ENDS:
            data = part * (SIZE // len(part)) + end
            started = process_time()
            with suppress(ComfyproxyError, ValueError):
                READERS[reader](data)
            seconds = process_time() - started
            if seconds > SECONDS:
                slow[part + b"..." + end] = seconds
    assert slow == {}
