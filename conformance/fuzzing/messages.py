"""Targets that read HTTP messages: requests, answers, the chunked coding."""

from comfyproxy.core.http.chunked import ChunkedReader
from comfyproxy.errors import ProtocolError
from conformance.oracles import check_request, check_response
from conformance.reading import request_outcome, response_outcome

METHODS = (b"GET", b"HEAD", b"POST")
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def octet_by_octet(data: bytes) -> list[bytes]:
    """``data`` as the slowest peer sends it."""
    return [data[at : at + 1] for at in range(len(data))]


def request(data: bytes) -> None:
    """A request: read alike however it arrives, and by h11 and llhttp if it is accepted."""
    outcome = request_outcome([data])
    assert outcome == request_outcome(octet_by_octet(data))
    if not outcome.refused:
        check_request(data)


def answer(data: bytes) -> None:
    """An answer; the first octet chooses the method that it answers."""
    method = METHODS[data[0] % len(METHODS)] if data else b"GET"
    raw = data[1:]
    outcome = response_outcome([raw], method)
    assert outcome == response_outcome(octet_by_octet(raw), method)
    if not outcome.refused:
        check_response(raw, method)


def chunked(data: bytes) -> None:
    """A chunked body: what passes on is read as the same body, by us and by others."""
    plain = _read_chunks([data], framed=False)
    framed = _read_chunks([data], framed=True)
    assert plain == _read_chunks(octet_by_octet(data), framed=False)
    assert framed == _read_chunks(octet_by_octet(data), framed=True)
    if plain is None or framed is None:
        assert plain == framed
        return
    payload, complete, rest = plain
    assert framed[1:] == (complete, rest)
    assert _read_chunks([framed[0]], framed=False) == (payload, complete, b"")
    assert _read_chunks([framed[0]], framed=True) == (framed[0], complete, b"")
    assert check_request(CHUNKED_HEAD + data)


def _read_chunks(pieces: list[bytes], framed: bool) -> tuple[bytes, bool, bytes] | None:
    """What passes, whether it is complete, and what stands behind it; ``None`` if it is refused."""
    reader = ChunkedReader(framed)
    passed = rest = b""
    try:
        for piece in pieces:
            if reader.complete:
                rest += piece
            else:
                passed += reader.feed(piece)
    except ProtocolError as error:
        assert error.status == 400
        return None
    return passed, reader.complete, reader.rest + rest
