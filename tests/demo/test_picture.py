"""Pictures: real PNG files that say who made them."""

import struct
import zlib

import pytest

from comfyproxy.demo.picture import SIGNATURE, Image, card, png, preview, size_of, text_of

NAME, PROMPT_ID = "gpu-1", "0f8fad3c-93f1-4a0e-8d1f-24f6c0ffee12"


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG file; asserts that each one's checksum is right."""
    assert data.startswith(SIGNATURE)
    found, position = [], len(SIGNATURE)
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        assert checksum == zlib.crc32(kind + content)
        found.append((kind, content))
        position += 12 + length
    return found


def rows(data: bytes) -> list[bytes]:
    """The palette indexes of each row."""
    width, height = size_of(data)
    pixels = zlib.decompress(b"".join(content for kind, content in chunks(data) if kind == b"IDAT"))
    assert len(pixels) == (width + 1) * height
    return [pixels[at + 1 : at + 1 + width] for at in range(0, len(pixels), width + 1)]


@pytest.mark.parametrize(("width", "height"), [(512, 512), (64, 1000), (1000, 30), (16, 16), (1, 1)])
def test_a_card_is_a_png_file_of_the_size_that_was_asked_for(width: int, height: int) -> None:
    data = card(Image(width, height, seed=3), NAME, 0.5, PROMPT_ID, {})
    assert size_of(data) == (width, height)
    assert [kind for kind, _ in chunks(data)] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    colors = len(dict(chunks(data))[b"PLTE"]) // 3
    assert all(index < colors for row in rows(data) for index in row)


def test_two_servers_make_different_pictures_of_one_seed() -> None:
    image = Image(256, 256, seed=3)
    assert card(image, NAME, 0.5, PROMPT_ID, {}) == card(image, NAME, 0.5, PROMPT_ID, {})
    assert rows(card(image, NAME, 0.5, PROMPT_ID, {})) != rows(card(image, "gpu-2", 0.5, PROMPT_ID, {}))
    palettes = [dict(chunks(card(image, NAME, hue, PROMPT_ID, {})))[b"PLTE"] for hue in (0.5, 0.9)]
    assert palettes[0] != palettes[1]


def test_a_flat_card_has_the_colour_that_was_asked_for() -> None:
    data = card(Image(64, 64, color=0x102030), NAME, 0.5, PROMPT_ID, {})
    palette, first = dict(chunks(data))[b"PLTE"], rows(data)[0][0]
    assert palette[first * 3 : first * 3 + 3] == b"\x10\x20\x30"


def test_the_text_of_a_card_can_be_read_back() -> None:
    data = card(Image(64, 64), NAME, 0.5, PROMPT_ID, {"server": NAME, "prompt": '{"a": 1}'})
    assert text_of(data) == {"server": NAME, "prompt": '{"a": 1}'}


@pytest.mark.parametrize("data", [b"", b"GIF89a", SIGNATURE, SIGNATURE + b"\0\0\0\xfftEXt"])
def test_what_is_no_whole_png_file_has_no_text(data: bytes) -> None:
    assert text_of(data) in ({}, {"": ""})


def test_what_is_no_png_file_has_no_size() -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        size_of(b"GIF89a")


def test_an_image_that_was_loaded_is_saved_as_it_is() -> None:
    source = png(1, [b"\0"], [(1, 2, 3)], {})
    assert card(Image(1, 1, source=source), NAME, 0.5, PROMPT_ID, {}) == source


def test_a_loaded_image_of_another_format_becomes_a_card() -> None:
    assert size_of(card(Image(512, 512, source=b"\xff\xd8\xff"), NAME, 0.5, PROMPT_ID, {})) == (512, 512)


def test_a_preview_comes_out_of_the_noise() -> None:
    final = rows(preview(7, 0.5, 1.0))

    def wrong(done: float) -> int:
        pairs = zip(rows(preview(7, 0.5, done)), final, strict=True)
        return sum(a != b for now, then in pairs for a, b in zip(now, then, strict=True))

    assert wrong(0.0) > wrong(0.5) > wrong(1.0) == 0
