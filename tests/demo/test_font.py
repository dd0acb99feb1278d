"""The font: every glyph is there, in its cell."""

import string

from comfyproxy.demo.font import HEIGHT, WIDTH, glyph, lit_pixels, text_width


def test_every_letter_and_digit_has_a_shape_of_its_own() -> None:
    shapes = [glyph(character) for character in string.ascii_letters + string.digits + "-_.:/ "]
    assert len(set(shapes)) == len(shapes)


def test_a_character_that_is_missing_is_a_question_mark() -> None:
    assert glyph("é") == glyph("?")


def test_ink_stays_in_its_cell() -> None:
    text = string.printable
    assert all(x % (WIDTH + 1) < WIDTH and y < HEIGHT for x, y in lit_pixels(text))
    assert max(x for x, _ in lit_pixels("MM")) < text_width("MM")


def test_the_width_counts_the_gaps_between_characters() -> None:
    assert (text_width(""), text_width("a"), text_width("ab", 2)) == (0, 5, 22)
