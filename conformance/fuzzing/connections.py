"""Targets that read what says who a connection comes from, and where a WebSocket's frames end."""

from ipaddress import ip_address

from comfyproxy.core.http.frames import FrameTracker
from comfyproxy.core.http.proxyprotocol import V1, V2, ProxyHeader, ProxyHeaderReader, make_header
from comfyproxy.core.http.trust import Trust, read_node, told_by_forwarded, told_by_list
from comfyproxy.errors import ProtocolError
from conformance.fuzzing.messages import octet_by_octet

TRUST = Trust(["10.0.0.0/8", "2001:db8::/32"])
PEER = b"10.0.0.1"
OURS = b'for=192.0.2.7;host="a";proto=http'


def proxy_header(data: bytes) -> None:
    """A header of the PROXY protocol: read alike however it arrives, and when it is written again."""
    found = _read_header([data])
    assert found == _read_header(octet_by_octet(data))
    if found is None:
        return
    header, rest = found
    assert data.endswith(rest)
    if header is None or header.source is None or header.destination is None:
        return
    for version in (V1, V2):
        again = _read_header([make_header(version, header.source, header.destination), rest])
        assert again == (ProxyHeader(header.source, header.destination), rest)


def _read_header(pieces: list[bytes]) -> tuple[ProxyHeader | None, bytes] | None:
    """The header and what stands behind it; ``None`` where it is refused."""
    reader = ProxyHeaderReader()
    header = None
    rest = b""
    try:
        for piece in pieces:
            if header is None:
                header = reader.feed(piece)
            else:
                rest += piece
    except ProtocolError as error:
        assert error.status == 400
        return None
    return header, reader.rest + rest


def trust(data: bytes) -> None:
    """A chain of proxies: whatever a client puts before it, what a trusted proxy adds is read as it is."""
    for told, added in ((told_by_list, b"192.0.2.7"), (told_by_forwarded, OURS)):
        client = TRUST.client(PEER, told([data]))
        assert str(ip_address(client.decode())).encode() == client
        assert TRUST.client(PEER, told([data, added])) == b"192.0.2.7"
        assert TRUST.client(PEER, told([data + b"," + added])) == b"192.0.2.7"
    node = read_node(data)
    assert node is None or read_node(node) == node


def frames(data: bytes) -> None:
    """Frames of a WebSocket: their ends are found however they arrive."""
    if not data:
        return
    cut, data = data[0], data[1:]
    ends = _ends(data)
    whole, slow, second = FrameTracker(), FrameTracker(), FrameTracker()
    whole.feed(data)
    for at, octet in enumerate(octet_by_octet(data), 1):
        slow.feed(octet)
        assert slow.is_between_frames == (at in ends)
    assert whole.is_between_frames == slow.is_between_frames
    second.feed(data[:cut])
    rest = data[cut:]
    place = second.end_in(rest)
    expected = [end - cut for end in ends if end > cut]
    assert place == (expected[0] if expected and rest else -1)
    second.feed(rest[: max(place, 0)])
    assert place < 0 or second.is_between_frames


def _ends(data: bytes) -> list[int]:
    """Where frames end, by the book (RFC 6455 section 5.2)."""
    at, ends = 0, [0]
    while len(data) >= at + 2:
        length, size = data[at + 1] & 127, 2
        if length > 125:
            size += 2 if length == 126 else 8
            length = int.from_bytes(data[at + 2 : at + size]) if len(data) >= at + size else len(data)
        at += size + (4 if data[at + 1] & 128 else 0) + length
        if at > len(data):
            break
        ends.append(at)
    return ends
