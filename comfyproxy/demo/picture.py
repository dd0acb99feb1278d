"""The pictures of the simulation: real PNG files, made with zlib alone.

A picture is a **card**: a mosaic in the server's own hue (its pattern comes from the seed), under it a dark
band with the server's name and the prompt's id. The same facts stand in the file's text chunks, as ComfyUI
writes the prompt there. A **preview** is a small mosaic that comes out of noise as the steps go by.

Pixels are indexes into a palette: at one byte a pixel and with whole rows repeated, a card of 1536 x 1536
pixels costs some 20 ms, so that drawing never holds up the reactor.
"""

import colorsys
import math
import random
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfyproxy.demo.font import HEIGHT, lit_pixels, text_width

Color = tuple[int, int, int]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHADES = 24
_INK, _MUTED, _BAND, _GROUND = range(SHADES, SHADES + 4)


@dataclass(frozen=True, slots=True)
class Image:
    """What flows along IMAGE links: not pixels, but what is needed to draw them when they are saved.

    ``seed`` asks for a mosaic, ``color`` (0xRRGGBB) for a flat ground; ``source`` is an image that was
    loaded, whose bytes are kept as they are. ``batch`` images of this kind are one value, as in ComfyUI.
    """

    width: int
    height: int
    color: int = 0
    seed: int | None = None
    source: bytes | None = None
    batch: int = 1


def card(image: Image, server: str, hue: float, prompt_id: str, text: Mapping[str, str]) -> bytes:
    """The PNG file of ``image`` as made by ``server`` for ``prompt_id``, with ``text`` as its text chunks."""
    if image.source is not None and image.source.startswith(SIGNATURE):
        return image.source
    canvas = _Canvas(image.width, image.height)
    if image.seed is None:
        canvas.fill(_GROUND)
    else:
        canvas.mosaic(_plasma(image.seed))
    _write_band(canvas, server, prompt_id)
    ground = (image.color >> 16 & 255, image.color >> 8 & 255, image.color & 255)
    return png(
        canvas.width,
        canvas.rows,
        [*_shades(hue), (255, 255, 255), (196, 200, 208), (14, 16, 22), ground],
        text,
    )


def preview(seed: int, hue: float, done: float, side: int = 128) -> bytes:
    """A small PNG of the mosaic of ``seed``, the share ``done`` (0 to 1) of it out of the noise."""
    noise = random.Random(f"{seed}:{done}")
    canvas = _Canvas(side, side)
    canvas.mosaic(
        [
            bytes(cell if noise.random() < done else noise.randrange(SHADES) for cell in row)
            for row in _plasma(seed)
        ]
    )
    return png(side, canvas.rows, _shades(hue), {})


def png(width: int, rows: Sequence[bytes], palette: Sequence[Color], text: Mapping[str, str]) -> bytes:
    """A PNG file of palette indexes (W3C PNG, colour type 3); keys of ``text`` are Latin-1, 1 to 79 long."""
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 3, 0, 0, 0)
    words = [
        _chunk(b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1", "replace"))
        for key, value in text.items()
    ]
    colors = b"".join(bytes(color) for color in palette)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 6)
    return b"".join(
        [
            SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", colors),
            *words,
            _chunk(b"IDAT", pixels),
            _chunk(b"IEND", b""),
        ]
    )


def text_of(data: bytes) -> dict[str, str]:
    """The text chunks of a PNG file; empty for anything else, and what a damaged file still gives."""
    found: dict[str, str] = {}
    position = len(SIGNATURE)
    while data.startswith(SIGNATURE) and position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"tEXt":
            key, _, value = data[position + 8 : position + 8 + length].partition(b"\0")
            found[key.decode("latin-1")] = value.decode("latin-1")
        position += 12 + length
    return found


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG file, from its header.

    Raises ValueError when ``data`` is no PNG file.
    """
    if not data.startswith(SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 24:
        raise ValueError("not a PNG file")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


class _Canvas:
    """Rows of palette indexes; equal rows may be one object, so a row is copied before it is drawn on."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self.rows: list[bytes] = []

    def fill(self, index: int, top: int = 0) -> None:
        """Everything from row ``top`` down in one colour."""
        self.rows[top:] = [bytes([index]) * self.width] * (self.height - top)

    def mosaic(self, cells: Sequence[bytes]) -> None:
        """The cells stretched over the whole canvas."""
        columns = len(cells[0])
        across = [column * columns // self.width for column in range(self.width)]
        stretched = [bytes(map(row.__getitem__, across)) for row in cells]
        self.rows = [stretched[y * len(cells) // self.height] for y in range(self.height)]

    def write(self, x: int, y: int, text: str, scale: int, index: int) -> None:
        """One line of text; what is outside the canvas is cut off."""
        ink = bytes([index]) * scale
        drawn: dict[int, bytearray] = {}
        for across, down in lit_pixels(text):
            left = x + across * scale
            if not 0 <= left <= self.width - scale:
                continue
            for row in range(y + down * scale, min(y + (down + 1) * scale, self.height)):
                line = drawn.setdefault(row, bytearray(self.rows[row]))
                line[left : left + scale] = ink
        for row, line in drawn.items():
            self.rows[row] = bytes(line)


def _write_band(canvas: _Canvas, server: str, prompt_id: str) -> None:
    """The dark band at the foot, the name as large as fits; too small a picture stays without."""
    room = canvas.width * 9 // 10
    name_scale = min(room // max(1, text_width(server)), canvas.height // 64)
    id_scale = min(room // max(1, text_width(prompt_id)), canvas.height // 128)
    if not name_scale:
        return
    gap = name_scale * 3
    height = gap * 2 + HEIGHT * name_scale + (gap + HEIGHT * id_scale if id_scale else 0)
    if height > canvas.height:
        return
    top = canvas.height - height
    left = (canvas.width - room) // 2
    canvas.fill(_BAND, top)
    canvas.write(left, top + gap, server, name_scale, _INK)
    if id_scale:
        canvas.write(left, top + gap * 2 + HEIGHT * name_scale, prompt_id, id_scale, _MUTED)


def _plasma(seed: int, cells: int = 32) -> list[bytes]:
    """A smooth pattern of shades: four waves whose direction, length and phase come from the seed."""
    dice = random.Random(seed)
    waves = [
        (dice.uniform(-0.35, 0.35), dice.uniform(-0.35, 0.35), dice.uniform(0, math.tau)) for _ in range(4)
    ]
    heights = [
        [sum(math.sin(x * across + y * down + phase) for across, down, phase in waves) for x in range(cells)]
        for y in range(cells)
    ]
    lowest, highest = min(map(min, heights)), max(map(max, heights))
    scale = (SHADES - 1) / (highest - lowest)
    return [bytes(round((height - lowest) * scale) for height in row) for row in heights]


def _shades(hue: float) -> list[Color]:
    """From a deep to a light shade of a hue (0 to 1), which turns a little on the way."""
    colors = []
    for step in range(SHADES):
        share = step / (SHADES - 1)
        red, green, blue = colorsys.hls_to_rgb((hue + 0.08 * share) % 1, 0.18 + 0.62 * share, 0.72)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colors


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
