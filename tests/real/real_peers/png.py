"""Small PNG files, written and looked into without a library."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def plain_png(colour: int, size: int = 32) -> bytes:
    """A square of one colour (0xRRGGBB)."""
    row = b"\0" + colour.to_bytes(3, "big") * size
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(row * size)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def first_pixel(png: bytes) -> int:
    """The colour in the upper left corner: whatever the row's filter, there is nothing to subtract there."""
    data, position = b"", len(SIGNATURE)
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if kind == b"IDAT":
            data += png[position + 8 : position + 8 + length]
        position += 12 + length
    return int.from_bytes(zlib.decompress(data)[1:4], "big")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
