"""The PROXY protocol, versions 1 and 2: who the client is, before the first octet of a connection.

Specified by HAProxy's ``doc/proxy-protocol.txt``. A header is read strictly and within bounds, because it
decides who is believed to be asking: what is not one ends the connection. Of the additional fields (TLV) of
version 2 the checksum is checked, and ``PP2_TYPE_SSL`` says whether the client spoke TLS; others are skipped.
"""

import re
from functools import cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from comfyproxy.errors import ProtocolError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""What a header of version 2 begins with."""

MAX_LINE = 107
"""Octets of a header of version 1, its CRLF included (section 2.1)."""

MAX_HEADER = 16 * 1024
"""Octets of a header of version 2; room for a client's certificate."""

V1, V2 = 1, 2

_START = b"PROXY "
_ADDRESS, _PORT = rb"([0-9A-Fa-f:.]+)", rb"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(rb"PROXY TCP([46]) " + b" ".join((_ADDRESS, _ADDRESS, _PORT, _PORT)) + rb"\r\n")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_SIZES = {0x0: 0, 0x1: 12, 0x2: 36, 0x3: 216}
"""Octets of the two addresses, by family: unspecified, IPv4, IPv6, UNIX."""
_TLV_CRC32C = 0x03
_TLV_SSL = 0x20
_OVER_TLS = 0x01
_CASTAGNOLI = 0x82F63B78

_Address = IPv4Address | IPv6Address


class End(NamedTuple):
    """One end of a connection."""

    host: str
    port: int


class ProxyHeader(NamedTuple):
    """What a header says.

    Without ``source`` and ``destination`` the connection's own ends count: it is the proxy's own (a health
    check), or its client has no address that TCP knows. ``secure`` says that the client spoke TLS.
    """

    source: End | None = None
    destination: End | None = None
    secure: bool = False


class ProxyHeaderReader:
    """Reads the header of one connection; `feed` it what arrives until it returns one.

    ``rest`` holds what came behind the header.
    """

    __slots__ = ("_buffer", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self.rest = b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """The header, or ``None`` while some of it is still to come. Raises `ProtocolError` 400 where no
        continuation could make it one."""
        data = self._buffer = self._buffer + data
        if data.startswith(_START[: len(data)]):
            end = _line_end(data)
            header = _read_line(data[:end]) if end else None
        elif data.startswith(SIGNATURE[: len(data)]):
            end = _block_end(data)
            header = _read_block(data[:end]) if end else None
        else:
            raise _malformed("it begins otherwise")
        self.rest = data[end:] if end else b""
        return header


def _malformed(why: str) -> ProtocolError:
    return ProtocolError(400, f"The PROXY protocol's header is malformed: {why}.")


def _line_end(data: bytes) -> int:
    """Where a header of version 1 ends; 0 if that is still to come."""
    end = data.find(b"\n", 0, MAX_LINE) + 1
    if data[end - 2 : end] == b"\r\n" or (not end and len(data) < MAX_LINE):
        return end
    raise _malformed("its line does not end with CRLF in time")


def _read_line(line: bytes) -> ProxyHeader:
    if _UNKNOWN.fullmatch(line):
        return ProxyHeader()
    match = _LINE.fullmatch(line)
    if match is None:
        raise _malformed("its line is none")
    family = IPv4Address if match[1] == b"4" else IPv6Address
    try:
        source, destination = (_plain(family(match[group].decode())) for group in (2, 3))
    except AddressValueError:
        raise _malformed("an address is none") from None
    ports = int(match[4]), int(match[5])
    if max(ports) > 65_535:
        raise _malformed("a port is none")
    return ProxyHeader(End(source, ports[0]), End(destination, ports[1]))


def _plain(address: _Address) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)


def _block_end(data: bytes) -> int:
    """Where a header of version 2 ends; 0 if that is still to come. What can be checked, is."""
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise _malformed("its version or command is not known")
    if len(data) > 13 and data[12] == _PROXY and (data[13] >> 4 not in _SIZES or data[13] & 0xF > 2):
        raise _malformed("its family or transport is not known")
    if len(data) < 16:
        return 0
    size = 16 + int.from_bytes(data[14:16])
    if size > MAX_HEADER:
        raise _malformed("it is too long")
    if data[12] == _PROXY and size < 16 + _SIZES[data[13] >> 4]:
        raise _malformed("its addresses are cut off")
    return size if len(data) >= size else 0


def _read_block(block: bytes) -> ProxyHeader:
    if block[12] == _LOCAL:
        # Whatever it holds says nothing (section 2.2), its checksum neither.
        return ProxyHeader()
    addresses = _SIZES[block[13] >> 4]
    secure = _read_fields(block, 16 + addresses)
    if block[13] not in (_TCP4, _TCP6):
        return ProxyHeader(secure=secure)
    size = (addresses - 4) // 2
    source, destination = (_plain(ip_address(block[at : at + size])) for at in (16, 16 + size))
    at = 16 + 2 * size
    return ProxyHeader(
        End(source, int.from_bytes(block[at : at + 2])),
        End(destination, int.from_bytes(block[at + 2 : at + 4])),
        secure,
    )


def _read_fields(block: bytes, at: int) -> bool:
    """Check the additional fields from ``at``; returns whether the client spoke TLS (section 2.2.5)."""
    secure = False
    while at < len(block):
        start, end = at + 3, at + 3 + int.from_bytes(block[at + 1 : at + 3])
        if start > len(block) or end > len(block):
            raise _malformed("a field in it is cut off")
        kind, at = block[at], end
        if kind == _TLV_CRC32C:
            _check_sum(block, start, end)
        elif kind == _TLV_SSL:
            if end - start < 5:
                raise _malformed("a field in it is cut off")
            secure = bool(block[start] & _OVER_TLS)
    return secure


def _check_sum(block: bytes, start: int, end: int) -> None:
    """The sum is that of the whole header with zeroes in the place of the sum (section 2.2.3)."""
    zeroed = block[:start] + bytes(end - start) + block[end:]
    if end - start != 4 or crc32c(zeroed) != int.from_bytes(block[start:end]):
        raise _malformed("its checksum is wrong")


def crc32c(data: bytes) -> int:
    """The CRC-32 of Castagnoli (RFC 4960 appendix B)."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ table[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF


@cache
def _crc_table() -> tuple[int, ...]:
    def entry(octet: int) -> int:
        for _ in range(8):
            octet = octet >> 1 ^ (_CASTAGNOLI if octet & 1 else 0)
        return octet

    return tuple(map(entry, range(256)))


def own_header(version: int) -> bytes:
    """The header of a connection that is for nobody but ourselves, such as a probe."""
    return b"PROXY UNKNOWN\r\n" if version == V1 else SIGNATURE + bytes((_LOCAL, 0, 0, 0))


def make_header(version: int, source: End | None, destination: End | None) -> bytes:
    """The header for the connection that a client has made from ``source`` to ``destination``.

    Where one of them is no address (a UNIX socket), it says that the client is not known. If one is of IPv4
    and the other of IPv6, both are written as IPv6.
    """
    ends = _addresses(source, destination)
    if ends is None:
        return own_header(V1) if version == V1 else SIGNATURE + bytes((_PROXY, 0, 0, 0))
    (first, first_port), (second, second_port) = ends
    if first.version != second.version:
        first, second = _as_ipv6(first), _as_ipv6(second)
    if version == V1:
        return f"PROXY TCP{first.version} {first} {second} {first_port} {second_port}\r\n".encode()
    kind, size = (_TCP4, 12) if first.version == 4 else (_TCP6, 36)
    head = SIGNATURE + bytes((_PROXY, kind)) + size.to_bytes(2)
    return head + first.packed + second.packed + first_port.to_bytes(2) + second_port.to_bytes(2)


def _addresses(source: End | None, destination: End | None) -> list[tuple[_Address, int]] | None:
    """Both ends with their addresses, if they have some."""
    if source is None or destination is None:
        return None
    try:
        return [(ip_address(host.partition("%")[0]), port) for host, port in (source, destination)]
    except ValueError:
        return None


def _as_ipv6(address: _Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(bytes(10) + b"\xff\xff" + address.packed)
