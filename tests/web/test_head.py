"""What twisted.web read, written down as a head again."""

from types import SimpleNamespace

import pytest
from twisted.web.http_headers import Headers

from comfyproxy.core.config import Limits
from comfyproxy.core.http.chunked import CHUNKED
from comfyproxy.core.http.http1 import RequestHead
from comfyproxy.errors import ProtocolError
from comfyproxy.web.head import read_head


def read(
    *fields: tuple[bytes, bytes],
    method: bytes = b"POST",
    uri: bytes = b"/",
    version: bytes = b"HTTP/1.1",
    body: int | None = 0,
    limits: Limits | None = None,
    host: bool = True,
) -> RequestHead:
    """The head of a request that has these fields, in twisted.web's own container."""
    headers = Headers()
    if host:
        headers.addRawHeader(b"host", b"proxy.example")
    for name, value in fields:
        headers.addRawHeader(name, value)
    request = SimpleNamespace(method=method, uri=uri, clientproto=version, requestHeaders=headers)
    return read_head(request, limits or Limits(), body)


def lines(head: RequestHead) -> list[bytes]:
    return [line for _, line in head.fields]


def refusal(*fields: tuple[bytes, bytes], **options: object) -> tuple[int, str]:
    with pytest.raises(ProtocolError) as caught:
        read(*fields, **options)  # type: ignore[arg-type]
    return caught.value.status, str(caught.value)


def test_the_target_is_the_octets_received() -> None:
    assert read(uri=b"/a%2Fb/../%c3;p=1?x=%20&y").target == b"/a%2Fb/../%c3;p=1?x=%20&y"


def test_every_repeat_of_a_field_is_there() -> None:
    head = read((b"X-A", b"1"), (b"X-B", b"2"), (b"X-A", b"3"))
    assert lines(head) == [b"Host: proxy.example", b"X-A: 1", b"X-A: 3", b"X-B: 2"]


def test_an_odd_method_passes() -> None:
    assert read(method=b"PROPFIND").method == b"PROPFIND"


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked"])
def test_a_chunked_body_that_is_at_hand_has_a_length(coding: bytes) -> None:
    head = read((b"Transfer-Encoding", coding), body=7)
    assert head.body == 7
    assert lines(head)[1:] == [b"Content-Length: 7"]


def test_an_empty_chunked_body_says_so() -> None:
    assert lines(read((b"Transfer-Encoding", b"chunked")))[1:] == [b"Content-Length: 0"]


def test_a_length_of_zero_stays() -> None:
    assert lines(read((b"Content-Length", b"0")))[1:] == [b"Content-Length: 0"]


def test_a_request_without_a_body_gets_no_length() -> None:
    assert lines(read(method=b"GET")) == [b"Host: proxy.example"]


def test_a_body_to_come_keeps_its_framing() -> None:
    assert read((b"Content-Length", b"5"), body=None).body == 5
    assert read((b"Transfer-Encoding", b"chunked"), body=None).body == CHUNKED


@pytest.mark.parametrize("coding", [b"identity", b"gzip", b"gzip, chunked", b"chunked, chunked", b"xchunked"])
@pytest.mark.parametrize("body", [3, None])
def test_other_codings_are_refused(coding: bytes, body: int | None) -> None:
    assert refusal((b"Transfer-Encoding", coding), body=body)[0] in (400, 501)


def test_codings_in_two_fields_are_one_list() -> None:
    fields = (b"Transfer-Encoding", b"identity"), (b"Transfer-Encoding", b"chunked")
    assert refusal(*fields, body=3)[0] in (400, 501)


def test_a_coding_beside_a_length_is_refused() -> None:
    assert refusal((b"Transfer-Encoding", b"identity"), (b"Content-Length", b"3"), body=3)[0] == 400


def test_a_coding_in_http_1_0_is_refused() -> None:
    assert refusal((b"Transfer-Encoding", b"chunked"), version=b"HTTP/1.0", body=3)[0] == 400


def test_an_expectation_that_twisted_web_has_met_is_left_out() -> None:
    assert b"expect" not in read((b"Expect", b"100-Continue"), (b"Content-Length", b"3"), body=3).notable


def test_an_expectation_of_a_body_to_come_stays() -> None:
    assert read((b"Expect", b"100-continue"), (b"Content-Length", b"3"), body=None).expects_continue


def test_other_expectations_stay() -> None:
    head = read((b"Expect", b"100-continue"), (b"Expect", b"miracles"), (b"Content-Length", b"3"), body=3)
    assert head.notable[b"expect"] == b"100-continue,miracles"


class TestHTTP2:
    def test_it_becomes_http_1_1(self) -> None:
        assert read(version=b"HTTP/2").minor == 1

    def test_a_body_at_hand_has_a_length(self) -> None:
        assert lines(read(version=b"HTTP/2", body=4))[1:] == [b"Content-Length: 4"]

    def test_cookies_are_one_field(self) -> None:
        head = read((b"Cookie", b"a=1"), (b"Cookie", b"b=2"), version=b"HTTP/2")
        assert head.values(b"cookie") == [b"a=1; b=2"]

    def test_an_authority_beside_the_same_host_is_one_host(self) -> None:
        assert read((b"Host", b"proxy.example"), version=b"HTTP/2").host == b"proxy.example"

    def test_another_host_than_the_authority_is_refused(self) -> None:
        assert refusal((b"Host", b"evil.example"), version=b"HTTP/2")[0] == 400

    def test_fields_of_a_connection_do_not_pass(self) -> None:
        head = read((b"Connection", b"upgrade"), (b"Upgrade", b"websocket"), version=b"HTTP/2")
        assert lines(head) == [b"Host: proxy.example"]


@pytest.mark.parametrize("value", [b"a\r\nX-Evil: 1", b"a\nb", b"a\rb", b"a\x00b"])
def test_no_value_becomes_another_line(value: bytes) -> None:
    headers = Headers({b"host": [b"proxy.example"], b"x-a": [b"1"]})
    headers._rawHeaders[b"X-A"].append(value)  # As twisted.web's HTTP/2 does with a repeat.
    request = SimpleNamespace(method=b"GET", uri=b"/", clientproto=b"HTTP/2", requestHeaders=headers)
    with pytest.raises(ProtocolError) as caught:
        read_head(request, Limits(), 0)
    assert caught.value.status == 400


@pytest.mark.parametrize("uri", [b"/a b", b"/\xff", b"/a\r\nX: 1", b""])
def test_no_target_breaks_the_request_line(uri: bytes) -> None:
    assert refusal(uri=uri)[0] == 400


def test_a_request_without_a_host_is_refused() -> None:
    assert refusal(host=False) == (400, "The request has no Host field.")


@pytest.mark.parametrize(
    ("limits", "status"), [(Limits(line=20), 414), (Limits(fields=1), 431), (Limits(head=30), 431)]
)
def test_the_limits_hold(limits: Limits, status: int) -> None:
    assert refusal((b"X-A", b"0123456789"), uri=b"/0123456789", limits=limits)[0] == status
